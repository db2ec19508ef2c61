from __future__ import annotations

import faiss
import numpy as np
import pytest

from index import centroids
from index.centroids import find_centroids, quick_assignment


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 16, 400])
def test_every_cluster_has_its_centroid(n: int) -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(n, 32)))
    vectors = unit(np.repeat(centres, 20, axis=0) + rng.normal(0, 0.03, (20 * n, 32)))
    found = find_centroids(vectors, n)
    assert found.shape == (n, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    # k-means leaves some clusters together and divides others.
    assert np.mean((vectors @ found.T).max(axis=1) > 0.95) > 0.6


def test_vectors_of_one_direction_do_not_stop_it() -> None:
    # Most of the groups that are divided are empty or very small.
    rng = np.random.default_rng(1)
    vectors = unit(np.concatenate([np.ones((9000, 8)), rng.normal(size=(1000, 8))]))
    centroids = find_centroids(vectors, 500)
    assert centroids.shape == (500, 8)
    assert np.isfinite(centroids).all()


def test_many_lists_are_assigned_quickly_and_nearly_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.index_factory(16, "IVF256,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(find_centroids(vectors, 256))
    index.train(vectors)
    exact = index.quantizer
    monkeypatch.setattr(centroids, "_MANY", 256)
    with quick_assignment(index):
        scores, lists = index.quantizer.search(vectors, 1)
        assert faiss.downcast_index(index.quantizer).nprobe == 4
        index.add(vectors)
    assert faiss.downcast_index(index.quantizer).this == exact.this
    best, truth = exact.search(vectors, 1)
    assert (lists == truth).mean() > 0.8
    assert (best - scores).mean() < 0.02
    # Each vector lies in the list that it was given, as it is.
    index.nprobe = 256
    found, rows = index.search(vectors[:100], 1)
    assert (rows[:, 0] == np.arange(100)).all()
    np.testing.assert_allclose(found[:, 0], 1, atol=0.02)
    monkeypatch.setattr(centroids, "_MANY", 257)
    with quick_assignment(index):
        assert isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat)
