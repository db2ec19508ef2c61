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
# The scores of absent clips above this quantile make the tail that the threshold is read from.
_TAIL = 0.95


@dataclasses.dataclass(frozen=True)
class Judged:
    """The best candidate of a clip, and whether it was right.

    Attributes
    ----------
    evidence : Evidence
    right : bool
        The clip is in the catalog and the candidate is its recording.
    absent : bool
        The clip is not in the catalog.
    """

    evidence: Evidence
    right: bool
    absent: bool


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
    right = np.array([j.right for j in judged])
    absent = np.array([j.absent for j in judged])
    if not right.any() or not absent.any():
        raise ValueError("calibration needs clips that are in the catalog and clips that are not")
    features = np.array([[j.evidence.features()[name] for name in names] for j in judged])
    # Features of one scale, so that the ridge weighs on all of them alike.
    scale = np.maximum(features.std(axis=0), 1e-6)
    design = np.column_stack([np.ones(len(features)), features / scale])
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
    calibration = Calibration(
        round(float(fitted[0]), 4), {name: weight for name, weight in found.items() if weight}
    )
    logits = np.array([calibration.logit(j.evidence.features()) for j in judged])
    threshold = probability(tail_quantile(logits[absent], false_accept_rate))
    # Never so low that a guess passes.
    threshold = round(min(0.9999, max(0.5, threshold)), 4)
    return dataclasses.replace(calibration, threshold=threshold)


def tail_quantile(values: np.ndarray, rate: float) -> float:
    """What a share ``rate`` of all values will exceed.

    Beyond the last twentieth of the sample an exponential tail is fitted to it (peaks over a
    threshold): a handful of values does not tell the rate of one in five hundred.

    Parameters
    ----------
    values : np.ndarray [shape=(n,)]
    rate : float
        0 gives the largest value.
    """
    if rate <= 0:
        return float(values.max()) + 1e-3
    start = float(np.quantile(values, _TAIL))
    beyond = values[values > start]
    if rate >= 1 - _TAIL or len(beyond) < 2:
        return float(np.quantile(values, 1 - rate, method="higher")) + 1e-3
    mean = float((beyond - start).mean())
    return start + mean * float(np.log(len(beyond) / len(values) / rate))
