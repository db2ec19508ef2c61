"""Hits to candidates: the alignments that are worth rescoring.

Every hit proposes a lag: ``STEPS * j - i`` for reference window ``j`` and query window ``i``. Those
whose surroundings agree best with the query are kept.
"""

from __future__ import annotations

import collections

import numpy as np

from index.half import widen
from index.search import FingerprintIndex

STEPS = 4
"""Query windows per reference hop."""

N_CANDIDATES = 24
"""Alignments that are rescored."""

MAX_PER_RECORDING = 3
"""Of one recording: a loop must not crowd out the other recordings that a match is weighed
against."""

# Reference hops on both sides of a hit that are looked at before it is rescored: 5 s.
_REACH = 10
# Lags that are looked at like that: those with the best hits.
_MAX_LAGS = 256


def propose(
    queries: np.ndarray,
    searched: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    index: FingerprintIndex,
) -> list[tuple[int, int]]:
    """Alignments worth rescoring: every hit is one, and what lies around it speaks for it.

    Parameters
    ----------
    queries : np.ndarray [shape=(n_queries, dim)]
    searched : np.ndarray [shape=(n,)]
        Query window of each line of ``scores`` and ``rows`` [shape=(n, k)].

    Returns
    -------
    candidates : list of (recording, lag)
        Most similar first.
    """
    # Silence is stored as zeros.
    hit = (rows >= 0) & (scores > 0)
    steps = np.broadcast_to(searched[:, None], rows.shape)[hit]
    rows, scores = rows[hit], scores[hit]
    recordings = index.recording_of(rows)
    lags = STEPS * (rows - index.first_rows[recordings]) - steps
    chosen_hits = _one_of_each_lag(recordings, lags, scores)
    steps, rows = steps[chosen_hits], rows[chosen_hits]
    recordings, lags = recordings[chosen_hits], lags[chosen_hits]
    similarity = _similarity_around(queries, steps, rows, recordings, index)
    candidates: list[tuple[int, int]] = []
    chosen: dict[int, list[int]] = collections.defaultdict(list)
    for i in np.argsort(-similarity, kind="stable").tolist():
        recording, lag = int(recordings[i]), int(lags[i])
        # Rescoring looks at the neighbouring lags as well.
        near = any(abs(lag - other) <= STEPS for other in chosen[recording])
        if near or len(chosen[recording]) == MAX_PER_RECORDING:
            continue
        chosen[recording].append(lag)
        candidates.append((recording, lag))
        if len(candidates) == N_CANDIDATES:
            break
    return candidates


def _one_of_each_lag(recordings: np.ndarray, lags: np.ndarray, scores: np.ndarray) -> np.ndarray:
    # The best hit of each alignment; of too many alignments, those whose hits add up to most.
    order = np.lexsort((-scores, lags, recordings))
    recordings, lags = recordings[order], lags[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(recordings) != 0) | (np.diff(lags) != 0)
    first = np.flatnonzero(is_first)
    if len(first) <= _MAX_LAGS:
        return order[first]
    votes = np.add.reduceat(scores[order], first)
    # What counts is how far a hit is above the rest: the weakest hits are many.
    best = np.argpartition(-votes, _MAX_LAGS)[:_MAX_LAGS]
    return order[first[best]]


def _similarity_around(
    queries: np.ndarray,
    steps: np.ndarray,
    rows: np.ndarray,
    recordings: np.ndarray,
    index: FingerprintIndex,
) -> np.ndarray:
    # Mean similarity of each hit and its neighbours at speed 1 [shape=(n_hits,)].
    distance = np.arange(-_REACH, _REACH + 1)
    around = steps[:, None] + STEPS * distance
    beside = rows[:, None] + distance
    begin = index.first_rows[recordings][:, None]
    end = begin + index.n_rows[recordings][:, None]
    heard = meets(around, sounding(queries))
    met = (beside >= begin) & (beside < end) & heard
    pairs = np.zeros(met.shape, np.float32)
    known = widen(index.vectors[beside[met]])
    pairs[met] = np.einsum("nd,nd->n", queries[around[met]], known)
    # Beyond an end of the recording there is nothing to agree with: half of it must not win.
    possible = heard.sum(axis=1)
    return pairs.sum(axis=1) / np.maximum(met.sum(axis=1), (possible + 1) // 2)


def sounding(queries: np.ndarray) -> np.ndarray:
    """Which query windows hold sound: silence speaks neither for nor against an alignment."""
    return np.any(queries != 0, axis=1)


def meets(steps: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Whether places in the query are inside of it and not silent.

    Parameters
    ----------
    steps : np.ndarray of int
    heard : np.ndarray [shape=(n_queries,), dtype=bool]
        From :func:`sounding`.
    """
    inside = (steps >= 0) & (steps < len(heard))
    return inside & heard[np.clip(steps, 0, len(heard) - 1)]
