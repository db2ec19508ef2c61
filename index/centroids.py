"""The centroids of inverted lists: k-means whose work grows little faster than the lists."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np

# Up to so many centroids every vector is compared with every one in each iteration.
_FEW = 256
_ITERATIONS = 10

# From so many centroids on, each vector is compared with those of the nearest groups only, a
# quarter of them: 19 of 20 get the list that they would get anyhow, the others one as near.
_MANY = 2048
_GROUPS_SEEN = 0.25


def find_centroids(vectors: np.ndarray, n: int) -> np.ndarray:
    """Spherical k-means.

    Of many centroids the square root of their number is found first. The vectors nearest to each
    of those are then divided on their own, and one iteration over all of them mends the borders.
    (Without it, as in ``faiss.contrib.clustering``, a search has to look into an eighth more lists
    to find as much.)

    Parameters
    ----------
    vectors : np.ndarray [shape=(n_vectors, dim), dtype=float32]
        At least ``n``.
    n : int

    Returns
    -------
    centroids : np.ndarray [shape=(n, dim), dtype=float32]
        Of unit length.
    """
    if n <= _FEW:
        return _kmeans(vectors, n, _ITERATIONS).centroids
    coarse = _kmeans(vectors, math.isqrt(n), _ITERATIONS)
    _, group = coarse.assign(vectors)
    # In proportion to the vectors; a very small group may get none.
    share = np.cumsum(np.bincount(group, minlength=coarse.k)) * (n / len(vectors))
    parts = np.diff(np.round(share).astype(int), prepend=0).tolist()
    fine = [
        _kmeans(vectors[group == number], n_parts, _ITERATIONS).centroids
        for number, n_parts in enumerate(parts)
        if n_parts
    ]
    return _kmeans(vectors, n, 1, np.concatenate(fine)).centroids


@contextlib.contextmanager
def quick_assignment(index: Any) -> Iterator[None]:
    """Assign what is added to an index of many lists in a time that grows with their square root.

    Centroids are put into groups, as vectors are into lists; only those of the nearest groups are
    compared. Searching is as before, and so are the centroids.

    Parameters
    ----------
    index : faiss.IndexIVF
        Trained.
    """
    exact = faiss.downcast_index(index.quantizer)
    if index.nlist < _MANY or not isinstance(exact, faiss.IndexFlat):
        yield
        return
    centroids = exact.reconstruct_n(0, index.nlist)
    groups = faiss.IndexFlatIP(index.d)
    groups.add(_kmeans(centroids, math.isqrt(index.nlist), _ITERATIONS).centroids)
    quick = faiss.IndexIVFFlat(groups, index.d, groups.ntotal, faiss.METRIC_INNER_PRODUCT)
    quick.nprobe = round(_GROUPS_SEEN * groups.ntotal)
    quick.add(centroids)
    # What is left of a vector without its centroid asks for centroids by number.
    quick.make_direct_map()
    index.quantizer = quick
    try:
        yield
    finally:
        index.quantizer = exact


def _kmeans(vectors: np.ndarray, n: int, iterations: int, start: np.ndarray | None = None) -> Any:
    kmeans = faiss.Kmeans(
        vectors.shape[1], n, niter=iterations, spherical=True,
        min_points_per_centroid=1, max_points_per_centroid=len(vectors),
    )  # fmt: skip
    kmeans.train(np.ascontiguousarray(vectors, np.float32), init_centroids=start)
    return kmeans
