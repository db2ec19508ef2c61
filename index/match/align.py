"""Laying a query against recordings: where, how fast, and how alike the two are, pair by pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from index.match.candidates import STEPS, meets, propose, sounding
from index.search import FingerprintIndex

N_HITS = 20
"""Neighbours looked up for each query window."""

MAX_SEARCHED = 64
"""Query windows that are looked up, evenly spread; all are used to rescore."""

_SPEEDS = np.array([1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.96, 1.04, 0.95, 1.05, 0.94, 1.06])
# Another speed must explain the query better than this much over speed 1.
_SPEED_GAIN = 0.03
# Speeds differ by less than a query step in shorter queries.
_MIN_STEPS_FOR_SPEED = 3 * 2 * STEPS
# Reference windows that speed and lag are fitted on, evenly spread over a long match.
_MAX_PROFILED = 512
# Windows of a stretch that agree less than this are not part of it.
_MIN_SIMILARITY = 0.3
# A slope is fitted to the lags of so many stretches of a match, of so many pairs at least.
_MAX_STRETCHES, _MIN_PAIRS_PER_STRETCH = 12, 5
# Query steps on both sides at which a stretch is tried.
_TRIED = STEPS + 2
# A slope that moves the ends of a match by less than so many query steps is none.
_LEAST_DRIFT = 0.5


@dataclasses.dataclass(frozen=True)
class Alignment:
    """A query laid against a recording.

    Attributes
    ----------
    recording : int
        Its number in the index.
    lag : float
        Reference minus query time at the start of the query, in query steps.
    speed : float
        Seconds of the reference that pass in a second of the query.
    similarity : float
        Mean inner product of all pairs compared.
    first, last : int
        First and last query window of the stretch that agrees.
    n_pairs : int
        Window pairs compared.
    part : (int, int)
        First and last pair of the stretch that agrees.
    steps, pairs : np.ndarray [shape=(n_pairs,)]
        Query window of each pair, and its inner product.
    """

    recording: int
    lag: float
    speed: float
    similarity: float
    first: int
    last: int
    n_pairs: int
    part: tuple[int, int]
    steps: np.ndarray = dataclasses.field(compare=False, repr=False)
    pairs: np.ndarray = dataclasses.field(compare=False, repr=False)

    def reference_step(self, query_step: float) -> float:
        """Place in the reference, in query steps, of a place in the query."""
        return self.lag + self.speed * query_step

    def windows(self, query_steps: np.ndarray) -> np.ndarray:
        """Reference windows that are nearest to places in the query [dtype=int]."""
        return np.round((self.lag + self.speed * query_steps) / STEPS).astype(int)


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
    def of(cls, queries: np.ndarray, steps: np.ndarray, index: FingerprintIndex) -> Hits:
        """Look windows up."""
        return cls(steps, *index.search(queries[steps], N_HITS))

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

    Returns
    -------
    alignments : list of Alignment
        Most similar first.
    """
    if index.info.n_rows == 0 or not sounding(queries).any():
        return []
    if hits is None:
        hits = look_up(queries, index)
    candidates = [*also, *propose(queries, hits.steps, hits.scores, hits.rows, index)]
    alignments = [rescore(queries, index, recording, lag) for recording, lag in candidates]
    found = [a for a in alignments if a is not None]
    return _distinct(sorted(found, key=lambda a: -a.similarity))


def look_up(queries: np.ndarray, index: FingerprintIndex) -> Hits:
    """Look up windows of a query, evenly spread."""
    heard = np.flatnonzero(sounding(queries))
    n = min(MAX_SEARCHED, len(heard))
    return Hits.of(queries, heard[np.linspace(0, len(heard) - 1, n).round().astype(int)], index)


