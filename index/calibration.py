"""From evidence to a score: a logistic regression on clips whose truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special

from encoders.bundle import Calibration, probability
from index.match import FEATURES, Evidence

# Pulls the coefficients to zero where the two classes can be told apart without a single error.
_RIDGE = 1e-3
# A part is the best of several places, lengths and candidates: its odds count as chosen so often.
_SHARE = 4.0
# Quantiles of the scores of absent clips that tell the tail that the threshold is read from.
_TAIL = (0.9, 0.99)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A clip, its candidates, and the truth.

    Attributes
    ----------
    candidates : sequence of (sequence of Evidence, bool)
        Most alike first: the evidence for each, of the whole and perhaps of a part, and whether
        it is the recording that the clip is from.
    absent : bool
        The clip is not in the catalog.
    seconds : float
        Its length.
    """

    candidates: Sequence[tuple[Sequence[Evidence], bool]]
    absent: bool
    seconds: float = 0.0

    def best(self, calibration: Calibration) -> tuple[float, bool]:
        """The logit of the surest candidate, and whether it is right."""
        logits = (
            (max(calibration.logit(e.features()) for e in options), right)
            for options, right in self.candidates
        )
        return max(logits, key=lambda pair: pair[0])


def fit_calibration(
    judged: Sequence[Judged],
    false_accept_rate: float = 0.002,
    names: Sequence[str] = FEATURES,
) -> Calibration:
    """Fit the score, and the threshold that keeps false accepts rare.

    All evidence speaks for a match or not at all: no weight is negative.

    Parameters
    ----------
    judged : sequence of Judged
        Clips of the lengths and conditions that matter, present and absent.
    false_accept_rate : float
        Share of absent clips whose best candidate may pass the threshold.
    names : sequence of str
        Features that may have a weight.

    Returns
    -------
    calibration : Calibration

    Raises
    ------
    ValueError
        If there are no right or no absent clips to learn from.
    """
    # The most alike candidate of each clip, as a whole.
    right = np.array([j.candidates[0][1] for j in judged], bool)
    absent = np.array([j.absent for j in judged], bool)
    if not right.any() or not absent.any():
        raise ValueError("calibration needs clips that are in the catalog and clips that are not")
    evidence = [j.candidates[0][0][0].features() for j in judged]
    features = np.array([[e[name] for name in names] for e in evidence])
    # Features of one scale, so that the ridge weighs on all of them alike; one that never changes
    # tells nothing.
    scale = features.std(axis=0)
    told = scale > 1e-6
    scale = np.where(told, scale, 1.0)
    design = np.column_stack([np.ones(len(features)), np.where(told, features / scale, 0.0)])
    # Both classes weigh the same, whatever their numbers.
    weights = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    signs = np.where(right, 1.0, -1.0)

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        logits = design @ coefficients
        loss = float(weights @ np.logaddexp(0.0, -signs * logits))
        gradient = -(weights * signs * scipy.special.expit(-signs * logits)) @ design
        ridge = _RIDGE * coefficients * (np.arange(len(coefficients)) > 0)
        return loss + 0.5 * float(ridge @ coefficients), gradient + ridge

    fitted = scipy.optimize.minimize(
        objective,
        np.zeros(design.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] + [(0.0, None)] * len(names),
    ).x
    found = {name: round(float(c), 4) for name, c in zip(names, fitted[1:] / scale, strict=True)}
    weights_by_name = {name: weight for name, weight in found.items() if weight} | {"share": _SHARE}
    calibration = Calibration(round(float(fitted[0]), 4), weights_by_name)
    logits = np.array([j.best(calibration)[0] for j in judged])
    threshold = probability(tail_quantile(logits[absent], false_accept_rate))
    # Never so low that a guess passes.
    threshold = round(min(0.9999, max(0.5, threshold)), 4)
    return dataclasses.replace(calibration, threshold=threshold)


def tail_quantile(values: np.ndarray, rate: float) -> float:
    """What a share ``rate`` of all values will exceed.

    Read from a normal tail through two quantiles of the sample: a handful of values does not tell
    the rate of one in five hundred. Never less than what the sample itself exceeds at that rate:
    its tail may be heavier.

    Parameters
    ----------
    values : np.ndarray [shape=(n,)]
    rate : float
        0 gives the largest value.
    """
    if rate <= 0:
        return float(values.max()) + 1e-3
    if rate >= 1 - _TAIL[1]:
        return float(np.quantile(values, 1 - rate, method="higher")) + 1e-3
    low, high, seen = np.quantile(values, [*_TAIL, 1 - rate])
    at_low, at_high, at_rate = scipy.special.ndtri([*_TAIL, 1 - rate])
    return float(max(seen, high + (high - low) / (at_high - at_low) * (at_rate - at_high)))
