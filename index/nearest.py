"""Nearest fingerprints of one generation: all of them compared, or those in the right lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np

from index.generation import TRAINED, GenerationInfo
from index.half import widen
from index.lists import map_lists

_CHUNK = 65_536


class Nearest(Protocol):
    """Finds the nearest rows by inner product."""

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [shape=(n_queries, k)], best first; row -1 where there are fewer."""


def open_nearest(
    folder: Path, info: GenerationInfo, vectors: np.ndarray, rows: np.ndarray
) -> Nearest:
    """How a generation is searched.

    Parameters
    ----------
    folder : Path
    info : GenerationInfo
    vectors : np.ndarray [shape=(n_vectors, dim)]
        Its row store.
    rows : np.ndarray [shape=(n_rows,)]
        Rows of recordings that can be found.
    """
    if info.kind.is_flat:
        return Exact(vectors, rows)
    return Inverted(folder, info, vectors)


class Exact:
    """Compares a query with every row, in float32 in memory.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n_vectors, dim)]
    rows : np.ndarray [shape=(n_rows,)]
        Those to find.
    """

    def __init__(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(vectors.shape[1]))
        for start in range(0, len(rows), _CHUNK):
            chosen, fingerprints = sounding(vectors, rows[start : start + _CHUNK])
            self._index.add_with_ids(fingerprints, chosen)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [shape=(n_queries, k)], best first; row -1 where there are fewer."""
        scores, rows = self._index.search(queries, k)
        return scores, rows


class Inverted:
    """Looks into the inverted lists of the nearest centroids, and compares what it finds there
    with the row store.

    Parameters
    ----------
    folder : Path
    info : GenerationInfo
    vectors : np.ndarray [shape=(n_vectors, dim)]
    """

    def __init__(self, folder: Path, info: GenerationInfo, vectors: np.ndarray) -> None:
        self._vectors = vectors
        self._rerank = info.kind.rerank
        self._nprobe = info.kind.nprobe
        self._segments = [map_lists(folder / TRAINED, folder / s.file) for s in info.segments]
        for index in self._segments:
            index.nprobe = self._nprobe

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [shape=(n_queries, k)], best first; row -1 where there are fewer."""
        n_candidates = k * self._rerank
        nearness, lists = self._segments[0].quantizer.search(queries, self._nprobe)
        found = [
            index.search_preassigned(queries, n_candidates, lists, nearness)
            for index in self._segments
        ]
        rows = np.concatenate([rows for _, rows in found], axis=1)
        if len(found) > 1:
            rough = np.concatenate([scores for scores, _ in found], axis=1)
            rows = np.take_along_axis(rows, _best(rough, n_candidates), axis=1)
        stored = widen(self._vectors[np.maximum(rows, 0)])
        scores = np.matmul(stored, queries[:, :, None])[:, :, 0]
        scores[rows < 0] = -np.inf
        best = _best(scores, k)
        best = np.take_along_axis(
            best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable"), 1
        )
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


def sounding(vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of ``rows`` that are not silence, and their vectors in float32.

    Silence is stored as zeros; it is near nothing and in no index.
    """
    # A stretch is a view, and so is read only once.
    in_a_row = len(rows) and rows[-1] - rows[0] == len(rows) - 1
    chosen = vectors[rows[0] : rows[-1] + 1] if in_a_row else vectors[rows]
    heard = chosen.any(axis=1)
    return rows[heard], chosen[heard].astype(np.float32)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    # Places of the k best of each line, in any order.
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]
