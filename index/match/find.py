"""From a query to its alignments: look it up, weigh the candidates, lay it against the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from index.match.align import Alignment, lay
from index.match.candidates import STEPS, propose, sounding
from index.match.detail import ANY_PITCH, ENOUGH, SAME_PITCH, SURE, Spectrogram, compare
from index.match.rescore import rescore
from index.search import FingerprintIndex

N_HITS, MAX_HITS, ALL_HITS = 20, 50, 1250
"""Neighbours looked up for each query window; up to the second number of them where the query has
few windows, so that there are about as many as the third in all."""

MIN_SEARCHED, MAX_SEARCHED = 40, 64
"""Query windows that are looked up, evenly spread: all of a short query, every other one of a
longer, up to the greater number. All are used to rescore."""

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
        are sure to agree.

    Returns
    -------
    alignments : list of Alignment
        Most alike first.
    """
    if index.info.n_rows == 0 or not sounding(queries).any():
        return []
    if hits is None:
        hits = look_up(queries, index)
    found = propose(queries, hits.steps, hits.scores, hits.rows, index, spectrogram)
    alignments = rescore(queries, index, [*also, *found])
    if spectrogram is not None:
        alignments = _detail(queries, index, alignments, spectrogram)
        unsure = all(a.detail.strength < ENOUGH for a in alignments)
        if second is not None and unsure:
            alignments += _look_again(queries, second(), index, spectrogram)
    return _distinct(sorted(alignments, key=lambda a: -a.likeness))


def look_up(queries: np.ndarray, index: FingerprintIndex) -> Hits:
    """Look up windows of a query, evenly spread."""
    heard = np.flatnonzero(sounding(queries))
    n = min(len(heard), max(MIN_SEARCHED, min(MAX_SEARCHED, len(heard) // 2)))
    return Hits.of(queries, heard[np.linspace(0, len(heard) - 1, n).round().astype(int)], index)


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
    order = np.argsort(rank, kind="stable").tolist()
    for place, number in enumerate(order[:n]):
        pitches = ANY_PITCH if 2 * place < n else SAME_PITCH
        alignments[number] = _detailed(queries, index, alignments[number], spectrogram, pitches)
    return alignments


def _detailed(
    queries: np.ndarray,
    index: FingerprintIndex,
    alignment: Alignment,
    spectrogram: Spectrogram,
    pitches: Sequence[float],
) -> Alignment:
    # With its detail, and at the lag and speed that it tells where it is sure.
    a = alignment
    whole = spectrogram.stretch(float(a.steps[0]), float(a.steps[-1]))
    detail = compare(spectrogram, index, a.recording, a.lag, a.speed, whole, pitches)
    lag, speed = a.lag, a.speed
    if a.similarity > _ALIKE and detail.agreement < _POOR and len(spectrogram.heard) >= _LONG:
        # Alike and yet not the same: it may be faster or slower. The middle stays where it is.
        middle = float(a.steps[0] + a.steps[-1]) / 2
        for other in _SPEEDS:
            turned = a.lag + (a.speed - other) * middle
            pitches = (1.0, min(ANY_PITCH, key=lambda p: abs(p - other)))
            tried = compare(spectrogram, index, a.recording, turned, other, whole, pitches)
            if tried.strength > detail.strength:
                detail, lag, speed = tried, turned, other
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
    chosen = heard[np.linspace(0, len(heard) - 1, min(len(heard), MAX_SEARCHED)).astype(int)]
    hits, found = Hits.of(others, chosen, index, MAX_HITS), []
    most = MAX_HITS * MAX_SEARCHED
    for recording, lag in propose(
        others, hits.steps, hits.scores, hits.rows, index, spectrogram, most
    ):
        alignment = lay(queries, index, recording, lag, 1.0)
        if alignment is not None:
            alignment = _detailed(queries, index, alignment, spectrogram, ANY_PITCH)
            if alignment.detail.strength >= SURE:
                found.append(alignment)
    return found


def _distinct(alignments: list[Alignment]) -> list[Alignment]:
    # Neighbouring lags of one recording lead to the same place: keep the best.
    kept: list[Alignment] = []
    for a in alignments:
        near = (b for b in kept if b.recording == a.recording)
        if all(abs(a.lag - b.lag) > STEPS for b in near):
            kept.append(a)
    return kept
