"""The score from which a detector reports an event: that of the best event F1.

One for all classes: few have so many sounds that a threshold of their own would hold elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from encoders.mixtures import Mixtures
from index.event_detector import EventDetector
from index.event_regions import find_regions, smooth

N_MIXTURES = 600

CANDIDATES = np.array([0.03, 0.05, 0.07, *np.arange(0.1, 0.95, 0.05)])
"""Thresholds that are tried."""

# An event is right if it begins within so many seconds of the truth, and ends within so many or
# this share of its length (Mesaros et al., "Metrics for polyphonic sound event detection", 2016).
_COLLAR_S, _SHARE = 0.2, 0.2
# Mixtures are longer than what is put in.
_ALWAYS = float("inf")

Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Tried:
    """What each threshold finds of every class.

    Attributes
    ----------
    counts : np.ndarray [shape=(n_thresholds, n_classes, 3)]
        Events that are right, found and true.
    """

    counts: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Event F1 [shape=(n_thresholds, n_classes)]."""
        hits, n_found, n_true = np.moveaxis(self.counts, 2, 0)
        f1: np.ndarray = 2 * hits / np.maximum(n_found + n_true, 1)
        return f1

    @property
    def n_true(self) -> np.ndarray:
        """Events that there are [shape=(n_classes,)]."""
        n_true: np.ndarray = self.counts[0, :, 2]
        return n_true

    def choose(self) -> int:
        """The number of the threshold of the best mean F1, of the classes that were there."""
        return int(self.f1[:, self.n_true > 0].mean(axis=1).argmax())


def try_thresholds(
    detector: EventDetector, mixtures: Mixtures, n: int | None = None, seed: int = 0
) -> Tried:
    """Put mixtures whose events are known to a detector.

    Parameters
    ----------
    detector : EventDetector
        Its own thresholds do not matter.
    mixtures : Mixtures
        Of sounds that it was not trained on, of some of its classes at least.
    n : int, optional
        How many are made. [default: N_MIXTURES]
    seed : int
    """
    counts = np.zeros((len(CANDIDATES), len(detector.names), 3))
    # Once, and not for each threshold.
    smoothed = dataclasses.replace(detector.options, median_s=0.0)
    columns = [detector.names.index(name) for name in mixtures.classes]
    for number in range(N_MIXTURES if n is None else n):
        frames, placed = mixtures.mix(np.random.default_rng([seed, number]))
        scores = detector.frame_scores(frames, every_class=True)
        scores = smooth(scores, detector.frame_s, detector.options.median_s)
        truth: list[list[Span]] = [[] for _ in detector.names]
        for first, end, sound in placed:
            kind = mixtures.kinds[sound]
            if kind >= 0:
                truth[columns[kind]].append((first * detector.frame_s, end * detector.frame_s))
        events = [merge_spans(spans) for spans in truth]
        for row, threshold in zip(counts, CANDIDATES, strict=True):
            levels = np.full(len(detector.names), threshold)
            found = find_regions(scores, levels, detector.frame_s, smoothed)
            for line, true, regions in zip(row, events, found, strict=True):
                spans = [detector.span(r.first, r.last, _ALWAYS) for r in regions]
                line += count_hits(true, spans), len(spans), len(true)
    return Tried(counts)


def merge_spans(spans: Sequence[Span]) -> list[Span]:
    """Spans in time order, those that touch as one."""
    merged: list[Span] = []
    for onset, offset in sorted(spans):
        if merged and onset <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(offset, merged[-1][1])
        else:
            merged.append((onset, offset))
    return merged


def count_hits(truth: Sequence[Span], found: Sequence[Span]) -> int:
    """How many of the true events were found, each once and by one that is right in time."""
    rest, hits = list(found), 0
    for onset, offset in truth:
        late = max(_COLLAR_S, _SHARE * (offset - onset))
        near = [s for s in rest if abs(s[0] - onset) <= _COLLAR_S and abs(s[1] - offset) <= late]
        if near:
            rest.remove(near[0])
            hits += 1
    return hits
