"""From a query to its alignments: look it up, weigh the candidates, lay it against the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from index.match.align import Alignment
from index.match.candidates import STEPS, propose, sounding
from index.match.rescore import rescore
from index.policy import QUICK
from index.search import FingerprintIndex

N_HITS = 20
"""Neighbours looked up for each query window."""

MIN_SEARCHED, MAX_SEARCHED = 40, 64
"""Query windows that are looked up, evenly spread: all of a short query, every other one of a
longer, up to the greater number. All are used to rescore."""


@dataclasses.dataclass(frozen=True)
class Hits:
    """The nearest fingerprints of some of the windows of a query.

    Attributes
    ----------
    steps : np.ndarray [shape=(n,)]
        Query windows that were looked up.
    scores, rows : np.ndarray [shape=(n, k)]
        As from :meth:`FingerprintIndex.search`.
    """

    steps: np.ndarray
    scores: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, queries: np.ndarray, steps: np.ndarray, index: FingerprintIndex) -> Hits:
        """Look windows up."""
        return cls(steps, *index.search(queries[steps], N_HITS, QUICK))

    def moved(self, steps: int) -> Hits:
        """The same hits of a query that begins so many steps earlier."""
        return dataclasses.replace(self, steps=self.steps + steps)

    @classmethod
    def join(cls, hits: Sequence[Hits]) -> Hits:
        """Hits of neighbouring windows."""
        return cls(
            np.concatenate([h.steps for h in hits]),
            np.concatenate([h.scores for h in hits]),
            np.concatenate([h.rows for h in hits]),
        )


def find_alignments(
    queries: np.ndarray,
    index: FingerprintIndex,
    hits: Hits | None = None,
    also: Sequence[tuple[int, int]] = (),
) -> list[Alignment]:
    """Align a query with the recordings of an index.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim), dtype=float32]
        Fingerprints at ``STEPS`` times the reference rate; zero where the query is silent.
    index : FingerprintIndex
    hits : Hits, optional
        What is known about the query already. [default: it is looked up]
    also : sequence of (recording, lag)
        More candidates.

    Returns
    -------
    alignments : list of Alignment
        Most similar first.
    """
    if index.info.n_rows == 0 or not sounding(queries).any():
        return []
    if hits is None:
        hits = look_up(queries, index)
    candidates = [*also, *propose(queries, hits.steps, hits.scores, hits.rows, index)]
    return _distinct(sorted(rescore(queries, index, candidates), key=lambda a: -a.similarity))


def look_up(queries: np.ndarray, index: FingerprintIndex) -> Hits:
    """Look up windows of a query, evenly spread."""
    heard = np.flatnonzero(sounding(queries))
    n = min(len(heard), max(MIN_SEARCHED, min(MAX_SEARCHED, len(heard) // 2)))
    return Hits.of(queries, heard[np.linspace(0, len(heard) - 1, n).round().astype(int)], index)


def _distinct(alignments: list[Alignment]) -> list[Alignment]:
    # Neighbouring lags of one recording lead to the same place: keep the best.
    kept: list[Alignment] = []
    for a in alignments:
        near = (b for b in kept if b.recording == a.recording)
        if all(abs(a.lag - b.lag) > STEPS for b in near):
            kept.append(a)
    return kept
