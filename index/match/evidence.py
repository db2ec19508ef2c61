"""From alignments to evidence: what speaks for a match, and what against it.

Similarity alone tells little: a drone resembles many drones. So an alignment is weighed against the
other sounds of the catalog that fit best (the cohort of speaker verification), and against its own
neighbourhood: a true one fits in one place only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from index.half import widen
from index.match.align import Alignment
from index.match.candidates import STEPS
from index.match.detail import Spectrogram, compare
from index.search import FingerprintIndex

FEATURES = ("similarity", "field", "focus", "length", "detail")
"""Evidence that a calibration is fitted to. More of it does not tell more (docs/matching.md)."""

# More than that says no more.
_MAX_FIELD, _MAX_FOCUS = 0.3, 0.2
# References this similar to each other where the query was found in them are one sound twice:
# another encoding, another mix.
_SAME_SOUND = 0.7
# Moments of the query at which that is looked at, and reference hops by which they may be apart.
_MOMENTS, _APART = 16, 2
# Other sounds whose mean makes the field.
_FIELD = 5
# How much the best others resemble a query at least in a catalog of many hours: the less, the more
# pairs there are (the lowest twentieth of clips of 1 to 10 s in one of 31 h). A small catalog may
# hold too few others to show that.
_LEAST_FIELD, _LEAST_FIELD_OF_ONE = 0.2, 0.56
# What another sound is taken to resemble it where there are fewer than five.
_TYPICAL_OTHER = 0.4
# A part that is shorter than this share of the whole, and has so many pairs at least, is weighed
# on its own as well.
_WHOLE = 0.85
_LEAST_PART = 4
# Reference hops at which a match should no longer fit.
_AWAY = np.array([-3, -2, 2, 3])


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known about an alignment, or about a part of it.

    Attributes
    ----------
    similarity : float
        Mean inner product of the pairs.
    lead : float
        How much that is above the best other sound.
    field : float
        How much it is above the mean of the best five other sounds, or above what they would be in
        a large catalog, if this one has none like it.
    focus : float
        How much it is above the same alignment moved by a second or more.
    length : float
        Natural logarithm of the number of pairs.
    share : float
        Natural logarithm of the share that they are of all pairs: 0 for the whole. The shorter a
        part, the more of them there are in which chance could have found something.
    detail : float
        How strongly the signs agree; 0 where they are not known.
    """

    similarity: float
    lead: float
    field: float
    focus: float
    length: float
    share: float = 0.0
    detail: float = 0.0

    def features(self) -> dict[str, float]:
        """By name, for a calibration; what is sure enough says no more when it is surer."""
        return vars(self) | {
            "field": min(self.field, _MAX_FIELD),
            "focus": min(max(self.focus, 0.0), _MAX_FOCUS),
        }


