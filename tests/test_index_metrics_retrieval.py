"""Retrieval and few-shot figures, with scikit-learn as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from index.metrics_retrieval import (
    bootstrap_interval,
    f1_by_label,
    macro_f1,
    mean_by_label,
    nearest_discriminant,
    nearest_prototype,
    retrieve,
)

RNG = np.random.default_rng(7)


def test_average_precision_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    vectors = RNG.normal(size=(60, 5))
    labels, sources = RNG.choice(list("abc"), 60), RNG.choice(list("uvwx"), 60)
    found = retrieve(vectors, labels, sources)
    assert len(found.queries) == 60
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, value in zip(found.queries, found.average_precision, strict=True):
        others = sources != sources[row]
        scores = unit[others] @ unit[row]
        expected = metrics.average_precision_score(labels[others] == labels[row], scores)
        assert value == pytest.approx(expected)


def test_sounds_of_the_same_source_are_neither_found_nor_missed() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [1.0, 0.1], [0.0, -1.0]])
    labels, sources = ["dog", "dog", "cat", "dog", "owl"], ["a", "a", "b", "c", "b"]
    found = retrieve(vectors, labels, sources)
    # The cat and the owl have no other of their kind elsewhere.
    assert found.queries.tolist() == [0, 1, 3]
    assert found.average_precision.tolist() == [1.0, 1.0, 1.0]
    # The first dog has the third one, and two others that are no dogs; the third has both.
    assert found.precision_at_5.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    only = retrieve(vectors, labels, sources, np.array([False, False, False, True, False]))
    assert only.queries.tolist() == [3]


def test_a_wrong_order_costs_precision() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    found = retrieve(vectors, ["x", "y", "y", "x"], list("abcd"), np.arange(4) == 0)
    assert found.average_precision.tolist() == pytest.approx([1 / 3])


def test_f1_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, predicted = RNG.choice(list("abcd"), 200), RNG.choice(list("abcd"), 200)
    expected = metrics.f1_score(truth, predicted, average=None)
    assert list(f1_by_label(truth, predicted).values()) == pytest.approx(expected.tolist())
    assert macro_f1(truth, predicted) == pytest.approx(expected.mean())
    assert macro_f1(["a", "b"], ["b", "b"]) == pytest.approx((0 + 2 / 3) / 2)


def test_the_nearest_prototype_is_the_mean_and_not_the_nearest_example() -> None:
    examples = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    vectors = np.array([[0.7, 0.714], [0.5, 0.866]])
    predicted = nearest_prototype(examples, ["a", "a", "b"], vectors)
    assert predicted.tolist() == ["a", "b"]


def test_the_interval_draws_whole_groups() -> None:
    values = np.repeat([0.0, 1.0], 50)
    alone = bootstrap_interval(values, [str(i) for i in range(100)])
    together = bootstrap_interval(values, ["a"] * 50 + ["b"] * 50)
    assert 0.35 < alone[0] < 0.5 < alone[1] < 0.65
    assert together == (0.0, 1.0)
    assert mean_by_label(values, ["x", "y"] * 50) == {"x": 0.5, "y": 0.5}


def test_a_discriminant_looks_away_from_what_varies_in_every_label() -> None:
    rng = np.random.default_rng(0)
    # The labels differ in the second number; the first one varies ten times as much in both.
    spread = rng.normal(0, [1.0, 0.02], (40, 2))
    points = spread + np.array([[0.0, 0.1], [0.0, -0.1]])[np.arange(40) % 2]
    labels = np.array(["up", "down"])[np.arange(40) % 2]
    found = nearest_discriminant(points[:10], labels[:10], points[10:], shrinkage=0.001)
    assert (found == labels[10:]).all()
    assert (nearest_discriminant(points[:10], labels[:10], points[10:], 1.0) != found).any()
