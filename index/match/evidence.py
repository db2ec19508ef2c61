"""From alignments to evidence: what speaks for a match, and what against it.

Similarity alone tells little: a drone resembles many drones. So an alignment is weighed against the
other sounds of the catalog that fit best, against places of the catalog chosen blindly (a cohort,
as in speaker verification), and against its own neighbourhood: a true one fits in one place only.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from index.match.align import Alignment
from index.match.candidates import STEPS, sounding
from index.search import FingerprintIndex

FEATURES = ("similarity", "lead", "field", "contrast", "focus", "evenness", "length")
"""What a score is made of: the attributes of :class:`Evidence`."""

# References this similar to each other where the query was found in them are one sound twice:
# another encoding, another mix.
_SAME_SOUND = 0.7
# Moments of the query at which that is looked at, and reference hops by which they may be apart.
_MOMENTS, _APART = 8, 2
# Candidates that others are compared with for that.
_MAX_LEADERS = 6
# Other sounds whose mean makes the field.
_FIELD = 5
# Stretches of a cohort, their reference windows, and the seed that they are drawn with.
_COHORT, _COHORT_ROWS, _COHORT_SEED = 96, 24, 0
# Where a catalog holds no other sound: so many deviations above the mean of the cohort.
_UNSEEN = 2.0
# Query steps at which a match should no longer fit.
_AWAY = np.array([-3, -2, 2, 3]) * STEPS


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
    contrast : float
        How many standard deviations it is above places of the catalog chosen blindly.
    focus : float
        How much it is above the same alignment moved by a second or more.
    evenness : float
        Share of the pairs that are above the best other sound at that moment.
    length : float
        Natural logarithm of the number of pairs.
    """

    similarity: float
    lead: float
    field: float
    contrast: float
    focus: float
    evenness: float
    length: float

    def features(self) -> dict[str, float]:
        """By name, for a calibration."""
        return dataclasses.asdict(self)