class Weighing:
    """All alignments of a query beside each other.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
    alignments : sequence of Alignment
        Most alike first.
    index : FingerprintIndex
    spectrogram : Spectrogram, optional

    Attributes
    ----------
    groups : np.ndarray [shape=(n_alignments,)]
        Number of the first alignment that is of the same sound; its own if there is none.
    """

    def __init__(
        self,
        queries: np.ndarray,
        alignments: Sequence[Alignment],
        index: FingerprintIndex,
        spectrogram: Spectrogram | None = None,
    ) -> None:
        self._spectrogram = spectrogram
        self._queries = queries
        self._alignments = alignments
        self._index = index
        self._recordings = np.array([a.recording for a in alignments])
        self._table, self._met = _table(alignments, len(queries))
        self._moments = np.linspace(0, len(queries) - 1, min(_MOMENTS, len(queries)))
        self.groups = self._find_groups()

    def evidence(self, number: int) -> list[Evidence]:
        """What speaks for one of the alignments: for the whole, and for the part that agrees.

        Parameters
        ----------
        number : int
        """
        a = self._alignments[number]
        first, last = a.part
        parts = [(0, a.n_pairs - 1)]
        if _LEAST_PART <= last - first + 1 < _WHOLE * a.n_pairs:
            parts.append((first, last))
        away = self._away(a)
        return [self._evidence(number, part, *away) for part in parts]

    def _evidence(
        self, number: int, part: tuple[int, int], away: np.ndarray, known: np.ndarray
    ) -> Evidence:
        a, stretch = self._alignments[number], slice(part[0], part[1] + 1)
        pairs = a.pairs[stretch]
        similarity = float(pairs.mean())
        others = self._others(number, int(a.steps[part[0]]), int(a.steps[part[1]]))
        expected = _LEAST_FIELD + (_LEAST_FIELD_OF_ONE - _LEAST_FIELD) / math.sqrt(len(pairs))
        best = float(others[0]) if len(others) else _TYPICAL_OTHER
        field = np.full(_FIELD, min(_TYPICAL_OTHER, best))
        field[: len(others)] = others[:_FIELD]
        return Evidence(
            similarity=similarity,
            lead=similarity - best,
            field=similarity - max(float(field.mean()), expected),
            focus=similarity - _best_mean(away[:, stretch], known[:, stretch], similarity),
            length=math.log(len(pairs)),
            share=math.log(len(pairs) / a.n_pairs),
            detail=self._detail(a, part),
        )

    def _detail(self, a: Alignment, part: tuple[int, int]) -> float:
        if self._spectrogram is None or part == (0, a.n_pairs - 1):
            return a.detail.evidence
        stretch = self._spectrogram.stretch(float(a.steps[part[0]]), float(a.steps[part[1]]))
        where = a.recording, a.lag, a.speed
        pitches = (a.detail.pitch,)
        return compare(self._spectrogram, self._index, *where, stretch, pitches).evidence

    def _others(self, number: int, first: int, last: int) -> np.ndarray:
        # Similarities of other sounds over the same part of the query, best of each recording,
        # highest first.
        part = slice(first // STEPS, last // STEPS + 1)
        n = np.count_nonzero(self._met[:, part], axis=1)
        means = self._table[:, part].sum(axis=1) / np.maximum(n, 1)
        other = (self.groups != self.groups[number]) & (2 * n >= n[number])
        # A worse place in the same recording is no rival.
        other &= (self._recordings != self._recordings[number]) | (means > means[number])
        rivals = np.flatnonzero(other)
        rivals = rivals[np.argsort(-means[rivals], kind="stable")]
        _, one_each = np.unique(self._recordings[rivals], return_index=True)
        return means[rivals[np.sort(one_each)]]

    def _away(self, a: Alignment) -> tuple[np.ndarray, np.ndarray]:
        # Inner products of its pairs some way off in the same recording, and whether there is
        # something to compare with: it is not silent there, nor past its end.
        n_rows = self._index.n_rows[a.recording]
        moved = a.windows(a.steps) + _AWAY[:, None]
        rows = self._index.first_rows[a.recording] + np.clip(moved, 0, n_rows - 1)
        held = widen(self._index.vectors[rows])
        known = (moved >= 0) & (moved < n_rows) & held.any(axis=2)
        products = np.einsum("mnd,nd->mn", held, self._queries[a.steps])
        products[~known] = 0.0
        return products, known

    def _find_groups(self) -> np.ndarray:
        # The first that is the same sound, at the moments that the first of them agrees with.
        first = np.array([[a.first] for a in self._alignments])
        last = np.array([[a.last] for a in self._alignments])
        agrees = (self._moments >= first - STEPS) & (self._moments <= last + STEPS)
        held, there = self._held()
        mine = held[:, :, _APART].transpose(1, 0, 2)
        known = (agrees & there[:, :, _APART]).astype(np.float32)
        # Of what each recording holds at a moment, and each holds there, give or take some hops.
        theirs = held.transpose(1, 3, 0, 2).reshape(len(mine), held.shape[3], -1)
        likeness = np.matmul(mine, theirs).reshape(len(mine), len(mine[0]), *there[:, 0].shape)
        sums = np.einsum("im,mija->ija", known, likeness)
        n = np.tensordot(known, there.astype(np.float32), axes=(1, 1))
        # At several hops apart; each must be known for most of the moments.
        enough = (n > 0) & (2 * n >= n.max(axis=2, keepdims=True))
        means = np.where(enough, sums / np.maximum(n, 1), -1.0)
        same = means.max(axis=2) > _SAME_SOUND
        groups = np.arange(len(self._alignments))
        alone = groups.copy()
        for number in np.flatnonzero(np.triu(same, 1).any(axis=1)).tolist():
            if groups[number] == number:
                groups[same[number] & (groups == alone) & (groups > number)] = number
        return groups

    def _held(self) -> tuple[np.ndarray, np.ndarray]:
        # What each recording holds at every moment, give or take some hops
        # [shape=(n_alignments, n_moments, n_hops, dim)], and whether it is that long.
        windows = np.stack([a.windows(self._moments) for a in self._alignments])
        windows = windows[:, :, None] + np.arange(-_APART, _APART + 1)
        n_rows = self._index.n_rows[self._recordings][:, None, None]
        there = (windows >= 0) & (windows < n_rows)
        first = self._index.first_rows[self._recordings][:, None, None]
        held = widen(self._index.vectors[first + np.clip(windows, 0, n_rows - 1)])
        held[~there] = 0.0
        return held, there


def _table(alignments: Sequence[Alignment], n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    # Similarity of each alignment at each moment of a reference hop, and whether there is one.
    table = np.zeros((len(alignments), n_steps // STEPS + 1))
    met = np.zeros(table.shape, bool)
    for number, a in enumerate(alignments):
        table[number, a.steps // STEPS] = a.pairs
        met[number, a.steps // STEPS] = True
    return table, met


def _best_mean(products: np.ndarray, known: np.ndarray, otherwise: float) -> float:
    # Of the lines of which at least half is known.
    n = np.count_nonzero(known, axis=1)
    enough = 2 * n >= known.shape[1]
    if not enough.any():
        return otherwise
    return float((products.sum(axis=1)[enough] / np.maximum(n[enough], 1)).max())
