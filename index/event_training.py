"""Fit the event classifier: examples, linear heads, and scores that are probabilities.

Everything that turns evidence into scores is measured on recordings that were held back.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special

from encoders.bundle import unit_vectors
from encoders.features import FeatureSpec
from index.config import EncoderInfo
from index.event_examples import TrainingSet
from index.event_model import EventClass, EventModel, nearest
from index.scaling import Scaling

LINEAR_FROM = 5
"""A class with so many examples, those counted that were judged not to be of it, gets a linear
head."""

_MOST_EXAMPLES = 16
_N_FOLDS = 3
# Of the covariance, this share is that of all sounds, and then this share is a sphere.
_GENERAL = 0.5
_SPHERE = 0.5
# A window that holds the class against this many that do not: what a score takes for granted.
_NEGATIVE_WEIGHT = 4.0
# Without a second example to try it on: three deviations above other sounds is an even chance.
_UNTRIED = (-4.5, 1.5, 0.0)
_UNTRIED_LINEAR = (-4.5, 0.75, 0.75)
# Until so many windows have been tried, these are what calibration is drawn to.
_TRUST = 4.0
# And until so many, to both kinds of evidence weighing the same, which is best for new sounds.
_TRUST_BOTH = 200.0
_THRESHOLDS = np.linspace(0.2, 0.98, 40)
_TOGETHER = np.linspace(0.05, 0.98, 94)
_NEARLY_BEST = 0.9
# Of other windows at most this share may pass, or this share of as many as are of the class,
# however many more of the class would be found.
_FALSE_ACCEPTS = 0.005
_FALSE_ACCEPTS_BESIDE = 0.15
_ENOUGH_TO_CHOOSE = 5
# Recordings without labels may hold the sound. This share of their windows, the likest to it, is
# not taken for proof of anything when scores and thresholds are fitted.
_DOUBTFUL = 0.05


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """What held-back windows look like, NaN where there was nothing to compare with.

    Attributes
    ----------
    near, head : np.ndarray [shape=(n, n_classes)]
    """

    near: np.ndarray
    head: np.ndarray


def fit_events(
    data: TrainingSet, spec: FeatureSpec, column: str, encoder: EncoderInfo, scaling: Scaling
) -> EventModel:
    """Fit a classifier.

    Parameters
    ----------
    data : TrainingSet
        From :func:`index.event_examples.training_set` or
        :func:`index.event_mixtures.mixture_set`.
    spec : FeatureSpec
        What was embedded.
    column : str
        Of the embeddings.
    encoder : EncoderInfo
        What made them.
    scaling : Scaling
        What was done to them.
    """
    evidence = _held_back(data)
    positive, known = data.targets == 1, data.targets >= 0
    n_examples = np.array([len(_examples_of(data, c)) for c in range(len(data.names))])
    n_judged = n_examples + _count_refuted(data)
    linear = (n_judged >= LINEAR_FROM) & (n_examples >= 2)
    # The same for all classes, or the likest class of a sound would be the one with rare likes.
    near_scale = _spread(evidence.near, ~positive & known)
    head_scale = _spread(evidence.head, ~positive & known)
    near = _standardise(evidence.near, near_scale)
    head = np.where(linear, _standardise(evidence.head, head_scale), 0.0)
    trusted = known & ~_doubtful(near + head, data.certain)
    calibrations = {
        kind: _calibrate(
            near,
            head,
            positive,
            trusted,
            np.flatnonzero(linear == kind),
            _UNTRIED_LINEAR if kind else _UNTRIED,
        )
        for kind in (False, True)
    }
    examples = [_prototypes(data, c) for c in _all(data)]
    heads = fit_heads(data.vectors, data.targets, data.examples)
    heads[~linear] = 0.0
    classes = []
    by_class = np.array([calibrations[bool(kind)] for kind in linear])
    together = _choose_together(near, head, positive, by_class) if data.segments else []
    for c, name in enumerate(data.names):
        calibration = calibrations[bool(linear[c])]
        constant, by_near, by_head = calibration
        tried = trusted[:, c] & np.isfinite(near[:, c]) & np.isfinite(head[:, c])
        scores = scipy.special.expit(constant + by_near * near[tried, c] + by_head * head[tried, c])
        if data.segments:
            figures = together[c]
        else:
            enough = n_examples[c] >= _ENOUGH_TO_CHOOSE
            figures = _choose(scores, positive[tried, c]) if enough else {}
        classes.append(
            EventClass(
                name,
                "linear" if linear[c] else "prototype",
                int(n_examples[c]),
                len(np.unique(data.recordings[positive[:, c]])),
                near_scale,
                head_scale,
                calibration,
                **{"threshold": 0.5, **figures},
            )
        )
    return EventModel(
        column,
        encoder,
        spec,
        scaling,
        tuple(classes),
        heads,
        np.concatenate(examples),
        tuple(map(len, examples)),
        data.segments,
    )


def fit_heads(vectors: np.ndarray, targets: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Linear discriminants of classes against everything else, with one covariance for all.

    The covariance is that of examples around the mean of their class, which tells how sounds of
    one kind differ, and half of it what sounds differ by in general; both are drawn towards a
    sphere (Friedman, 1989), so that a handful of examples is enough.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, dim)]
    targets : np.ndarray [shape=(n, n_classes)]
        1, 0, or -1 where it is unknown.
    examples : np.ndarray [shape=(n,)]
        Number of the labelled stretch that each row is from.

    Returns
    -------
    heads : np.ndarray [shape=(n_classes, dim + 1), dtype=float32]
        The bias last; zero for a class without positives.
    """
    dim, n_classes = vectors.shape[1], targets.shape[1]
    positive, refuted = targets == 1, _refuted(targets)
    others = vectors[~positive.any(axis=1)]
    if not len(others):
        others = vectors
    rest = others.mean(axis=0)
    means, within = np.zeros((n_classes, dim)), []
    for c in np.flatnonzero(positive.any(axis=0)):
        stretches = _means_of(vectors[positive[:, c]], examples[positive[:, c]])
        means[c] = stretches.mean(axis=0)
        within.append(stretches - means[c])
    n_free = sum(len(deviations) - 1 for deviations in within)
    general = (others - rest).T @ (others - rest) / max(1, len(others) - 1)
    if n_free:
        own = np.concatenate(within)
        covariance = own.T @ own / n_free
        general *= np.trace(covariance) / max(float(np.trace(general)), 1e-9)
        covariance = (1 - _GENERAL) * covariance + _GENERAL * general
    else:
        covariance = general
    size = max(float(np.trace(covariance)) / dim, 1e-6)
    inverse = np.linalg.inv((1 - _SPHERE) * covariance + _SPHERE * size * np.eye(dim))
    heads = np.zeros((n_classes, dim + 1), np.float32)
    for c in np.flatnonzero(positive.any(axis=0)):
        # Each window that somebody has said it is not weighs as much as everything else.
        against = np.mean([rest, *vectors[refuted[:, c]]], axis=0)
        heads[c, :-1] = inverse @ (means[c] - against)
        heads[c, -1] = -heads[c, :-1] @ (means[c] + against) / 2
    return heads


