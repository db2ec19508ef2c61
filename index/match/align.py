"""A query laid against a recording: where, how fast, and how alike the two are, pair by pair."""

from __future__ import annotations

import dataclasses

import numpy as np

from index.half import widen
from index.match.candidates import STEPS, meets, sounding
from index.match.detail import UNKNOWN, Detail
from index.search import FingerprintIndex

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
    detail : Detail
        How the signs agree; nothing where they are not known.
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
    detail: Detail = UNKNOWN

    @property
    def likeness(self) -> float:
        """What alignments of one query are ordered by: fingerprints and signs together."""
        return self.similarity + self.detail.likeness

    def reference_step(self, query_step: float) -> float:
        """Place in the reference, in query steps, of a place in the query."""
        return self.lag + self.speed * query_step

    def windows(self, query_steps: np.ndarray) -> np.ndarray:
        """Reference windows that are nearest to places in the query [dtype=int]."""
        return np.round((self.lag + self.speed * query_steps) / STEPS).astype(int)


def lay(
    queries: np.ndarray, index: FingerprintIndex, recording: int, lag: float, speed: float
) -> Alignment | None:
    """Lay a query against a recording just so; None where they do not meet.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
        As given to :func:`index.match.find_alignments`.
    index : FingerprintIndex
    recording : int
    lag, speed : float
        As in :class:`Alignment`.
    """
    vectors, heard = index.fingerprints(recording), sounding(queries)
    low, high = sorted((lag, lag + speed * (len(queries) - 1)))
    references = np.arange(max(0, int(low // STEPS)), min(len(vectors), int(high // STEPS) + 2))
    steps = np.round((STEPS * references - lag) / speed).astype(int)
    met = meets(steps, heard)
    if not met.any():
        return None
    steps, references = steps[met], references[met]
    pairs = np.einsum("nd,nd->n", queries[steps], widen(vectors[references]))
    return describe(recording, lag, speed, steps, pairs, np.flatnonzero(heard))


def describe(
    recording: int,
    lag: float,
    speed: float,
    steps: np.ndarray,
    pairs: np.ndarray,
    heard: np.ndarray,
) -> Alignment:
    """An alignment of which all pairs are known.

    Parameters
    ----------
    recording, lag, speed, steps, pairs
        As in :class:`Alignment`.
    heard : np.ndarray [shape=(n_heard,)]
        Query windows that are not silent.
    """
    start, end = _stretch(pairs)
    return Alignment(
        recording=recording,
        lag=lag,
        speed=speed,
        similarity=float(pairs.mean()),
        # Up to a reference hop lies before the first pair and after the last.
        first=max(int(heard[0]), int(steps[start]) - (STEPS - 1) * (start == 0)),
        last=min(int(heard[-1]), int(steps[end - 1]) + (STEPS - 1) * (end == len(pairs))),
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
    held = widen(vectors[references])
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
            moves.append(tried[peak] + vertex(profile, peak) + shift)
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


def vertex(profile: np.ndarray, peak: int) -> float:
    """Vertex of the parabola through a peak and its nearest neighbours that have a value.

    Parameters
    ----------
    profile : np.ndarray [shape=(n,)]
        -inf where nothing is known.
    peak : int

    Returns
    -------
    distance : float
        From the peak, in places of the profile.
    """
    for distance in (1, STEPS):
        left, right = peak - distance, peak + distance
        if left < 0 or right >= len(profile):
            continue
        a, b, c = profile[left], profile[peak], profile[right]
        if np.isfinite(a) and np.isfinite(c) and a + c - 2 * b < 0:
            return float(np.clip(0.5 * (a - c) / (a + c - 2 * b), -0.5, 0.5)) * distance
    return 0.0


def _straight_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    # Slope and intercept; what lies far from the line is left out of a second fit.
    for _ in range(2):
        weights = np.maximum(weights, 1e-6)
        middle = np.average(x, weights=weights)
        across = weights * (x - middle)
        slope = float(across @ y / (across @ (x - middle)))
        intercept = float(np.average(y, weights=weights)) - slope * float(middle)
        far = np.abs(y - slope * x - intercept)
        weights = weights * (far <= max(1.0, 2 * float(np.median(far))))
    return slope, intercept


def _stretch(pairs: np.ndarray) -> tuple[int, int]:
    # The first and one past the last pair of the part whose sum of agreement is greatest.
    least = max(_MIN_SIMILARITY, 0.5 * _upper_decile(pairs))
    sums = np.concatenate([[0.0], np.cumsum(pairs - least)])
    gains = sums[1:] - np.minimum.accumulate(sums)[:-1]
    end = int(np.argmax(gains)) + 1
    if gains[end - 1] <= 0:
        return 0, len(pairs)
    return int(np.argmin(sums[:end])), end


def _upper_decile(pairs: np.ndarray) -> float:
    # np.quantile takes longer than everything else that is done with the pairs.
    ordered = np.sort(pairs)
    at = 0.9 * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (at - below) * (ordered[above] - ordered[below]))
