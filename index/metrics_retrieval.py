"""How well vectors of sounds find their kind: pure functions of vectors, labels and sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

Names = Sequence[str] | np.ndarray
"""Labels or sources, one for each sound."""


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """How each query did.

    Attributes
    ----------
    queries : np.ndarray [shape=(n_queries,), dtype=int]
        Rows of the queries that had something to find.
    average_precision : np.ndarray [shape=(n_queries,)]
    precision_at_5 : np.ndarray [shape=(n_queries,)]
        Share of the five nearest that are of the query's label; of all if fewer are there.
    """

    queries: np.ndarray
    average_precision: np.ndarray
    precision_at_5: np.ndarray


def retrieve(
    vectors: np.ndarray,
    labels: Names,
    sources: Names,
    queries: np.ndarray | None = None,
) -> Retrieval:
    """Rank the sounds of all other sources for each query, by cosine.

    Average precision is that of information retrieval: the mean, over the sounds of the query's
    label, of the precision at their ranks (scikit-learn's ``average_precision_score``). Equally
    near sounds keep their order.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, dim)]
        Of any length.
    labels, sources : sequence of str [shape=(n,)]
    queries : np.ndarray [shape=(n,), dtype=bool], optional
        Which of them are queries. [default: all]
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    rows = np.arange(len(unit)) if queries is None else np.flatnonzero(queries)
    return rank_all((unit @ unit[row] for row in rows), labels, sources, rows)


def rank_all(
    similarities: Iterable[np.ndarray], labels: Names, sources: Names, queries: np.ndarray
) -> Retrieval:
    """Rank the sounds of all other sources for each query, by given similarities.

    Parameters
    ----------
    similarities : iterable of np.ndarray [shape=(n,)]
        Of each query to all sounds.
    labels, sources : sequence of str [shape=(n,)]
    queries : np.ndarray [shape=(n_queries,), dtype=int]
        Which of the sounds they are.
    """
    _, label = np.unique(np.asarray(labels), return_inverse=True)
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    kept, precisions, at_5 = [], [], []
    for row, alike in zip(queries.tolist(), similarities, strict=True):
        others = np.flatnonzero(source != source[row])
        ranked = others[np.argsort(-alike[others], kind="stable")]
        right = label[ranked] == label[row]
        if not right.any():
            continue
        ranks = np.flatnonzero(right) + 1
        kept.append(row)
        precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
        at_5.append(float(np.mean(right[:5])))
    return Retrieval(np.array(kept, int), np.array(precisions), np.array(at_5))


def mean_by_label(values: np.ndarray, labels: Names) -> dict[str, float]:
    """Mean of the values of each label, in the order of the alphabet."""
    of = np.asarray(labels)
    return {str(label): float(values[of == label].mean()) for label in np.unique(of)}


def bootstrap_interval(
    values: np.ndarray, groups: Names, seed: int = 0, n_draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of the mean, drawing whole groups (Efron, 1979).

    Values of one group, such as recordings from one source, are not independent.

    Parameters
    ----------
    values : np.ndarray [shape=(n,)]
    groups : sequence of str [shape=(n,)]
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sums), size=(n_draws, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def macro_f1(truth: Names, predicted: Names) -> float:
    """Mean over the labels in ``truth`` of their F1; a label never predicted has 0."""
    right, wrong = np.asarray(truth), np.asarray(predicted)
    return float(np.mean(list(f1_by_label(right, wrong).values())))


def f1_by_label(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """F1 of every label in ``truth``: twice the hits over all that are or are called so."""
    found = {}
    for label in np.unique(truth):
        hits = int(((truth == label) & (predicted == label)).sum())
        called = int((predicted == label).sum()) + int((truth == label).sum())
        found[str(label)] = 2 * hits / called
    return found


def nearest_discriminant(
    examples: np.ndarray, labels: Names, vectors: np.ndarray, shrinkage: float = 0.5
) -> np.ndarray:
    """The likeliest label if all have one covariance, that of the examples, shrunk to a sphere.

    Linear discriminant analysis with as little as two examples of each (Friedman, 1989).

    Parameters
    ----------
    examples : np.ndarray [shape=(n_examples, dim)]
        Unit vectors; two or more of one label.
    labels : sequence of str [shape=(n_examples,)]
    vectors : np.ndarray [shape=(n, dim)]
    shrinkage : float
        0 takes the covariance as it is, 1 only its trace.

    Returns
    -------
    predicted : np.ndarray [shape=(n,)]
        Labels.
    """
    names, of = np.unique(np.asarray(labels), return_inverse=True)
    means = np.stack([examples[of == k].mean(axis=0) for k in range(len(names))])
    within = examples - means[of]
    covariance = within.T @ within / max(1, len(examples) - len(names))
    sphere = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weights = np.linalg.solve((1 - shrinkage) * covariance + shrinkage * sphere, means.T)
    return names[np.argmax(vectors @ weights - 0.5 * (means.T * weights).sum(axis=0), axis=1)]


def nearest_prototype(examples: np.ndarray, labels: Names, vectors: np.ndarray) -> np.ndarray:
    """The label whose mean example is the nearest by cosine (Snell et al., 2017).

    Parameters
    ----------
    examples : np.ndarray [shape=(n_examples, dim)]
        Unit vectors.
    labels : sequence of str [shape=(n_examples,)]
    vectors : np.ndarray [shape=(n, dim)]

    Returns
    -------
    predicted : np.ndarray [shape=(n,)]
        Labels.
    """
    names, of = np.unique(np.asarray(labels), return_inverse=True)
    means = np.zeros((len(names), examples.shape[1]))
    np.add.at(means, of, examples)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    return names[np.argmax(vectors @ means.T, axis=1)]
