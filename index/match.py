"""Hits to matches: which recording, from where to where, and how sure.

Query windows are taken ``STEPS`` times as densely as reference windows, so that the alignment of a
query with a recording is a whole number of query steps: ``lag = STEPS * j - i`` for reference
window ``j`` and query window ``i``. Every hit proposes a lag; those whose surroundings agree best
are rescored with all windows of the sequence, at several speeds; the evidence becomes a score.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from encoders.bundle import Calibration
from index.search import FingerprintIndex

STEPS = 4
"""Query windows per reference hop."""

EDGE = STEPS // 2
"""Query windows before the first whole one and after the last: a clip of one second, too, meets the
reference windows on both sides of it."""

N_HITS = 20
"""Neighbours looked up for each query window."""

N_CANDIDATES = 32
"""Alignments that are rescored."""

MAX_PER_RECORDING = 3
"""Of one recording: a loop must not crowd out the other recordings that a match is weighed
against."""

MAX_SEARCHED = 64
"""Query windows that are looked up, evenly spread; all are used to rescore."""

_SPEEDS = np.array([1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.96, 1.04, 0.95, 1.05, 0.94, 1.06])
# Reference hops on both sides of a hit that are looked at before it is rescored: 5 s.
_REACH = 10
# Another speed must explain the query better than this much over speed 1.
_SPEED_GAIN = 0.03
# Speeds differ by less than a query step in shorter queries.
_MIN_STEPS_FOR_SPEED = 3 * 2 * STEPS
# Reference windows that speed and lag are fitted on, evenly spread over a long match.
_MAX_PROFILED = 512
# Windows of a stretch that agree less than this are not part of it.
_MIN_SIMILARITY = 0.3
# References this similar to each other at the same place are the same sound twice.
_SAME_SOUND = 0.85
# A greater margin says no more.
_MAX_MARGIN = 0.3
# How much a recording that has nothing to do with the query resembles it; in a small catalog there
# may be no other to show that.
_TYPICAL_OTHER = 0.4
# Moments of the query at which that is looked at.
_SAMPLES = 8


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
    """

    recording: int
    lag: float
    speed: float
    similarity: float
    first: int
    last: int
    n_pairs: int

    def reference_step(self, query_step: float) -> float:
        """Place in the reference, in query steps, of a place in the query."""
        return self.lag + self.speed * query_step


@dataclasses.dataclass(frozen=True)
class Scored:
    """An alignment and how sure it is, 0 to 1."""

    alignment: Alignment
    score: float
    similarity: float
    margin: float


def find_alignments(queries: np.ndarray, index: FingerprintIndex) -> list[Alignment]:
    """Align a query with the recordings of an index.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim), dtype=float32]
        Fingerprints at ``STEPS`` times the reference rate; zero where the query is silent.
    index : FingerprintIndex

    Returns
    -------
    alignments : list of Alignment
        Most similar first.
    """
    sounding = np.flatnonzero(_sounding(queries))
    if len(sounding) == 0 or index.info.n_rows == 0:
        return []
    n = min(MAX_SEARCHED, len(sounding))
    searched = sounding[np.linspace(0, len(sounding) - 1, n).round().astype(int)]
    scores, rows = index.search(queries[searched], N_HITS)
    candidates = propose(queries, searched, scores, rows, index)
    alignments = [rescore(queries, index, recording, lag) for recording, lag in candidates]
    found = [a for a in alignments if a is not None]
    return _distinct(sorted(found, key=lambda a: -a.similarity))


def propose(
    queries: np.ndarray,
    searched: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    index: FingerprintIndex,
) -> list[tuple[int, int]]:
    """Alignments worth rescoring: every hit is one, and what lies around it speaks for it.

    Parameters
    ----------
    queries : np.ndarray [shape=(n_queries, dim)]
    searched : np.ndarray [shape=(n,)]
        Query window of each line of ``scores`` and ``rows`` [shape=(n, k)].

    Returns
    -------
    candidates : list of (recording, lag)
        Most similar first.
    """
    # Silence is stored as zeros.
    hit = (rows >= 0) & (scores > 0)
    steps = np.broadcast_to(searched[:, None], rows.shape)[hit]
    recordings = index.recording_of(rows[hit])
    lags = STEPS * (rows[hit] - index.first_rows[recordings]) - steps
    _, first = np.unique(np.stack([recordings, lags], axis=1), axis=0, return_index=True)
    similarity = _similarity_around(queries, steps[first], rows[hit][first], index)
    candidates: list[tuple[int, int]] = []
    chosen: dict[int, list[int]] = collections.defaultdict(list)
    for i in first[np.argsort(-similarity, kind="stable")].tolist():
        recording, lag = int(recordings[i]), int(lags[i])
        # Rescoring looks at the neighbouring lags as well.
        near = any(abs(lag - other) <= STEPS for other in chosen[recording])
        if near or len(chosen[recording]) == MAX_PER_RECORDING:
            continue
        chosen[recording].append(lag)
        candidates.append((recording, lag))
        if len(candidates) == N_CANDIDATES:
            break
    return candidates


