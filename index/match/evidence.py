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

from index.match.align import Alignment
from index.match.candidates import STEPS
from index.search import FingerprintIndex

FEATURES = ("field", "focus", "length")
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
# How much a recording that has nothing to do with the query resembles it; in a small catalog there
# may be too few others to show that.
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
        How much it is above the mean of the best five other sounds.
    focus : float
        How much it is above the same alignment moved by a second or more.
    length : float
        Natural logarithm of the number of pairs.
    share : float
        Natural logarithm of the share that they are of all pairs: 0 for the whole. The shorter a
        part, the more of them there are in which chance could have found something.
    """

    similarity: float
    lead: float
    field: float
    focus: float
    length: float
    share: float = 0.0

    def features(self) -> dict[str, float]:
        """By name, for a calibration; what is sure enough says no more when it is surer."""
        return dataclasses.asdict(self) | {
            "field": min(self.field, _MAX_FIELD),
            "focus": min(max(self.focus, 0.0), _MAX_FOCUS),
        }


class Weighing:
    """All alignments of a query beside each other.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
    alignments : sequence of Alignment
        Most similar first.
    index : FingerprintIndex

    Attributes
    ----------
    groups : np.ndarray [shape=(n_alignments,)]
        Number of the first alignment that is of the same sound; its own if there is none.
    """

    def __init__(
        self, queries: np.ndarray, alignments: Sequence[Alignment], index: FingerprintIndex
    ) -> None:
        self._queries = queries
        self._alignments = alignments
        self._index = index
        self._recordings = np.array([a.recording for a in alignments])
        self._table = _table(alignments, len(queries))
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
        return [self._evidence(number, part) for part in parts]

    def _evidence(self, number: int, part: tuple[int, int]) -> Evidence:
        a = self._alignments[number]
        pairs = a.pairs[part[0] : part[1] + 1]
        similarity = float(pairs.mean())
        others = self._others(number, int(a.steps[part[0]]), int(a.steps[part[1]]))
        best = float(others[0]) if len(others) else _TYPICAL_OTHER
        field = np.full(_FIELD, min(_TYPICAL_OTHER, best))
        field[: len(others)] = others[:_FIELD]
        return Evidence(
            similarity=similarity,
            lead=similarity - best,
            field=similarity - float(field.mean()),
            focus=similarity - self._away(a, part),
            length=math.log(len(pairs)),
            share=math.log(len(pairs) / a.n_pairs),
        )

    def _others(self, number: int, first: int, last: int) -> np.ndarray:
        # Similarities of other sounds over the same part of the query, best of each recording,
        # highest first.
        part = self._table[:, first // STEPS : last // STEPS + 1]
        n = np.isfinite(part).sum(axis=1)
        means = np.nansum(part, axis=1) / np.maximum(n, 1)
        other = (self.groups != self.groups[number]) & (2 * n >= n[number])
        # A worse place in the same recording is no rival.
        other &= (self._recordings != self._recordings[number]) | (means > means[number])
        rivals = np.flatnonzero(other)
        rivals = rivals[np.argsort(-means[rivals], kind="stable")]
        _, one_each = np.unique(self._recordings[rivals], return_index=True)
        return means[rivals[np.sort(one_each)]]

    def _away(self, a: Alignment, part: tuple[int, int]) -> float:
        # Best mean similarity of the part some way off in the same recording. Where that is silent
        # or past its end there is nothing to compare, and nothing that speaks for the alignment.
        steps = a.steps[part[0] : part[1] + 1]
        held = self._index.fingerprints(a.recording)
        moved = a.windows(steps) + _AWAY[:, None]
        rows = held[np.clip(moved, 0, len(held) - 1)].astype(np.float32)
        known = (moved >= 0) & (moved < len(held)) & rows.any(axis=2)
        pairs = np.einsum("mnd,nd->mn", rows, self._queries[steps])
        enough = 2 * known.sum(axis=1) >= len(steps)
        if not enough.any():
            return float(a.pairs[part[0] : part[1] + 1].mean())
        means = np.where(known, pairs, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return float(means[enough].max())

    def _find_groups(self) -> np.ndarray:
        # The first that is the same sound, at the moments that the first of them agrees with.
        likeness, known = self._likeness()
        moments = self._moments
        groups = np.arange(len(self._alignments))
        for number, leader in enumerate(self._alignments):
            if groups[number] != number:
                continue
            inside = (moments >= leader.first - STEPS) & (moments <= leader.last + STEPS)
            n = known[number, :, inside].sum(axis=0)
            means = likeness[number, :, inside].sum(axis=0) / np.maximum(n, 1)
            # At several hops apart; each must be known for most of the moments.
            enough = (n > 0) & (2 * n >= n.max(axis=1, keepdims=True))
            same = np.where(enough, means, -1.0).max(axis=1) > _SAME_SOUND
            groups[same & (groups == np.arange(len(groups))) & (groups > number)] = number
        return groups

    def _likeness(self) -> tuple[np.ndarray, np.ndarray]:
        # Of what each recording holds at some moments and each holds there, give or take some
        # hops [shape=(n_alignments, n_alignments, n_moments, n_hops)]; 0 where one holds nothing.
        held = [self._held(a) for a in self._alignments]
        rows = np.stack([rows for rows, _ in held])
        there = np.stack([there for _, there in held])
        mine, known = rows[:, :, _APART], there[:, :, _APART]
        likeness = np.einsum("imd,jmad->ijma", mine, rows, optimize=True)
        return likeness, known[:, None, :, None] & there[None]

    def _held(self, a: Alignment) -> tuple[np.ndarray, np.ndarray]:
        held = self._index.fingerprints(a.recording)
        windows = a.windows(self._moments)
        windows = windows[:, None] + np.arange(-_APART, _APART + 1)
        known = (windows >= 0) & (windows < len(held))
        rows = held[np.clip(windows, 0, len(held) - 1)].astype(np.float32)
        rows[~known] = 0.0
        return rows, known


def _table(alignments: Sequence[Alignment], n_steps: int) -> np.ndarray:
    # Similarity of each alignment at each moment of a reference hop; NaN where there is none.
    table = np.full((len(alignments), n_steps // STEPS + 1), np.nan)
    for row, a in zip(table, alignments, strict=True):
        row[a.steps // STEPS] = a.pairs
    return table
