"""Same sound or not: thresholds that keep what they say, on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from encoders.decision import (
    SIMILARITIES,
    Decision,
    equal_error,
    fit_decision,
    fit_likeness,
    fit_logistic,
    similarity_of_cosine,
)


def scores(n_same: int = 4_000, n_different: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    """Two normal distributions, 0.5 apart, each with a deviation of 0.125."""
    rng = np.random.default_rng(0)
    return rng.normal(0.6, 0.125, n_same), rng.normal(0.1, 0.125, n_different)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_equal_error_of_normal_distributions() -> None:
    threshold, rate = equal_error(*scores())
    # Half way, two deviations from either mean.
    assert threshold == pytest.approx(0.35, abs=0.01)
    assert rate == pytest.approx(scipy.stats.norm.sf(2.0), abs=0.004)


def test_equal_error_without_overlap_is_zero() -> None:
    threshold, rate = equal_error(np.array([0.8, 0.9]), np.array([0.1, 0.5, 0.2]))
    assert rate == 0.0
    assert 0.5 < threshold <= 0.8


def test_the_logistic_is_the_odds() -> None:
    # Of two normal distributions with one deviation s, the log odds are the line
    # (x - middle) * distance / s ** 2.
    scale, bias = fit_logistic(*scores())
    assert scale == pytest.approx(0.5 / 0.125**2, rel=0.08)
    assert -bias / scale == pytest.approx(0.35, abs=0.01)


def test_the_logistic_stays_finite_without_overlap() -> None:
    scale, bias = fit_logistic(np.array([0.8, 0.9]), np.array([0.1, 0.2]))
    assert 10 < scale < 1000
    assert 0.2 < -bias / scale < 0.8


def test_a_decision_keeps_its_rates() -> None:
    same, different = scores()
    decision = fit_decision("cosine", same, different)
    false_accepts = np.mean(different >= decision.threshold)
    false_rejects = np.mean(same < decision.threshold)
    assert false_accepts == pytest.approx(false_rejects, abs=1e-3)
    assert decision.equal_error_rate == pytest.approx(false_accepts, abs=1e-3)
    assert np.mean(different >= decision.strict_threshold) == pytest.approx(0.01, abs=5e-4)
    assert np.mean(same < decision.strict_threshold) == pytest.approx(decision.strict_misses)
    assert decision.strict_threshold > decision.threshold
    assert (decision.scale, decision.bias) == pytest.approx(fit_logistic(same, different), abs=1e-3)


def test_a_logistic_that_was_learned_stays() -> None:
    decision = fit_decision("learned", *scores(100, 1000), (12.5, -4.0))
    assert (decision.scale, decision.bias) == (12.5, -4.0)


def test_similarities_of_unit_vectors() -> None:
    rng = np.random.default_rng(1)
    a, b = (unit(rng.normal(size=(50, 8))) for _ in range(2))
    cosines = np.sum(a * b, axis=1)
    distances = np.linalg.norm(a - b, axis=1)
    for kind in ("cosine", "learned"):
        np.testing.assert_array_equal(similarity_of_cosine(kind, cosines), cosines)
    np.testing.assert_allclose(similarity_of_cosine("euclidean", cosines), -distances)
    # Search by inner product gives the same order.
    order = np.argsort(similarity_of_cosine("euclidean", cosines))
    np.testing.assert_array_equal(order, np.argsort(cosines))
    assert np.isfinite(similarity_of_cosine("euclidean", np.array([1.0 + 1e-7])))


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_rows_are_compared_one_by_one(kind: str) -> None:
    rng = np.random.default_rng(2)
    a = unit(rng.normal(size=(3, 5)))
    b = np.stack([a[0], -a[1], unit(a[2:] + 0.3 * rng.normal(size=(1, 5)))[0]])
    limit = -1.0 if kind == "euclidean" else 0.5
    strict = -0.01 if kind == "euclidean" else 0.9999
    decision = Decision(kind, 10.0, -10.0 * limit, limit, 0.02, strict, 0.1)
    assert decision.same(a, b).tolist() == [True, False, True]
    assert decision.same(a, b, strict=True).tolist() == [True, False, False]
    # Even odds at the threshold, and beyond it surer.
    probability = decision.probability(a, b)
    np.testing.assert_array_equal(probability > 0.5, decision.same(a, b))
    assert probability[0] > probability[2] > probability[1]
    with pytest.raises(ValueError, match="rows are compared one by one"):
        decision.same(a, b[:2])


def test_an_unknown_similarity_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown similarity 'manhattan'"):
        Decision("manhattan", 1.0, 0.0, 0.5, 0.0, 0.5, 0.0)


def test_likeness_is_the_share_of_what_was_found() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 1.0, 20_000)
    right = rng.random(len(cosines)) < 1 / (1 + np.exp(-(9 * cosines - 6)))
    likeness = fit_likeness(cosines[right], cosines[~right])
    for low in (0.3, 0.6, 0.9):
        here = (cosines >= low) & (cosines < low + 0.05)
        assert likeness(low + 0.025) == pytest.approx(right[here].mean(), abs=0.06)