class Cohort:
    """Places of a catalog chosen blindly, always the same: what a query resembles by chance.

    Parameters
    ----------
    index : FingerprintIndex
    """

    _of_index: ClassVar[weakref.WeakKeyDictionary[FingerprintIndex, Cohort]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, index: FingerprintIndex) -> None:
        rng = np.random.default_rng(_COHORT_SEED)
        n_rows = np.asarray(index.n_rows)
        stretches = []
        for recording in rng.choice(len(n_rows), _COHORT, p=n_rows / n_rows.sum()).tolist():
            held = index.fingerprints(recording)
            n = min(len(held), _COHORT_ROWS)
            start = int(rng.integers(len(held) - n + 1))
            rows = held[start : start + n].astype(np.float32)
            # A short recording goes round and round.
            stretches.append(np.resize(rows, (_COHORT_ROWS, rows.shape[1])))
        self._stretches = np.stack(stretches)

    @classmethod
    def of(cls, index: FingerprintIndex) -> Cohort:
        """The cohort of an index, drawn once."""
        if index not in cls._of_index:
            cls._of_index[index] = cls(index)
        return cls._of_index[index]

    def likeness(self, queries: np.ndarray) -> tuple[float, float]:
        """Typical mean similarity of a query and a stretch, and its spread.

        Median and scaled median deviation: in a small catalog some of the cohort is the sound that
        the query is of.

        Parameters
        ----------
        queries : np.ndarray [shape=(n, dim)]
            At query steps.
        """
        heard = np.flatnonzero(sounding(queries))
        n = max(1, min(_COHORT_ROWS, len(heard) // STEPS))
        chosen = queries[heard[np.linspace(0, len(heard) - 1, n).astype(int)]]
        dim = chosen.shape[1]
        flat = self._stretches[:, :n].reshape(len(self._stretches), n * dim)
        means = flat @ chosen.reshape(n * dim) / n
        middle = float(np.median(means))
        return middle, 1.4826 * float(np.median(np.abs(means - middle))) + 1e-3


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
        self.groups = self._find_groups()

    def evidence(
        self, number: int, part: tuple[int, int], without: frozenset[int] = frozenset()
    ) -> Evidence:
        """What speaks for one of the alignments.

        Parameters
        ----------
        number : int
        part : (int, int)
            First and last pair of it that count.
        without : set of int
            Groups that are no rivals.
        """
        a = self._alignments[number]
        pairs = a.pairs[part[0] : part[1] + 1]
        first, last = int(a.steps[part[0]]), int(a.steps[part[1]])
        n, similarity = len(pairs), float(pairs.mean())
        middle, spread = Cohort.of(self._index).likeness(self._queries[first : last + 1])
        others, moments = self._others(number, first, last, without)
        unseen = middle + _UNSEEN * spread
        best = others[0] if len(others) else unseen
        field = np.full(_FIELD, min(unseen, best))
        field[: len(others)] = others[:_FIELD]
        beside = moments[(a.steps[part[0] : part[1] + 1] // STEPS)]
        even = np.where(np.isnan(beside), unseen, beside)
        return Evidence(
            similarity=similarity,
            lead=similarity - float(best),
            field=similarity - float(field.mean()),
            contrast=(similarity - middle) / spread,
            focus=similarity - self._away(a, part),
            evenness=float((pairs > even).mean()),
            length=math.log(n),
        )

    def _others(
        self, number: int, first: int, last: int, without: frozenset[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        # Similarities of other sounds over the same part, best of each recording, highest first;
        # and at every moment of the query that of the best of them.
        bins = slice(first // STEPS, last // STEPS + 1)
        part = self._table[:, bins]
        there = np.isfinite(part)
        n = there.sum(axis=1)
        means = np.where(there, part, 0.0).sum(axis=1) / np.maximum(n, 1)
        other = (self.groups != self.groups[number]) & (2 * n >= n[number])
        other &= ~np.isin(self.groups, list(without))
        # A worse place in the same recording is no rival.
        other &= (self._recordings != self._recordings[number]) | (means > means[number])
        rivals = np.flatnonzero(other)
        rivals = rivals[np.argsort(-means[rivals], kind="stable")]
        _, one_each = np.unique(self._recordings[rivals], return_index=True)
        rivals = rivals[np.sort(one_each)]
        moments = self._table[rivals[0]] if len(rivals) else np.full(self._table.shape[1], np.nan)
        return means[rivals], moments

    def _away(self, a: Alignment, part: tuple[int, int]) -> float:
        # Best mean similarity of the part some way off in the same recording.
        steps = a.steps[part[0] : part[1] + 1]
        held = self._index.fingerprints(a.recording)
        references = np.round(a.reference_step(steps) / STEPS).astype(int)
        moved = references + _AWAY[:, None] // STEPS
        known = (moved >= 0) & (moved < len(held))
        rows = held[np.clip(moved, 0, len(held) - 1)].astype(np.float32)
        pairs = np.einsum("mnd,nd->mn", rows, self._queries[steps])
        enough = 2 * known.sum(axis=1) >= len(steps)
        if not enough.any():
            return 0.0
        means = np.where(known, pairs, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return float(means[enough].max())

    def _find_groups(self) -> np.ndarray:
        groups = np.arange(len(self._alignments))
        leaders: list[int] = []
        for number, a in enumerate(self._alignments):
            same = next((x for x in leaders if self._same_sound(self._alignments[x], a)), None)
            if same is not None:
                groups[number] = same
            elif len(leaders) < _MAX_LEADERS:
                leaders.append(number)
        return groups

    def _same_sound(self, a: Alignment, b: Alignment) -> bool:
        # What the two recordings hold where the query was found in them.
        moments = np.linspace(a.first, a.last, _MOMENTS)
        ours = self._index.fingerprints(a.recording)
        theirs = self._index.fingerprints(b.recording)
        here = np.round(a.reference_step(moments) / STEPS).astype(int)
        there = np.round(b.reference_step(moments) / STEPS).astype(int)
        apart = np.arange(-_APART, _APART + 1)
        there = there[:, None] + apart
        known = ((here >= 0) & (here < len(ours)))[:, None] & (there >= 0) & (there < len(theirs))
        mine = ours[np.clip(here, 0, len(ours) - 1)].astype(np.float32)
        rows = theirs[np.clip(there, 0, len(theirs) - 1)].astype(np.float32)
        likeness = np.einsum("nd,nad->na", mine, rows)
        n = known.sum(axis=0)
        if not n.any():
            return False
        means = np.where(known, likeness, 0.0).sum(axis=0) / np.maximum(n, 1)
        return bool(means[2 * n >= n.max()].max() > _SAME_SOUND)


def _table(alignments: Sequence[Alignment], n_steps: int) -> np.ndarray:
    # Similarity of each alignment at each moment of a reference hop; NaN where there is none.
    table = np.full((len(alignments), n_steps // STEPS + 1), np.nan)
    for row, a in zip(table, alignments, strict=True):
        row[a.steps // STEPS] = a.pairs
    return table
