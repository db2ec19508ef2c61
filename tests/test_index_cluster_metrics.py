from __future__ import annotations

import numpy as np
import pytest

from index.cluster_metrics import bcubed, mixed_clusters


def test_bcubed_by_hand() -> None:
    # Amigó et al. 2009: the mean over items of the share of their cluster, and of their group.
    truth = dict(zip("abcdef", [1, 1, 1, 2, 2, 3], strict=True))
    found = dict(zip("abcde", "xxyyy", strict=True))  # f is alone
    precision, recall = bcubed(truth, found)
    assert precision.value == pytest.approx((1 + 1 + 1 / 3 + 2 / 3 + 2 / 3 + 1) / 6)
    assert recall.value == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 + 1 + 1) / 6)
    for share in (precision, recall):
        assert share.low < share.value < share.high
        assert share.n == 3


def test_bcubed_of_perfect_and_of_worst_clusters() -> None:
    truth = {str(i): i // 4 for i in range(400)}
    precision, recall = bcubed(truth, {k: -v for k, v in truth.items()})
    assert precision.value == recall.value == 1.0
    assert 0.95 < precision.low < 0.97, "a hundred groups say no more than that"
    precision, recall = bcubed(truth, dict.fromkeys(truth, 0))
    assert (precision.value, recall.value) == (pytest.approx(0.01), 1.0)
    precision, recall = bcubed(truth, {})
    assert (precision.value, recall.value) == (1.0, pytest.approx(0.25))
    assert bcubed({}, {})[0].n == 0


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(60):
        # One group in ten loses one of its five items to a cluster of its own: recall 0.968.
        torn = rng.random(200) < 0.1
        truth = {f"{g} {i}": g for g in range(200) for i in range(5)}
        found = {k: (g, torn[g] and k.endswith(" 0")) for k, g in truth.items()}
        recall = bcubed(truth, found, seed)[1]
        inside += recall.low <= 1 - 0.1 * (4 * 0.2 + 0.8) / 5 <= recall.high
    assert inside >= 50


def test_mixed_clusters() -> None:
    truth = {"a": 1, "b": 1, "c": 2, "d": 2}
    assert mixed_clusters(truth, {"a": 0, "b": 0, "c": 0, "d": 1, "other": 1}) == [["a", "b", "c"]]
    assert mixed_clusters(truth, {"a": 0, "b": 1, "c": 2, "d": 2}) == []
