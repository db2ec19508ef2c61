"""From evidence to a score: a logistic regression on clips whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.optimize
import scipy.special

from encoders.bundle import Calibration

# Pulls the coefficients to zero where the two classes can be told apart without a single error.
_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The best candidate of a clip, and whether it was right.

    Attributes
    ----------
    similarity, margin : float
    n_pairs : int
        As in :class:`index.match.Scored` and :class:`index.match.Alignment`.
    right : bool
        The clip is in the catalog and the candidate is its recording.
    absent : bool
        The clip is not in the catalog.
    """

    similarity: float
    margin: float
    n_pairs: int
    right: bool
    absent: bool


def fit_calibration(evidence: list[Evidence], false_accept_rate: float = 0.01) -> Calibration:
    """Fit the score, and the threshold that keeps false accepts rare.

    Parameters
    ----------
    evidence : list of Evidence
        Clips of the lengths and conditions that matter, present and absent.
    false_accept_rate : float
        Share of absent clips whose best candidate may pass the threshold.

    Returns
    -------
    calibration : Calibration

    Raises
    ------
    ValueError
        If there are no right or no absent clips to learn from.
    """
    right = np.array([e.right for e in evidence])
    absent = np.array([e.absent for e in evidence])
    if not right.any() or not absent.any():
        raise ValueError("calibration needs clips that are in the catalog and clips that are not")
    features = np.array([[1.0, e.similarity, e.margin, math.log(e.n_pairs)] for e in evidence])
    # Both classes weigh the same, whatever their numbers.
    weights = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    signs = np.where(right, 1.0, -1.0)

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ coefficients
        loss = float(weights @ np.logaddexp(0.0, -signs * logits))
        gradient = -(weights * signs * scipy.special.expit(-signs * logits)) @ features
        ridge = _RIDGE * np.array([0.0, 0.01, 0.01, 1.0]) * coefficients
        return loss + 0.5 * float(ridge @ coefficients), gradient + ridge

    fitted = scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="L-BFGS-B").x
    scores = scipy.special.expit(features @ fitted)
    threshold = float(np.quantile(scores[absent], 1.0 - false_accept_rate, method="higher"))
    intercept, similarity, margin, length = (round(float(c), 4) for c in fitted)
    return Calibration(
        intercept,
        similarity,
        margin,
        length,
        # Just above the last absent clip that is allowed in; never so low that a guess passes.
        threshold=round(min(0.999, max(0.5, threshold + 1e-4)), 4),
    )
