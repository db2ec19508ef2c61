"""Same sound or not: the decision about a pair of fingerprints, calibrated on held-back pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special

from encoders.errors import EarmarkError

SIMILARITIES = ("cosine", "euclidean", "learned")

STRICT_RATE = 0.01
"""False accepts at the strict threshold."""


def similarity_of_cosine(kind: str, cosine: np.ndarray) -> np.ndarray:
    """Similarity of unit vectors from their inner product; higher is more alike.

    Parameters
    ----------
    kind : str
        ``cosine``: itself. ``euclidean``: minus the distance, which between unit vectors is
        ``sqrt(2 - 2 cosine)``, so that search by inner product ranks the same. ``learned``: the
        cosine again, as the learned weights are part of the exported network.
    """
    if kind == "euclidean":
        return -np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
    return cosine


@dataclasses.dataclass(frozen=True)
class Decision:
    """When two fingerprints are of the same sound.

    Parameters
    ----------
    similarity : str
        One of :data:`SIMILARITIES`.
    scale, bias : float
        ``sigmoid(scale * similarity + bias)`` is the probability that two windows are the same
        sound, at even odds.
    threshold : float
        Similarity at which as large a share of the different pairs is accepted as of the same
        pairs is rejected.
    equal_error_rate : float
        That share.
    strict_threshold : float
        Similarity that one different pair in a hundred reaches.
    strict_misses : float
        Share of the same pairs below it.
    """

    similarity: str
    scale: float
    bias: float
    threshold: float
    equal_error_rate: float
    strict_threshold: float
    strict_misses: float

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"unknown similarity {self.similarity!r}")

    def compare(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Similarity of each row of ``a`` with the same row of ``b``.

        Parameters
        ----------
        a, b : np.ndarray [shape=(n, dim)]
            Unit vectors.

        Returns
        -------
        similarity : np.ndarray [shape=(n,)]
        """
        if a.shape != b.shape:
            raise ValueError(f"rows are compared one by one, got {a.shape} and {b.shape}")
        return similarity_of_cosine(self.similarity, np.sum(a * b, axis=1))

    def probability(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Probability, at even odds, that rows are the same sound [shape=(n,)]."""
        return scipy.special.expit(self.scale * self.compare(a, b) + self.bias)

    def same(self, a: np.ndarray, b: np.ndarray, strict: bool = False) -> np.ndarray:
        """Whether rows are the same sound [shape=(n,), dtype=bool]."""
        return self.compare(a, b) >= (self.strict_threshold if strict else self.threshold)


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What a cosine between sounds means: how likely they are of the same kind.

    Parameters
    ----------
    scale, bias : float
        ``sigmoid(scale * cosine + bias)`` is the share of sounds of the query's kind among the
        first ten that are found and are that near.
    """

    scale: float
    bias: float

    def __call__(self, cosine: float) -> float:
        """Probability, 0 to 1."""
        return float(scipy.special.expit(self.scale * cosine + self.bias))


def fit_likeness(same: np.ndarray, different: np.ndarray) -> Likeness:
    """Calibrate cosines of what was found, right and wrong, as often as they come.

    Parameters
    ----------
    same, different : np.ndarray [shape=(n_same,)], [shape=(n_different,)]
        Cosines.

    Raises
    ------
    EarmarkError
        If there are none of either.
    """
    if not len(same) or not len(different):
        raise EarmarkError("a likeness is fitted to sounds of the same kind and of different kinds")
    scale, bias = fit_logistic(same, different)
    odds = len(same) / len(different)
    return Likeness(round(scale, 4), round(bias + float(np.log(odds)), 4))


def fit_decision(
    similarity: str,
    same: np.ndarray,
    different: np.ndarray,
    logistic: tuple[float, float] | None = None,
) -> Decision:
    """Calibrate the decision.

    Parameters
    ----------
    similarity : str
    same, different : np.ndarray [shape=(n_same,)], [shape=(n_different,)]
        Similarities of held-back pairs.
    logistic : tuple of float, optional
        Scale and bias that were learned with the network. [default: fitted to the pairs]
    """
    threshold, error_rate = equal_error(same, different)
    strict = float(np.quantile(different, 1.0 - STRICT_RATE, method="higher"))
    scale, bias = logistic or fit_logistic(same, different)
    return Decision(
        similarity=similarity,
        scale=round(scale, 4),
        bias=round(bias, 4),
        threshold=round(threshold, 4),
        equal_error_rate=round(error_rate, 5),
        strict_threshold=round(strict, 4),
        strict_misses=round(float(np.mean(same < strict)), 5),
    )


def equal_error(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """Threshold where false accepts and false rejects are equally frequent, and how frequent.

    Parameters
    ----------
    same, different : np.ndarray [shape=(n_same,)], [shape=(n_different,)]
        Similarities; a pair is accepted from the threshold on.
    """
    thresholds = np.sort(same)
    rejected = np.arange(len(same)) / len(same)
    accepted = 1.0 - np.searchsorted(np.sort(different), thresholds) / len(different)
    at = int(np.argmin(np.abs(rejected - accepted)))
    return float(thresholds[at]), float(rejected[at] + accepted[at]) / 2.0


def fit_logistic(
    same: np.ndarray, different: np.ndarray, ridge: float = 1e-5
) -> tuple[float, float]:
    """Scale and bias of a logistic regression in which both sides weigh the same (Platt, 1999).

    Parameters
    ----------
    same, different : np.ndarray [shape=(n_same,)], [shape=(n_different,)]
        Similarities.
    ridge : float
        Weight of ``scale ** 2``, which keeps it finite where the two sides do not overlap.
    """

    def loss(head: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = ridge * head[0] ** 2, np.array([2.0 * ridge * head[0], 0.0])
        for scores, sign in ((same, 1.0), (different, -1.0)):
            evidence = -sign * (head[0] * scores + head[1])
            value += float(np.mean(np.logaddexp(0.0, evidence)))
            slope = -sign * scipy.special.expit(evidence) / len(scores)
            gradient += [slope @ scores, slope.sum()]
        return value, gradient

    found = scipy.optimize.minimize(loss, np.array([10.0, 0.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])
