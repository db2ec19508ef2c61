"""Hits to candidates: the alignments that are worth rescoring.

Every hit proposes a lag: ``STEPS * j - i`` for reference window ``j`` and query window ``i``. Those
whose surroundings agree best with the query are kept.
"""

from __future__ import annotations

import collections

import numpy as np

from index.half import widen
from index.match.detail import Spectrogram, likeness, strengths
from index.search import FingerprintIndex

STEPS = 4
"""Query windows per reference hop."""

N_CANDIDATES = 28
"""Alignments that are rescored, at most: of eight that are looked at, one."""

MAX_PER_RECORDING = 5
"""Of one recording: a loop must not crowd out the other recordings that a match is weighed
against."""

MAX_LAGS, FEWER_LAGS, LONG_STEPS = 768, 256, 40
"""Alignments that are looked at before they are rescored; the second number for a query of more
windows than the third, which has several hits at the right place."""

# Reference hops on both sides of a hit that are looked at before it is rescored: 5 s.
_REACH = 10
# Frames around a hit in which the signs are compared: 3 s. A quarter of the lags, those that look
# best then, so many at most, are looked at in 10 s, at every other frame.
_FRAMES, _SHORTLIST, _MORE_FRAMES, _MORE_STRIDE = 96, 64, 320, 2


def propose(
    queries: np.ndarray,
    searched: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    index: FingerprintIndex,
    spectrogram: Spectrogram | None = None,
    max_lags: int | None = None,
) -> list[tuple[int, int]]:
    """Alignments worth rescoring: every hit is one, and what lies around it speaks for it.

    Parameters
    ----------
    queries : np.ndarray [shape=(n_queries, dim)]
    searched : np.ndarray [shape=(n,)]
        Query window of each line of ``scores`` and ``rows`` [shape=(n, k)].
    spectrogram : Spectrogram, optional
        As for :func:`index.match.find_alignments`.
    max_lags : int, optional
        Alignments that are looked at: those with the best hits. [default: by length]

    Returns
    -------
    candidates : list of (recording, lag)
        Most alike first.
    """
    if max_lags is None:
        max_lags = MAX_LAGS if len(queries) <= LONG_STEPS else FEWER_LAGS
    # Silence is stored as zeros.
    hit = (rows >= 0) & (scores > 0)
    steps = np.broadcast_to(searched[:, None], rows.shape)[hit]
    rows, scores = rows[hit], scores[hit]
    recordings = index.recording_of(rows)
    lags = STEPS * (rows - index.first_rows[recordings]) - steps
    chosen_hits = _one_of_each_lag(recordings, lags, scores, max_lags)
    steps, rows = steps[chosen_hits], rows[chosen_hits]
    recordings, lags = recordings[chosen_hits], lags[chosen_hits]
    alike = _similarity_around(queries, steps, rows, recordings, index)
    if spectrogram is not None:
        shortlist = min(_SHORTLIST, max_lags // 4)
        strength = _strength(spectrogram, index, recordings, lags, steps, alike, shortlist)
        alike += likeness(strength)
    candidates: list[tuple[int, int]] = []
    chosen: dict[int, list[int]] = collections.defaultdict(list)
    for i in np.argsort(-alike, kind="stable").tolist():
        recording, lag = int(recordings[i]), int(lags[i])
        # Rescoring looks at the neighbouring lags as well.
        near = any(abs(lag - other) <= STEPS for other in chosen[recording])
        if near or len(chosen[recording]) == MAX_PER_RECORDING:
            continue
        chosen[recording].append(lag)
        candidates.append((recording, lag))
        if len(candidates) == min(N_CANDIDATES, max_lags // 8):
            break
    return candidates


def _strength(
    spectrogram: Spectrogram,
    index: FingerprintIndex,
    recordings: np.ndarray,
    lags: np.ndarray,
    steps: np.ndarray,
    similarity: np.ndarray,
    shortlist: int,
) -> np.ndarray:
    # How strongly the signs around every hit agree [shape=(n_hits,)].
    found = strengths(spectrogram, index, recordings, lags, steps, _FRAMES)
    if len(spectrogram.heard) > _FRAMES:
        best = np.argsort(-(similarity + likeness(found)), kind="stable")[:shortlist]
        where = recordings[best], lags[best], steps[best]
        longer = strengths(spectrogram, index, *where, _MORE_FRAMES, _MORE_STRIDE)
        found[best] = np.maximum(found[best], longer)
    return found


def _one_of_each_lag(
    recordings: np.ndarray, lags: np.ndarray, scores: np.ndarray, most: int
) -> np.ndarray:
    # The best hit of each alignment; of too many alignments, those whose hits add up to most.
    order = np.lexsort((-scores, lags, recordings))
    recordings, lags = recordings[order], lags[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(recordings) != 0) | (np.diff(lags) != 0)
    first = np.flatnonzero(is_first)
    if len(first) <= most:
        return order[first]
    votes = np.add.reduceat(scores[order], first)
    # What counts is how far a hit is above the rest: the weakest hits are many.
    best = np.argpartition(-votes, most)[:most]
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
