"""Candidates for duplicates: every recording is looked up in an index, window by window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np

from index.compare import best_stretch
from index.contents import Contents
from index.search import FingerprintIndex

N_NEIGHBOURS = 48
"""Neighbours looked up for each window: copies, and the windows beside them, of one sound."""

MIN_SIMILARITY = 0.5
"""Windows less similar than this say nothing."""

MAX_PARTNERS = 32
"""Partners that a recording is verified with, the most similar ones; what they share with others
of their cluster links those."""

ALIGNMENTS = 3
"""Alignments of a pair that are verified: of music that repeats itself, several fit."""

# Seconds of the reference in one of the query that are tried.
_SPEEDS = np.array([1.0, *(1 + sign * p / 100 for p in range(1, 7) for sign in (-1, 1))])
# What another speed must win by.
_SPEED_GAIN = 1.1
# Recordings of fewer windows do not tell speeds apart.
_LEAST_FOR_SPEED = 8
# A hit that is barely similar has this vote.
_LEAST_VOTE = 0.1
# Votes that a pair needs when its shorter recording has at most so many windows. Short copies begin
# together and have twice that; an excerpt that lies half a window off has little more. One second
# of speech is often like another, and among minutes of music there are always two that are: with
# less, most of the files would be in a candidate pair.
_LEAST_VOTES = (
    (1, 0.44), (2, 0.55), (3, 0.75), (4, 0.85), (8, 1.0), (20, 1.1), (60, 1.4), (np.inf, 1.6),
)  # fmt: skip
# What has one window, or two, inside of what has more than so many: minutes hold a second that is
# like any other.
_LEAST_VOTES_INSIDE = ((1, 0.5), (2, 0.7))
_LASTING = 40
# Recordings of no more windows than this must be alike in all of them, on average so much: when the
# two are about as long, and so begin together, and when one lies somewhere inside the other. The
# nearest windows of the many short sounds there are were alike by chance.
_FEW = 4
_ALIKE, _ALIKE_INSIDE = 0.84, 0.7
# Those of more than _LONG must be more similar than the first for a while: what they are more
# similar by is summed. (Of minutes, a few windows here and there are alike by chance.)
_GOES_ON = 0.4
_LEAST_STRETCH = 3.0
# Of recordings longer than this, in windows, every second window is looked up.
_LONG = 60
_WINDOWS_AT_ONCE = 4096
# Share of the allowed lists that are looked into: a copy has many windows to be found by.
_EFFORT = 3 / 8
# Of the columns of candidates.
_KINDS = "i8", "i8", "f4", "f4", "f4", "i8", "i8"


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Alignments of recordings, as columns [shape=(n,)].

    Attributes
    ----------
    query, reference : np.ndarray [dtype=int64]
        Numbers of the recordings in their indexes.
    lag : np.ndarray [dtype=float32]
        Reference time at the start of the query, in windows.
    speed : np.ndarray [dtype=float32]
        Seconds of the reference in one of the query.
    votes : np.ndarray [dtype=float32]
        Query windows that agree, weighed by their similarity.
    first, last : np.ndarray [dtype=int64]
        The first and the last of these windows.
    """

    query: np.ndarray
    reference: np.ndarray
    lag: np.ndarray
    speed: np.ndarray
    votes: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def take(self, chosen: np.ndarray) -> Candidates:
        """Some of them."""
        return Candidates(*(column[chosen] for column in self.columns()))

    def columns(self) -> tuple[np.ndarray, ...]:
        """The columns, in order."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclasses.dataclass(frozen=True)
class Side:
    """An index, and which content each of its recordings is.

    Parameters
    ----------
    index : FingerprintIndex
    contents : np.ndarray [shape=(n_recordings,), dtype=int64]
        Numbers in a :class:`index.contents.Contents`; -1 for what is not compared.
    """

    index: FingerprintIndex
    contents: np.ndarray


def propose_pairs(
    queries: Side, recordings: np.ndarray, references: Side, contents: Contents
) -> Iterator[Candidates]:
    """Look recordings of one index up in another, or in the same.

    Parameters
    ----------
    queries, references : Side
    recordings : np.ndarray [shape=(n,), dtype=int64]
        Numbers of recordings of ``queries``.
    contents : Contents
        Says which may be compared. A recording is never its own candidate.

    Yields
    ------
    candidates : Candidates
        At most ``ALIGNMENTS`` of each of at most ``MAX_PARTNERS`` partners of every recording.
    """
    # One thread: the callers run side by side.
    faiss.omp_set_num_threads(1)
    n_windows = queries.index.n_rows[recordings]
    looked_up = np.cumsum(np.where(n_windows <= _LONG, n_windows, (n_windows + 1) // 2))
    for batch in np.split(recordings, np.flatnonzero(np.diff(looked_up // _WINDOWS_AT_ONCE)) + 1):
        hits = _hits(queries, batch, references, contents)
        lines = _vote(hits, queries.index, references.index)
        lines = lines.take(_most_voted(lines))
        yield lines.take(_hold(lines, queries.index, references.index))


class _Hits(NamedTuple):
    """Recording and window of the query, of the reference, and the similarity of each hit."""

    query: np.ndarray
    window: np.ndarray
    reference: np.ndarray
    place: np.ndarray
    score: np.ndarray


def _hits(queries: Side, recordings: np.ndarray, references: Side, contents: Contents) -> _Hits:
    index = queries.index
    counts = index.n_rows[recordings]
    windows = [np.arange(0, n, 1 if n <= _LONG else 2) for n in counts.tolist()]
    query = np.repeat(recordings, list(map(len, windows)))
    window = np.concatenate([np.empty(0, np.int64), *windows])
    vectors = index.vectors[index.first_rows[query] + window].astype(np.float32)
    scores, rows = references.index.search(vectors, N_NEIGHBOURS, _EFFORT, every=True)
    hit = (rows >= 0) & (scores > MIN_SIMILARITY)
    which = np.nonzero(hit)[0]
    query, window, row, score = query[which], window[which], rows[hit], scores[hit]
    reference = references.index.recording_of(row)
    allowed = contents.may_pair(queries.contents[query], references.contents[reference])
    place = row - references.index.first_rows[reference]
    return _Hits(*(column[allowed] for column in (query, window, reference, place, score)))


def _vote(found: _Hits, queries: FingerprintIndex, references: FingerprintIndex) -> Candidates:
    # The hits of a pair that lie on a line speak together. Lines are counted in cells of lag
    # that overlap, so that hits on both sides of a border meet.
    query, window, reference, place, score = found
    weight = score - MIN_SIMILARITY + _LEAST_VOTE
    lengths = queries.n_rows[query], references.n_rows[reference]
    shorter, longer = np.minimum(*lengths), np.maximum(*lengths)
    least = np.select([shorter <= n for n, _ in _LEAST_VOTES], [v for _, v in _LEAST_VOTES])
    for n, enough in _LEAST_VOTES_INSIDE:
        least[(shorter == n) & (longer > _LASTING)] = enough
    hits = np.lexsort((window, reference, query))
    hits = hits[_may_reach(least[hits], weight[hits], query[hits], reference[hits], window[hits])]
    long = hits[shorter[hits] >= _LEAST_FOR_SPEED]
    lines = [Candidates(*(np.empty(0, kind) for kind in _KINDS))]
    for speed in _SPEEDS.tolist():
        chosen = hits if speed == 1 else long
        lag = place[chosen] - speed * window[chosen]
        gain = 1.0 if speed == 1 else _SPEED_GAIN
        for half in (0.0, 0.5):
            # Two windows wide.
            cell = np.floor(lag / 2 + half)
            order = np.lexsort((cell, reference[chosen], query[chosen]))
            mine = chosen[order]
            changes = [np.diff(column) != 0 for column in (query[mine], reference[mine])]
            new = np.r_[True, changes[0] | changes[1] | (np.diff(cell[order]) != 0)][: len(mine)]
            # A window that met several neighbours has one vote.
            again = np.r_[False, ~new[1:] & (np.diff(window[mine]) == 0)][: len(mine)]
            starts = np.flatnonzero(new)
            if len(starts) == 0:
                continue
            votes = np.add.reduceat(np.where(again, 0, weight[mine]), starts) / gain
            kept = votes >= least[mine[starts]]
            means = np.add.reduceat(weight[mine] * lag[order], starts)
            means /= np.add.reduceat(weight[mine], starts)
            first = mine[starts[kept]]
            last = mine[np.r_[starts[1:], len(mine)][kept] - 1]
            speeds = np.full(len(first), speed)
            lines.append(
                Candidates(
                    query[first], reference[first], means[kept], speeds, votes[kept],
                    window[first], window[last],
                )
            )  # fmt: skip
    return Candidates(*map(np.concatenate, zip(*(c.columns() for c in lines), strict=True)))


def _may_reach(
    least: np.ndarray, weight: np.ndarray, query: np.ndarray, reference: np.ndarray,
    window: np.ndarray,
) -> np.ndarray:  # fmt: skip
    # Whether a pair has enough votes if all of its hits lie on one line: few do. Hits are sorted by
    # pair and window.
    if len(weight) == 0:
        return np.empty(0, bool)
    new_pair = np.r_[True, (np.diff(query) != 0) | (np.diff(reference) != 0)]
    starts = np.flatnonzero(new_pair | np.r_[True, np.diff(window) != 0])
    best = np.maximum.reduceat(weight, starts)
    votes = np.add.reduceat(best, np.flatnonzero(new_pair[starts]))
    return votes[np.cumsum(new_pair) - 1] >= least


def _hold(lines: Candidates, queries: FingerprintIndex, references: FingerprintIndex) -> np.ndarray:
    # Which lines hold along the shorter recording [shape=(n,), dtype=bool].
    lengths = queries.n_rows[lines.query], references.n_rows[lines.reference]
    hold = np.ones(len(lines.query), bool)
    for i in np.flatnonzero((np.minimum(*lengths) <= _FEW) | (np.minimum(*lengths) > _LONG)):
        shorter, longer = (
            _vectors(queries, lines.query[i]),
            _vectors(references, lines.reference[i]),
        )
        lag, speed = float(lines.lag[i]), float(lines.speed[i])
        if len(shorter) > len(longer):
            shorter, longer, lag, speed = longer, shorter, -lag / speed, 1 / speed
        similarity = _along(shorter, longer, lag, speed)
        heard = similarity[~np.isnan(similarity)]
        if len(shorter) <= _FEW:
            together = len(longer) <= len(shorter) + (len(shorter) > 1)
            hold[i] = heard.sum() >= len(heard) * (_ALIKE if together else _ALIKE_INSIDE)
        else:
            start, end = best_stretch(heard - _GOES_ON)
            hold[i] = (heard[start:end] - _GOES_ON).sum() >= _LEAST_STRETCH
    return hold


def _vectors(index: FingerprintIndex, recording: int) -> np.ndarray:
    first = index.first_rows[recording]
    return index.vectors[first : first + index.n_rows[recording]].astype(np.float32)


def _along(a: np.ndarray, b: np.ndarray, lag: float, speed: float) -> np.ndarray:
    # Similarity of each window of a to the more similar of the two of b that it falls between; NaN
    # where one is silent, which is stored as zeros, or b has none.
    place = lag + speed * np.arange(len(a))
    best = np.full(len(a), np.nan)
    for beside in (np.floor(place), np.ceil(place)):
        met = np.flatnonzero((beside >= 0) & (beside < len(b)))
        found = np.einsum("nd,nd->n", a[met], b[beside[met].astype(int)])
        best[met] = np.fmax(best[met], np.where(found == 0, np.nan, found))
    return best


def _most_voted(lines: Candidates) -> np.ndarray:
    # The best lines of every pair, then the best pairs of every query.
    pairs: dict[tuple[int, int], list[int]] = {}
    order = np.argsort(-lines.votes, kind="stable")
    query, reference = lines.query.tolist(), lines.reference.tolist()
    lags = lines.lag.tolist()
    for i in order.tolist():
        kept = pairs.setdefault((query[i], reference[i]), [])
        if len(kept) < ALIGNMENTS and all(abs(lags[i] - lags[other]) > 1 for other in kept):
            kept.append(i)
    partners: dict[int, int] = {}
    chosen: list[int] = []
    # Pairs come most voted first, as their best lines did.
    for (of, _), kept in pairs.items():
        partners[of] = partners.get(of, 0) + 1
        if partners[of] <= MAX_PARTNERS:
            chosen += kept
    return np.array(chosen, np.int64)