def _similarity_around(
    queries: np.ndarray, steps: np.ndarray, rows: np.ndarray, index: FingerprintIndex
) -> np.ndarray:
    # Mean similarity of each hit and its neighbours at speed 1 [shape=(n_hits,)].
    distance = np.arange(-_REACH, _REACH + 1)
    around = steps[:, None] + STEPS * distance
    beside = rows[:, None] + distance
    recordings = index.recording_of(rows)
    begin = index.first_rows[recordings][:, None]
    end = begin + index.n_rows[recordings][:, None]
    met = (beside >= begin) & (beside < end) & _meets(around, _sounding(queries))
    pairs = np.zeros(met.shape, np.float32)
    known = index.vectors[beside[met]].astype(np.float32)
    pairs[met] = np.einsum("nd,nd->n", queries[around[met]], known)
    # Beyond an end of the recording there is nothing to agree with: half of it must not win.
    possible = _meets(around, _sounding(queries)).sum(axis=1)
    return pairs.sum(axis=1) / np.maximum(met.sum(axis=1), (possible + 1) // 2)


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
    profile, speed = profiles[chosen], float(speeds[chosen])
    peak = int(np.argmax(profile))
    references = np.arange(first, last)
    steps = np.round((STEPS * references - lags[peak]) / speed).astype(int)
    sounding = _sounding(queries)
    heard = np.flatnonzero(sounding).tolist()
    met = _meets(steps, sounding)
    steps, references = steps[met], references[met]
    pairs = np.einsum("nd,nd->n", queries[steps], vectors[references], dtype=np.float32)
    start, end = _stretch(pairs)
    return Alignment(
        recording=recording,
        lag=float(lags[peak]) + _refine(profile, peak),
        speed=speed,
        similarity=float(pairs.mean()),
        # Up to a reference hop lies before the first pair and after the last.
        first=max(heard[0], int(steps[start]) - (STEPS - 1) * (start == 0)),
        last=min(heard[-1], int(steps[end - 1]) + (STEPS - 1) * (end == len(pairs))),
        n_pairs=len(pairs),
    )


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
    sounding = _sounding(queries)
    inside = _meets(steps, sounding)
    met = inside.sum(axis=2)
    columns = np.arange(len(references))
    sums = np.where(inside, table[np.clip(steps, 0, len(queries) - 1), columns], 0.0).sum(axis=2)
    covered = STEPS * met * (last - first) / len(references)
    possible = min(int(sounding.sum()), STEPS * len(vectors))
    enough = (met > 0) & (2 * covered >= possible - STEPS)
    return np.where(enough, sums / np.maximum(met, 1), -np.inf)


def _sounding(queries: np.ndarray) -> np.ndarray:
    # Silence speaks neither for nor against an alignment.
    return np.any(queries != 0, axis=1)


def _meets(steps: np.ndarray, sounding: np.ndarray) -> np.ndarray:
    inside = (steps >= 0) & (steps < len(sounding))
    return inside & sounding[np.clip(steps, 0, len(sounding) - 1)]


def _stretch(pairs: np.ndarray) -> tuple[int, int]:
    # From the first to the last pair that agrees.
    agreeing = np.flatnonzero(pairs >= _MIN_SIMILARITY)
    if len(agreeing) == 0:
        return 0, len(pairs)
    return int(agreeing[0]), int(agreeing[-1]) + 1


def _refine(profile: np.ndarray, peak: int) -> float:
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


def score_alignments(
    alignments: list[Alignment], index: FingerprintIndex, calibration: Calibration
) -> list[Scored]:
    """Turn evidence into scores.

    The evidence is the similarity of the sequence, its margin over the best *other* sound, and the
    number of windows. The same sound indexed twice is not another sound; nor is a place in the
    same recording that fits less well.

    Parameters
    ----------
    alignments : list of Alignment
        From :func:`find_alignments`.
    """
    scored = []
    for a in alignments:
        # The alignments come most similar first: the first that is another sound is the rival.
        rival = next(
            (
                b.similarity
                for b in alignments
                if (b.recording != a.recording or b.similarity > a.similarity)
                and not _same_sound(a, b, index)
            ),
            _TYPICAL_OTHER,
        )
        margin = min(_MAX_MARGIN, a.similarity - max(_TYPICAL_OTHER, rival))
        score = calibration.score(a.similarity, margin, a.n_pairs)
        scored.append(Scored(a, score, a.similarity, margin))
    return sorted(scored, key=lambda s: -s.score)


def _same_sound(a: Alignment, b: Alignment, index: FingerprintIndex) -> bool:
    # What the two recordings hold where the query was found in them.
    similarities = []
    for step in np.linspace(a.first, a.last, _SAMPLES):
        vectors = [_stored(index, alignment, step) for alignment in (a, b)]
        if vectors[0] is not None and vectors[1] is not None:
            similarities.append(float(vectors[0] @ vectors[1]))
    return bool(similarities) and float(np.mean(similarities)) > _SAME_SOUND


def _stored(index: FingerprintIndex, alignment: Alignment, step: float) -> np.ndarray | None:
    stored = index.fingerprints(alignment.recording)
    window = round(alignment.reference_step(step) / STEPS)
    return stored[window].astype(np.float32) if 0 <= window < len(stored) else None