def rescore(
    queries: np.ndarray, index: FingerprintIndex, recording: int, lag: int
) -> Alignment | None:
    """Lay the whole query against a recording near ``lag``; None where they do not meet."""
    vectors = index.fingerprints(recording)
    long_enough = len(queries) >= _MIN_STEPS_FOR_SPEED
    speeds = _SPEEDS if long_enough else _SPEEDS[:1]
    reach = 2 * STEPS + (len(queries) // 10 if long_enough else 0)
    first = max(0, (lag - reach) // STEPS)
    last = min(len(vectors), (lag + len(queries) + reach) // STEPS + 1)
    if first >= last:
        return None
    lags = np.arange(lag - 2 * STEPS, lag + 2 * STEPS + 1)
    profiles = _profiles(queries, vectors, first, last, lags, speeds)
    best = profiles.max(axis=1)
    chosen = int(np.argmax(best - _SPEED_GAIN * (speeds != 1.0)))
    if not np.isfinite(best[chosen]):
        return None
    peak = int(np.argmax(profiles[chosen]))
    lag_at_peak = float(lags[peak]) + _vertex(profiles[chosen], peak)
    return _walk(queries, vectors, recording, float(lags[peak]), float(speeds[chosen]), lag_at_peak)


def lay(
    queries: np.ndarray, index: FingerprintIndex, recording: int, lag: float, speed: float
) -> Alignment | None:
    """Lay a query against a recording just so; None where they do not meet."""
    return _walk(queries, index.fingerprints(recording), recording, lag, speed, lag)


def _walk(
    queries: np.ndarray,
    vectors: np.ndarray,
    recording: int,
    walked: float,
    speed: float,
    lag: float,
) -> Alignment | None:
    # Pair by pair along the lag ``walked``; ``lag`` is the better one between the steps.
    low, high = sorted((walked, walked + speed * (len(queries) - 1)))
    references = np.arange(max(0, int(low // STEPS)), min(len(vectors), int(high // STEPS) + 2))
    steps = np.round((STEPS * references - walked) / speed).astype(int)
    heard = sounding(queries)
    met = meets(steps, heard)
    if not met.any():
        return None
    steps, references = steps[met], references[met]
    pairs = np.einsum("nd,nd->n", queries[steps], vectors[references], dtype=np.float32)
    start, end = _stretch(pairs)
    whole = np.flatnonzero(heard)
    return Alignment(
        recording=recording,
        lag=lag,
        speed=speed,
        similarity=float(pairs.mean()),
        # Up to a reference hop lies before the first pair and after the last.
        first=max(int(whole[0]), int(steps[start]) - (STEPS - 1) * (start == 0)),
        last=min(int(whole[-1]), int(steps[end - 1]) + (STEPS - 1) * (end == len(pairs))),
        n_pairs=len(pairs),
        part=(start, end - 1),
        steps=steps,
        pairs=pairs,
    )


def refine(queries: np.ndarray, index: FingerprintIndex, alignment: Alignment) -> Alignment:
    """Fit lag and speed below the grid that was searched.

    Stretches of the match are moved to and fro on their own; a straight line through the best
    places of all of them is the better alignment (weighted least squares).

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
        As given to :func:`find_alignments`.
    """
    first, last = alignment.part
    n_stretches = min(_MAX_STRETCHES, (last - first + 1) // _MIN_PAIRS_PER_STRETCH)
    if n_stretches < 3:
        return alignment
    steps = alignment.steps[first : last + 1]
    # The grid that the pairs were met on, not the lag between its steps.
    references = alignment.windows(steps)
    vectors = index.fingerprints(alignment.recording)
    known = (references >= 0) & (references < len(vectors))
    references = references[known]
    expected = (STEPS * references - alignment.lag) / alignment.speed
    tried = np.arange(-_TRIED, _TRIED + 1)
    near = np.round(expected).astype(int)[:, None] + tried
    met = meets(near, sounding(queries))
    held = vectors[references].astype(np.float32)
    table = np.einsum("ntd,nd->nt", queries[np.clip(near, 0, len(queries) - 1)], held)
    table[~met] = np.nan
    rounding = np.round(expected) - expected
    places, moves, weights = [], [], []
    for stretch in np.array_split(np.arange(len(references)), n_stretches):
        # A stretch near an end of the query must be complete at every move to say anything.
        whole = met[stretch].all(axis=1)
        if whole.sum() < 2:
            continue
        profile = table[stretch[whole]].mean(axis=0)
        peak = int(np.argmax(profile))
        if 0 < peak < len(profile) - 1:
            places.append(float(expected[stretch[whole]].mean()))
            shift = float(rounding[stretch[whole]].mean())
            moves.append(tried[peak] + _vertex(profile, peak) + shift)
            weights.append(float(profile[peak] - np.median(profile)))
    if len(places) < 3:
        return alignment
    slope, move = _straight_line(np.array(places), np.array(moves), np.array(weights))
    speed = alignment.speed / (1 + slope)
    if abs(speed - 1) * (alignment.last - alignment.first) < _LEAST_DRIFT:
        middle = float(np.average(places, weights=weights))
        heard_at = middle + move + slope * middle
        return dataclasses.replace(
            alignment, lag=alignment.reference_step(middle) - heard_at, speed=1.0
        )
    return dataclasses.replace(alignment, lag=alignment.lag - move * speed, speed=speed)


def _straight_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    # Slope and intercept; what lies far from the line is left out of a second fit.
    for _ in range(2):
        weights = np.maximum(weights, 1e-6)
        slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(weights))
        far = np.abs(y - slope * x - intercept)
        weights = weights * (far <= max(1.0, 2 * float(np.median(far))))
    return float(slope), float(intercept)


def _profiles(
    queries: np.ndarray,
    vectors: np.ndarray,
    first: int,
    last: int,
    lags: np.ndarray,
    speeds: np.ndarray,
) -> np.ndarray:
    # Mean similarity at every speed and lag [shape=(n_speeds, n_lags)]; -inf where less than
    # about half of what could meet does, of which nothing can be concluded.
    references = np.unique(np.linspace(first, last - 1, min(last - first, _MAX_PROFILED)).round())
    references = references.astype(int)
    # Every alignment is a walk through this table.
    table = queries @ vectors[references].astype(np.float32).T
    steps = (STEPS * references - lags[:, None]) / speeds[:, None, None]
    steps = np.round(steps).astype(int)
    heard = sounding(queries)
    inside = meets(steps, heard)
    met = inside.sum(axis=2)
    columns = np.arange(len(references))
    sums = np.where(inside, table[np.clip(steps, 0, len(queries) - 1), columns], 0.0).sum(axis=2)
    covered = STEPS * met * (last - first) / len(references)
    possible = min(int(heard.sum()), STEPS * len(vectors))
    enough = (met > 0) & (2 * covered >= possible - STEPS)
    return np.where(enough, sums / np.maximum(met, 1), -np.inf)


def _stretch(pairs: np.ndarray) -> tuple[int, int]:
    # The first and one past the last pair of the part whose sum of agreement is greatest.
    least = max(_MIN_SIMILARITY, 0.5 * float(np.quantile(pairs, 0.9)))
    sums = np.concatenate([[0.0], np.cumsum(pairs - least)])
    gains = sums[1:] - np.minimum.accumulate(sums)[:-1]
    end = int(np.argmax(gains)) + 1
    if gains[end - 1] <= 0:
        return 0, len(pairs)
    return int(np.argmin(sums[:end])), end


def _vertex(profile: np.ndarray, peak: int) -> float:
    # Vertex of the parabola through the peak and its nearest neighbours that have a value.
    for distance in (1, STEPS):
        left, right = peak - distance, peak + distance
        if left < 0 or right >= len(profile):
            continue
        a, b, c = profile[left], profile[peak], profile[right]
        if np.isfinite(a) and np.isfinite(c) and a + c - 2 * b < 0:
            return float(np.clip(0.5 * (a - c) / (a + c - 2 * b), -0.5, 0.5)) * distance
    return 0.0


def _distinct(alignments: list[Alignment]) -> list[Alignment]:
    # Neighbouring lags of one recording lead to the same place: keep the best.
    kept: list[Alignment] = []
    for a in alignments:
        near = (b for b in kept if b.recording == a.recording)
        if all(abs(a.lag - b.lag) > STEPS for b in near):
            kept.append(a)
    return kept
