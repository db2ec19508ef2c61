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
# Queries that are looked up at a time: what FAISS tabulates for each list that each of them looks
# into, and what is compared again of their candidates, takes a megabyte for every few.
_AT_ONCE = 256
# With each such step from strangers (0) to identity (1) a query looks into half as many lists.
_HALVING = 0.14


class Nearest(Protocol):
    """Finds the nearest rows by inner product; see :meth:`index.search.FingerprintIndex.search`."""

    def search(
        self, queries: np.ndarray, k: int, effort: float = 1.0, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
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

    def search(
        self, queries: np.ndarray, k: int, effort: float = 1.0, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [shape=(n_queries, k)], best first; row -1 where there are fewer."""
        scores, rows = self._index.search(queries, k)
        return scores, rows


class Inverted:
    """Looks into the inverted lists of the nearest centroids, and compares what it finds there
    with the row store.

    The nearest few lists come first. What is found there, and is more similar than another
    recording ever is, is hardly ever beaten by something in a list further away: the more similar,
    the fewer of the others a query looks into.

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
        self._strangers = info.strangers
        self._first = info.kind.n_first
        self._segments = [map_lists(folder / TRAINED, folder / s.file) for s in info.segments]
        for index in self._segments:
            index.nprobe = self._nprobe

    def search(
        self, queries: np.ndarray, k: int, effort: float = 1.0, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [shape=(n_queries, k)], best first; row -1 where there are fewer."""
        found = [
            self._search(queries[i : i + _AT_ONCE], k, *self._lists(effort, every))
            for i in range(0, len(queries), _AT_ONCE)
        ]
        if not found:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        scores, rows = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return scores, rows

    def _lists(self, effort: float, every: bool) -> tuple[int, int]:
        # Lists that each query looks into, and that it looks into at most.
        if self._strangers >= 1:
            return self._nprobe, self._nprobe
        most = max(1, round(effort * self._nprobe))
        return most if every else min(self._first, most), most

    def _search(
        self, queries: np.ndarray, k: int, first: int, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        n = k * self._rerank
        rough, rows = self._look(queries, n, 0, np.full(len(queries), first))
        n_lists = self._worth(rough, first, most)
        again = np.flatnonzero(n_lists > first)
        if len(again):
            further = self._look(queries[again], n, first, n_lists[again])
            rough[again], rows[again] = _join([(rough[again], rows[again]), further])
        stored = widen(self._vectors[np.maximum(rows, 0)])
        scores = np.matmul(stored, queries[:, :, None])[:, :, 0]
        scores[rows < 0] = -np.inf
        best = _best(scores, k)
        best = np.take_along_axis(
            best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable"), 1
        )
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def lists_searched(self, queries: np.ndarray, k: int) -> np.ndarray:
        """How many lists :meth:`search` looks into for each query [shape=(n_queries,)]."""
        first, most = self._lists(1.0, every=False)
        rough, _ = self._look(queries, k * self._rerank, 0, np.full(len(queries), first))
        return self._worth(rough, first, most)

    def _worth(self, rough: np.ndarray, first: int, most: int) -> np.ndarray:
        # How many lists each query should look into, by the scores of the best in the first.
        if first == most:
            return np.full(len(rough), most)
        above = np.maximum(rough.max(axis=1) - self._strangers, 0)
        wanted = most * np.exp2(-above / (1 - self._strangers) / _HALVING)
        return np.maximum(wanted.astype(int), first)

    def _look(
        self, queries: np.ndarray, n: int, first: int, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        # Rough scores and rows of the n best in the lists from one place on to another.
        width = int(last.max())
        near, numbers = self._segments[0].quantizer.search(queries, width)
        numbers[np.arange(width) >= last[:, None]] = -1
        # FAISS passes over lists without a number, and wants always as many.
        lists = np.full((len(queries), self._nprobe), -1)
        nearness = np.zeros(lists.shape, np.float32)
        lists[:, first:width], nearness[:, first:width] = numbers[:, first:], near[:, first:]
        return _join(
            [index.search_preassigned(queries, n, lists, nearness) for index in self._segments]
        )


def sounding(vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of ``rows`` that are not silence, and their vectors in float32.

    Silence is stored as zeros; it is near nothing and in no index.
    """
    # A stretch is a view, and so is read only once.
    in_a_row = len(rows) and rows[-1] - rows[0] == len(rows) - 1
    chosen = vectors[rows[0] : rows[-1] + 1] if in_a_row else vectors[rows]
    heard = chosen.any(axis=1)
    return rows[heard], chosen[heard].astype(np.float32)


def _join(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    # The best scores and rows of several answers, as many as each has, in any order.
    if len(found) == 1:
        return found[0]
    scores, rows = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    best = _best(scores, found[0][0].shape[1])
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    # Places of the k best of each line, in any order.
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]
