"""Rescoring: a query is laid against all its candidates at once, at every lag and speed near each.

An alignment is a walk through the table of all inner products of query and reference windows. Which
cells it meets depends on where the candidate lies between the query's steps, and on nothing else of
it: candidates share the walks, and a walk is a matter of looking cells up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from index.half import widen
from index.match.align import Alignment, describe, lay, vertex
from index.match.candidates import STEPS, meets, sounding
from index.search import FingerprintIndex

_SPEEDS = np.array([1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.96, 1.04, 0.95, 1.05, 0.94, 1.06])
# Another speed must explain the query better than this much over speed 1.
_SPEED_GAIN = 0.03
# Speeds differ by less than a query step in shorter queries.
_MIN_STEPS_FOR_SPEED = 3 * 2 * STEPS
# Lags on both sides of a candidate's that are tried.
_NEAR = np.arange(-2 * STEPS, 2 * STEPS + 1)
# Reference windows that speed and lag are fitted on, evenly spread over a long match.
_MAX_PROFILED = 512
# Cells that are in memory at a time.
_MAX_CELLS = 1 << 22


def rescore(
    queries: np.ndarray, index: FingerprintIndex, candidates: Sequence[tuple[int, int]]
) -> list[Alignment]:
    """Lay a whole query against each candidate, at the best lag and speed near it.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
        As given to :func:`index.match.find_alignments`; not all of it silent.
    index : FingerprintIndex
    candidates : sequence of (recording, lag)

    Returns
    -------
    alignments : list of Alignment
        In the order of the candidates, without those that too little of the query meets.
    """
    grid = _Grid(queries)
    at_a_time = max(1, _MAX_CELLS // grid.n_cells)
    return [
        alignment
        for begin in range(0, len(candidates), at_a_time)
        for alignment in grid.lay(index, np.array(candidates[begin : begin + at_a_time]))
        if alignment is not None
    ]


class _Grid:
    """The lags and speeds at which a query is tried near a candidate.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]

    Attributes
    ----------
    n_cells : int
        Numbers that a candidate takes.
    """

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = queries
        self._heard = sounding(queries)
        long_enough = len(queries) >= _MIN_STEPS_FOR_SPEED
        self._speeds = _SPEEDS if long_enough else _SPEEDS[:1]
        # A whole match at the slowest and the fastest, and not much around it.
        self._reach = 2 * STEPS + (len(queries) // 10 if long_enough else 0)
        span = (len(queries) + 2 * self._reach) // STEPS + 2
        places = np.linspace(0, span - 1, min(span, _MAX_PROFILED)).round()
        self._places = np.unique(places).astype(int)
        self._spacing = span / len(self._places)
        self.n_cells = len(places) * max(len(queries) + 1, len(self._speeds) * len(_NEAR))

    def lay(self, index: FingerprintIndex, candidates: np.ndarray) -> list[Alignment]:
        """The best alignment of each of some candidates [shape=(n, 2)]."""
        recordings, lags = candidates.T
        references = (lags[:, None] - self._reach) // STEPS + self._places
        n_rows = index.n_rows[recordings]
        known = (references >= 0) & (references < n_rows[:, None])
        rows = np.clip(references, 0, n_rows[:, None] - 1) + index.first_rows[recordings][:, None]
        held = widen(index.vectors[rows])
        held[~known] = 0.0
        # The last line is for walks that are outside of the query.
        table = np.zeros((len(candidates), len(self._queries) + 1, len(self._places)), np.float32)
        np.matmul(self._queries, held.transpose(0, 2, 1), out=table[:, :-1])
        found: dict[int, Alignment] = {}
        between = (lags - self._reach) % STEPS
        for apart in np.unique(between).tolist():
            walks = self._walks(apart)
            mine = np.flatnonzero(between == apart)
            cells = walks * len(self._places) + np.arange(len(self._places))
            pairs = table[mine].reshape(len(mine), -1).take(cells, axis=1)
            profiles = self._profiles(pairs, walks, known[mine], n_rows[mine])
            for i, number in enumerate(mine.tolist()):
                best = self._best(
                    index, candidates[number], profiles[i], pairs[i], walks, known[number]
                )
                if best is not None:
                    found[number] = best
        return [found[number] for number in sorted(found)]

    def _walks(self, apart: int) -> np.ndarray:
        # The query window that every reference window meets [shape=(n_speeds, n_lags, n_places)];
        # one past the last where it meets none, or silence.
        times = STEPS * self._places - self._reach - apart
        steps = np.round((times - _NEAR[:, None]) / self._speeds[:, None, None]).astype(int)
        return np.where(meets(steps, self._heard), steps, len(self._queries))

    def _profiles(
        self, pairs: np.ndarray, walks: np.ndarray, known: np.ndarray, n_rows: np.ndarray
    ) -> np.ndarray:
        # Mean similarity at every speed and lag [shape=(n, n_speeds, n_lags)]; -inf where less than
        # about half of what could meet does, of which nothing can be concluded.
        inside = (walks < len(self._queries)).astype(np.float32)
        n_met = np.tensordot(known.astype(np.float32), inside, axes=(1, 2))
        possible = np.minimum(np.count_nonzero(self._heard), STEPS * n_rows)[:, None, None]
        enough = (n_met > 0) & (2 * STEPS * self._spacing * n_met >= possible - STEPS)
        return np.where(enough, pairs.sum(axis=3) / np.maximum(n_met, 1), -np.inf)

    def _best(
        self,
        index: FingerprintIndex,
        candidate: np.ndarray,
        profiles: np.ndarray,
        pairs: np.ndarray,
        walks: np.ndarray,
        known: np.ndarray,
    ) -> Alignment | None:
        # Of one candidate; None where too little meets.
        best = profiles.max(axis=1)
        chosen = int(np.argmax(best - _SPEED_GAIN * (self._speeds != 1.0)))
        if not np.isfinite(best[chosen]):
            return None
        peak = int(np.argmax(profiles[chosen]))
        recording, lag = int(candidate[0]), int(candidate[1] + _NEAR[peak])
        speed = float(self._speeds[chosen])
        between_steps = lag + vertex(profiles[chosen], peak)
        if self._spacing > 1:
            whole = lay(self._queries, index, recording, lag, speed)
            return None if whole is None else dataclasses.replace(whole, lag=between_steps)
        met = known & (walks[chosen, peak] < len(self._queries))
        steps, products = walks[chosen, peak, met], pairs[chosen, peak, met]
        heard = np.flatnonzero(self._heard)
        return describe(recording, between_steps, speed, steps, products, heard)