def _means_of(vectors: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    # One vector for each number [shape=(n_numbers, dim)].
    return np.stack([vectors[numbers == number].mean(axis=0) for number in np.unique(numbers)])


def _all(data: TrainingSet) -> range:
    return range(len(data.names))


def _examples_of(data: TrainingSet, c: int, rows: np.ndarray | None = None) -> np.ndarray:
    # Numbers of the labelled stretches of a class.
    mine = data.targets[:, c] == 1
    if rows is not None:
        mine &= rows
    return np.unique(data.examples[mine])


def _refuted(targets: np.ndarray) -> np.ndarray:
    # A judgement is about one class only, and says nothing of the others.
    refuted: np.ndarray = (targets == 0) & (targets < 0).any(axis=1, keepdims=True)
    return refuted


def _count_refuted(data: TrainingSet) -> np.ndarray:
    # Recordings with a stretch that was judged not to be of a class, for each class.
    judged = _refuted(data.targets)
    return np.array([len(np.unique(data.recordings[judged[:, c]])) for c in _all(data)])


def _prototypes(data: TrainingSet, c: int, rows: np.ndarray | None = None) -> np.ndarray:
    # Unit vectors that a sound of the class has to be near to [shape=(n, dim)].
    mine = data.targets[:, c] == 1
    if rows is not None:
        mine &= rows
    vectors, numbers = data.vectors[mine], data.examples[mine]
    means = _means_of(vectors, numbers)
    if len(means) > _MOST_EXAMPLES:
        means = _centres(unit_vectors(means), _MOST_EXAMPLES)
    elif len(means) > 1:
        means = np.concatenate([means, means.mean(axis=0, keepdims=True)])
    return unit_vectors(means).astype(np.float32)


def _centres(vectors: np.ndarray, n: int) -> np.ndarray:
    # Spherical k-means, from points that are far apart, so that it is the same each time.
    chosen = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    while len(chosen) < n:
        chosen.append(int(np.argmin((vectors @ vectors[chosen].T).max(axis=1))))
    centres = vectors[chosen]
    for _ in range(10):
        nearest_centre = np.argmax(vectors @ centres.T, axis=1)
        for k in np.unique(nearest_centre):
            centres[k] = vectors[nearest_centre == k].mean(axis=0)
        centres = unit_vectors(centres)
    return centres


def _held_back(data: TrainingSet) -> _Evidence:
    shape = data.targets.shape
    evidence = _Evidence(np.full(shape, np.nan), np.full(shape, np.nan))
    _, groups = np.unique(data.groups, return_inverse=True)
    folds = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % _N_FOLDS
    for fold in range(_N_FOLDS):
        held, rest = folds == fold, folds != fold
        if not held.any():
            continue
        heads = fit_heads(data.vectors[rest], data.targets[rest], data.examples[rest])
        head = data.vectors[held] @ heads[:, :-1].T + heads[:, -1]
        for c in _all(data):
            if len(_examples_of(data, c, rest)):
                examples = _prototypes(data, c, rest)
                evidence.near[held, c] = nearest(data.vectors[held], examples, (len(examples),))[
                    :, 0
                ]
                evidence.head[held, c] = head[:, c]
    for c in _all(data):
        # A class of one example is always held back as a whole: other sounds can be compared.
        blank = np.isnan(evidence.near[:, c]) & (data.targets[:, c] == 0)
        if blank.any():
            examples = _prototypes(data, c)
            evidence.near[blank, c] = nearest(data.vectors[blank], examples, (len(examples),))[:, 0]
            evidence.head[blank, c] = 0.0
    return evidence


def _spread(values: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    others = values[chosen & np.isfinite(values)]
    if len(others) < 2:
        return 0.0, 1.0
    return round(float(others.mean()), 5), round(max(float(others.std()), 1e-3), 5)


def _standardise(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    mean, deviation = scale
    return (values - mean) / deviation


def _doubtful(evidence: np.ndarray, certain: np.ndarray) -> np.ndarray:
    # Windows of recordings without labels that may be of a class [shape=(n, n_classes)].
    if certain.all():
        return np.zeros(evidence.shape, bool)
    limits = np.nanquantile(evidence[~certain], 1.0 - _DOUBTFUL, axis=0)
    return ~certain[:, None] & (evidence >= limits)


def _calibrate(
    near: np.ndarray,
    head: np.ndarray,
    positive: np.ndarray,
    known: np.ndarray,
    classes: np.ndarray,
    prior: tuple[float, float, float],
) -> tuple[float, float, float]:
    # One calibration for all classes of a kind: each alone has too few windows held back.
    usable = known[:, classes] & np.isfinite(near[:, classes]) & np.isfinite(head[:, classes])
    right = positive[:, classes] & usable
    if not right.any():
        return prior
    wrong = ~positive[:, classes] & usable
    weights = right / np.maximum(right.sum(axis=0), 1) + wrong * (
        _NEGATIVE_WEIGHT / np.maximum(wrong.sum(axis=0), 1)
    )
    weights[:, ~right.any(axis=0)] = 0.0
    taken = weights > 0
    weight = weights[taken] / weights.sum()
    inputs = np.stack([np.ones(int(taken.sum())), near[:, classes][taken], head[:, classes][taken]])
    signs = np.where(right[taken], 1.0, -1.0)
    n_right, difference = int(right.sum()), np.array([0.0, 1.0, -1.0])
    trust, trust_both = _TRUST / n_right, _TRUST_BOTH / n_right if prior[2] else 0.0

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (coefficients @ inputs)
        loss = float(weight @ np.logaddexp(0.0, -margins))
        gradient = -(inputs @ (weight * signs * scipy.special.expit(-margins)))
        pull = trust * (coefficients - prior)
        pull += trust_both * float(difference @ (coefficients - prior)) * difference
        return loss + 0.5 * float(pull @ (coefficients - prior)), gradient + pull

    found = scipy.optimize.minimize(
        objective,
        np.array(prior),
        jac=True,
        method="L-BFGS-B",
        # Being nearer must never count against a sound.
        bounds=[(None, None), (0.0, None), (0.0, None)],
    )
    constant, by_near, by_head = (round(float(v), 4) for v in found.x)
    return constant, by_near, by_head


def _choose_together(
    near: np.ndarray, head: np.ndarray, positive: np.ndarray, calibrations: np.ndarray
) -> list[dict[str, float]]:
    # One threshold for all classes, the lowest of nearly the best mean F1 if a segment is what it
    # is likest to: sounds from elsewhere score lower. One for each, fitted to few sounds, does
    # worse with others.
    constant, by_near, by_head = calibrations.T
    scores = np.nan_to_num(scipy.special.expit(constant + by_near * near + by_head * head))
    likest = scores >= scores.max(axis=1, keepdims=True)
    n_positive = positive.sum(axis=0)
    tried = []
    for threshold in _TOGETHER:
        found = likest & (scores >= threshold)
        hits, n_found = (found & positive).sum(axis=0), found.sum(axis=0)
        tried.append((2 * hits / np.maximum(n_found + n_positive, 1), hits, n_found))
    means = [f1.mean() for f1, *_ in tried]
    if not max(means):
        return [{} for _ in n_positive]
    best = int(np.argmax(np.array(means) >= _NEARLY_BEST * max(means)))
    return [
        {
            "threshold": round(float(_TOGETHER[best]), 3),
            "precision": round(float(hits / max(1, n_found)), 3),
            "recall": round(float(hits / max(1, n)), 3),
            "f1": round(float(f1), 3),
        }
        for f1, hits, n_found, n in zip(*tried[best], n_positive, strict=True)
    ]


def _choose(scores: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    # The threshold of the best F1 among those that let few other sounds pass, and its figures.
    n_positive = int(positive.sum())
    allowed = max(_FALSE_ACCEPTS * (len(positive) - n_positive), _FALSE_ACCEPTS_BESIDE * n_positive)
    best: dict[str, float] = {}
    for threshold in _THRESHOLDS:
        found = scores >= threshold
        hits, n_found = int((found & positive).sum()), int(found.sum())
        f1 = 2 * hits / max(1, n_found + n_positive)
        if hits and n_found - hits <= allowed and f1 > best.get("f1", 0.0):
            best = {
                "threshold": round(float(threshold), 3),
                "precision": round(hits / n_found, 3),
                "recall": round(hits / n_positive, 3),
                "f1": round(f1, 3),
            }
    return best or {"threshold": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}
