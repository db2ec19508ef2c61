from __future__ import annotations

import numpy as np
import pytest

from index.centroids import find_centroids


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 16, 400])
def test_every_cluster_has_its_centroid(n: int) -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(n, 32)))
    vectors = unit(np.repeat(centres, 20, axis=0) + rng.normal(0, 0.03, (20 * n, 32)))
    centroids = find_centroids(vectors, n)
    assert centroids.shape == (n, 32)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1.0, atol=1e-5)
    # k-means leaves some clusters together and divides others.
    assert np.mean((vectors @ centroids.T).max(axis=1) > 0.95) > 0.6


def test_vectors_of_one_direction_do_not_stop_it() -> None:
    # Most of the groups that are divided are empty or very small.
    rng = np.random.default_rng(1)
    vectors = unit(np.concatenate([np.ones((9000, 8)), rng.normal(size=(1000, 8))]))
    centroids = find_centroids(vectors, 500)
    assert centroids.shape == (500, 8)
    assert np.isfinite(centroids).all()
