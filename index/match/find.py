"""From a query to its alignments: look it up, weigh the candidates, lay it against the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from index.match.align import Alignment, lay
from index.match.candidates import STEPS, propose, sounding
from index.match.detail import ANY_PITCH, ENOUGH, SURE, Detail, Spectrogram, compare
from index.match.rescore import rescore
from index.match.scan import scan
from index.search import FingerprintIndex

N_HITS, MAX_HITS, ALL_HITS = 20, 50, 1250
"""Neighbours looked up for each query window; up to the second number of them where the query has
few windows, so that there are about as many as the third in all."""

MIN_SEARCHED, MAX_SEARCHED = 40, 64
"""Query windows that are looked up, evenly spread: all of a short query, every other one of a
longer, up to the greater number. All are used to rescore."""

QUICK_FROM = 30
"""Queries of more windows than this are looked at quickly first."""

# Then, windows that are looked up, neighbours of each, lags that are tried. It is enough where it
# explains so much of what is heard.
_QUICK, _QUICK_HITS, _QUICK_LAGS = 20, 20, 128
_EXPLAINED = 0.8
# Places that signs alone propose.
_SCANNED = 16

# Alignments this similar whose signs agree no better are tried at other speeds, if the query has so
# many frames at least.
_ALIKE, _POOR, _LONG = 0.5, 0.3, 64
_SPEEDS = tuple(1 + percent / 100 for percent in range(-6, 7))
# Of as many alignments the signs are compared as the query has frames in this number.
_DETAILED_FRAMES, _LEAST_DETAILED = 2400, 10


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
    def of(
        cls,
        queries: np.ndarray,
        steps: np.ndarray,
        index: FingerprintIndex,
        n_hits: int | None = None,
    ) -> Hits:
        """Look windows up."""
        if n_hits is None:
            n_hits = min(MAX_HITS, max(N_HITS, ALL_HITS // max(1, len(steps))))
        return cls(steps, *index.search(queries[steps], n_hits))

    def some(self, n_steps: int, n_hits: int) -> Hits:
        """The nearest few of evenly spread windows."""
        chosen = _evenly(np.arange(len(self.steps)), n_steps)
        return Hits(self.steps[chosen], self.scores[chosen, :n_hits], self.rows[chosen, :n_hits])

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


def look_quickly(
    queries: np.ndarray,
    index: FingerprintIndex,
    spectrogram: Spectrogram,
    hits: Hits | None = None,
    also: Sequence[tuple[int, int]] = (),
) -> list[Alignment]:
    """Align a query with what a few of its windows find, where that is all there is to find.

    Parameters
    ----------
    queries, index, spectrogram, hits, also
        As for :func:`find_alignments`.

    Returns
    -------
    alignments : list of Alignment
        Empty if the query has to be looked up in earnest: it is short, or nothing that is certain
        explains it as a whole.
    """
    heard = np.flatnonzero(sounding(queries))
    if index.info.n_rows == 0 or len(heard) <= QUICK_FROM:
        return []
    if hits is None:
        quick = Hits.of(queries, _evenly(heard, _QUICK), index, _QUICK_HITS)
    else:
        quick = hits.some(_QUICK, _QUICK_HITS)
    alignments = _align(queries, index, quick, also, spectrogram, _QUICK_LAGS)
    return _distinct(alignments) if any(_explains(a, heard) for a in alignments) else []


def find_alignments(
    queries: np.ndarray,
    index: FingerprintIndex,
    hits: Hits | None = None,
    also: Sequence[tuple[int, int]] = (),
    spectrogram: Spectrogram | None = None,
    second: Callable[[], np.ndarray] | None = None,
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
    spectrogram : Spectrogram, optional
        What the query sounds like in detail. [default: fingerprints alone must tell]
    second : callable, optional
        Gives other fingerprints of the query, to look up where the signs of nothing that was found
        are sure to agree. Signs alone are asked then as well, in a short query and an index that is
        not too large.

    Returns
    -------
    alignments : list of Alignment
        What is certain first, most alike first.
    """
    heard = np.flatnonzero(sounding(queries))
    if index.info.n_rows == 0 or not len(heard):
        return []
    if hits is None:
        n = max(MIN_SEARCHED, min(MAX_SEARCHED, len(heard) // 2))
        hits = Hits.of(queries, _evenly(heard, n), index)
    alignments = _align(queries, index, hits, also, spectrogram)
    if spectrogram is not None and second is not None:
        if all(a.detail.strength < ENOUGH for a in alignments):
            alignments += _look_again(queries, second(), index, spectrogram)
        certain = any(a.detail.is_certain for a in alignments)
        if not certain and len(heard) <= QUICK_FROM:
            alignments += _look_everywhere(queries, index, spectrogram)
    return _distinct(alignments)


def _evenly(heard: np.ndarray, n: int) -> np.ndarray:
    n = min(n, len(heard))
    return heard[np.linspace(0, len(heard) - 1, n).round().astype(int)]


def _align(
    queries: np.ndarray,
    index: FingerprintIndex,
    hits: Hits,
    also: Sequence[tuple[int, int]],
    spectrogram: Spectrogram | None,
    max_lags: int | None = None,
) -> list[Alignment]:
    where = hits.steps, hits.scores, hits.rows
    found = propose(queries, *where, index, spectrogram, max_lags)
    alignments = rescore(queries, index, [*also, *found])
    return alignments if spectrogram is None else _detail(queries, index, alignments, spectrogram)


def _explains(a: Alignment, heard: np.ndarray) -> bool:
    # Whether there is nothing else to look for, nor a better place in music that repeats itself.
    covered = np.count_nonzero((heard >= a.first) & (heard <= a.last))
    sure = a.detail.strength >= ENOUGH and a.similarity >= _ALIKE
    return bool(sure and covered >= _EXPLAINED * len(heard))


def _detail(
    queries: np.ndarray,
    index: FingerprintIndex,
    alignments: list[Alignment],
    spectrogram: Spectrogram,
) -> list[Alignment]:
    # The longer a query, the fewer fit well that are not the right one.
    n = max(_LEAST_DETAILED, _DETAILED_FRAMES // max(1, len(spectrogram.heard)))
    # They come as they were proposed, most alike first.
    by_similarity = np.argsort([-a.similarity for a in alignments], kind="stable")
    rank = np.minimum(np.argsort(by_similarity), np.arange(len(alignments)))
    order = np.argsort(rank, kind="stable").tolist()[:n]
    for number in order:
        alignments[number] = _detailed(queries, index, alignments[number], spectrogram)
    played_as_it_is = (alignments[number] for number in order if alignments[number].speed == 1.0)
    if all(a.detail.strength < ENOUGH for a in played_as_it_is):
        # It may be at another pitch, or faster or slower.
        for number in order[: (n + 1) // 2]:
            alignments[number] = _changed(queries, index, alignments[number], spectrogram)
    return alignments


def _detailed(
    queries: np.ndarray, index: FingerprintIndex, a: Alignment, spectrogram: Spectrogram
) -> Alignment:
    # With its detail, and at the lag that it tells where it is sure.
    detail = compare(spectrogram, index, a.recording, a.lag, a.speed, _whole(a, spectrogram))
    return _moved(queries, index, a, detail, a.lag, a.speed)


def _changed(
    queries: np.ndarray, index: FingerprintIndex, a: Alignment, spectrogram: Spectrogram
) -> Alignment:
    # The same at the pitch and speed at which its signs agree best.
    whole = _whole(a, spectrogram)
    detail = compare(spectrogram, index, a.recording, a.lag, a.speed, whole, ANY_PITCH)
    lag, speed = a.lag, a.speed
    if a.similarity > _ALIKE and detail.agreement < _POOR and len(spectrogram.heard) >= _LONG:
        # Alike and yet not the same. The middle stays where it is.
        middle = float(a.steps[0] + a.steps[-1]) / 2
        for other in _SPEEDS:
            turned = a.lag + (a.speed - other) * middle
            pitches = (1.0, min(ANY_PITCH, key=lambda p: abs(p - other)))
            tried = compare(spectrogram, index, a.recording, turned, other, whole, pitches)
            if tried.strength > detail.strength:
                detail, lag, speed = tried, turned, other
    return _moved(queries, index, a, detail, lag, speed)


def _whole(a: Alignment, spectrogram: Spectrogram) -> tuple[int, int]:
    return spectrogram.stretch(float(a.steps[0]), float(a.steps[-1]))


def _moved(
    queries: np.ndarray,
    index: FingerprintIndex,
    a: Alignment,
    detail: Detail,
    lag: float,
    speed: float,
) -> Alignment:
    if detail.strength > SURE and (abs(detail.move) >= 1 or speed != a.speed):
        moved = lay(queries, index, a.recording, lag + detail.move, speed)
        if moved is not None:
            return dataclasses.replace(moved, detail=dataclasses.replace(detail, move=0.0))
    return dataclasses.replace(a, detail=detail)


def _look_again(
    queries: np.ndarray, others: np.ndarray, index: FingerprintIndex, spectrogram: Spectrogram
) -> list[Alignment]:
    # What other fingerprints find, as far as the signs are sure of it.
    heard = np.flatnonzero(sounding(others))
    if not len(heard):
        return []
    chosen = _evenly(heard, MAX_SEARCHED)
    hits = Hits.of(others, chosen, index, MAX_HITS)
    where, most = (hits.steps, hits.scores, hits.rows), MAX_HITS * MAX_SEARCHED
    places = propose(others, *where, index, spectrogram, most)
    found = (_changed(queries, index, a, spectrogram) for a in _laid(queries, index, places))
    return [a for a in found if a.detail.strength >= SURE]


def _look_everywhere(
    queries: np.ndarray, index: FingerprintIndex, spectrogram: Spectrogram
) -> list[Alignment]:
    # What signs alone find. A long query has so many fingerprints that one of them is good.
    places = scan(spectrogram, index, _SCANNED)
    found = (_detailed(queries, index, a, spectrogram) for a in _laid(queries, index, places))
    return [a for a in found if a.detail.is_certain]


def _laid(
    queries: np.ndarray, index: FingerprintIndex, places: Sequence[tuple[int, float]]
) -> Iterator[Alignment]:
    # At speed 1, those that the query meets.
    for recording, lag in places:
        alignment = lay(queries, index, recording, lag, 1.0)
        if alignment is not None:
            yield alignment


def _distinct(alignments: list[Alignment]) -> list[Alignment]:
    # Neighbouring lags of one recording lead to the same place: keep the best, most alike first.
    kept: list[Alignment] = []
    for a in sorted(alignments, key=lambda a: (not a.detail.is_certain, -a.likeness)):
        near = (b for b in kept if b.recording == a.recording)
        if all(abs(a.lag - b.lag) > STEPS for b in near):
            kept.append(a)
    return kept
