"""Two sketches, laid against each other: what agrees, from where to where, and how closely.

Gain is taken off, bands that one of the two does not have (a codec's or a rate's limit) are left
out, and so is what lies so far below the loudest that codecs drop it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft
import scipy.ndimage

from encoders.sketch import EDGE_FRAMES, FRAMES_PER_SECOND
from index.sound import LEAST_FRAMES, MOST_FRAMES, Sound

CLOSE_DB = 3.0
"""Cells that differ by less than this agree."""

FAR_DB = 6.0
"""Cells that differ by more than this hold other sound: codecs go so far only where it is soft."""

# Cells within this of the loudest of their frame are loud: no codec adds or drops one.
_LOUDEST_DB = 12.0
# Differences count up to this: one click must not outweigh a second of agreement.
_MOST_DB = 12.0
# Frames of a are aligned in so many chunks of this length, spread evenly.
_CHUNKS = 5
_CHUNK_FRAMES = 192
# How far off the lag and the speed of a candidate may be.
REACH_FRAMES = round(0.7 * FRAMES_PER_SECOND)
_SPEED_REACH = 0.012
# Below this many frames a speed cannot be told.
_LEAST_FOR_SPEED = round(4 * FRAMES_PER_SECOND)
# What another speed must add to the correlation.
_DRIFT_COST = 0.02
# Frames with fewer sounding cells than this weigh less.
_FEW_CELLS = 6
# Gain is taken from cells this far above the floor: below, codecs add and drop sound.
_LOUD_DB = 10.0
# Of them, so many at most.
_MOST_FOR_GAIN = 20_000
# Where the mean difference is above this, a frame speaks against a copy.
_COPY_DB = 4.0
# Where the correlation around a frame is below this, it speaks against the same recording under
# noise.
_NEAR_CORRELATION = 0.3
# Frames that the fluctuation of a band is taken against: 1 s.
_SLOW_FRAMES = 63
# Frames of a burst, 2 s, and cells of a frame that belongs to it.
_BURST_FRAMES = 125
_BURST_CELLS = 2
# Of a stretch of so many times that length, what is at its ends is no burst.
_LONG_BURSTS = 12


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How one recording lies against another.

    Attributes
    ----------
    lag : float
        Frame of b at the first frame of a.
    speed : float
        Frames of b in one of a.
    ratio : float
        Frequency in b over that in a.
    correlation : float
        Of the bands over time, mean of some chunks.
    """

    lag: float
    speed: float = 1.0
    ratio: float = 1.0
    correlation: float = 0.0


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How two recordings agree where they agree best.

    Attributes
    ----------
    alignment : Alignment
    start, end : int
        Frames of a, the stretch that agrees.
    difference_db : float
        Mean difference of the cells in it.
    share : float
        Cells that differ by less than ``CLOSE_DB``.
    far : float
        Cells that differ by more than ``FAR_DB``.
    torn : float
        Cells where a is louder by more than ``CLOSE_DB`` or those where b is, whichever are fewer:
        a mixture has cells of the one kind only, another take as many of the other.
    loud_share, loud_far : float
        Of the loud cells, those that differ by less than ``CLOSE_DB``; and those where one and
        the same of the two is louder by more than ``FAR_DB``.
    loud_burst : float
        Frames with several of the latter, in the two seconds where they are most: a voice lasts,
        the onset of a note that falls between frames does not.
    correlation : float
        Of how the bands fluctuate within a second.
    gain_db : float
        Level of b over that of a.
    """

    alignment: Alignment
    start: int
    end: int
    difference_db: float
    share: float
    far: float
    torn: float
    loud_share: float
    loud_far: float
    loud_burst: float
    correlation: float
    gain_db: float

    @property
    def frames(self) -> int:
        """Length of the stretch."""
        return self.end - self.start


def align(
    a: Sound,
    b: Sound,
    lag: float,
    speed: float = 1.0,
    ratio: float = 1.0,
    reach: int = REACH_FRAMES,
    within: tuple[int, int] | None = None,
) -> Alignment | None:
    """Refine an alignment to a fraction of a frame.

    Parameters
    ----------
    lag : float
        Frame of b at the first frame of a, to within ``reach``.
    speed : float
        Frames of b in one of a, to about 1 %.
    ratio : float
        Frequency in b over that in a.
    within : (int, int), optional
        Frames of a that are looked at.

    Returns
    -------
    alignment : Alignment
        None if they do not meet.
    """
    begin = max(a.first, int(np.ceil((b.first - lag) / speed)) - reach)
    end = min(a.last, int((b.last - lag) / speed) + reach)
    if within is not None:
        begin, end = max(begin, within[0]), min(end, within[1])
    if end - begin < LEAST_FRAMES:
        return None
    length = min(_CHUNK_FRAMES, end - begin)
    n = min(_CHUNKS, -(-(end - begin) // length))
    starts = np.linspace(begin, end - length, n).astype(int)
    curves = np.stack([_curve(a, b, s, length, lag, speed, ratio, reach) for s in starts])
    # Another speed shifts the chunks against each other, by frames of a.
    n_steps = int(_SPEED_REACH * (end - begin) / 2) if end - begin > _LEAST_FOR_SPEED else 0
    drift = np.arange(-n_steps, n_steps + 1) * 2.0 / (end - begin)
    middle = starts - starts.mean()
    places = np.arange(2 * reach + 1) + np.rint(drift[:, None] * middle).astype(int)[:, :, None]
    inside = (places >= 0) & (places <= 2 * reach)
    values = np.take_along_axis(curves[None], np.clip(places, 0, 2 * reach), axis=2)
    sums = np.where(inside, values, 0.0).mean(axis=1) - _DRIFT_COST * (drift[:, None] != 0)
    which, peak = (int(i) for i in np.unravel_index(int(np.argmax(sums)), sums.shape))
    moved = peak - reach + _vertex(sums[which], peak)
    refined = speed * (1 + float(drift[which]))
    pivot = starts.mean() + length / 2
    at = lag + speed * (pivot + moved) - refined * pivot
    return Alignment(float(at), refined, ratio, float(sums[which, peak]))


def _vertex(curve: np.ndarray, peak: int) -> float:
    if not 0 < peak < len(curve) - 1:
        return 0.0
    left, middle, right = curve[peak - 1 : peak + 2]
    bend = left + right - 2 * middle
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _curve(
    a: Sound,
    b: Sound,
    start: int,
    length: int,
    lag: float,
    speed: float,
    ratio: float,
    reach: int,
) -> np.ndarray:
    # Correlation of a chunk of a with b at every lag [shape=(2 * reach + 1,)]; each band against
    # its mean, so that neither gain nor a codec's colour counts.
    chunk = a.levels(np.arange(start, start + length))
    chunk -= chunk.mean(axis=0)
    norm = float(np.sqrt(np.square(chunk).sum())) + 1e-6
    places = lag + speed * np.arange(start - reach, start + length + reach)
    around = b.levels(places, ratio)
    around -= around.mean(axis=0)
    n = 2 * reach + 1
    size = scipy.fft.next_fast_len(len(around), real=True)
    spectrum = scipy.fft.rfft(around, size, axis=0)
    spectrum *= np.conj(scipy.fft.rfft(chunk, size, axis=0))
    # What wraps around lies behind the lags that are looked at.
    products = scipy.fft.irfft(spectrum.sum(axis=1), size)[:n]
    sums = np.cumsum(np.pad(around, ((1, 0), (0, 0))), axis=0)
    squares = np.cumsum(np.pad(np.square(around).sum(axis=1, dtype=np.float64), (1, 0)))
    total = sums[length : length + n] - sums[:n]
    energy = squares[length : length + n] - squares[:n] - np.square(total).sum(axis=1) / length
    return products / (norm * np.sqrt(np.maximum(energy, 1e-3)))


def best_lag(a: Sound, b: Sound) -> float | None:
    """The lag at which two whole recordings correlate best, at speed 1.

    For music that repeats itself, where many lags fit well and one fits best.

    Returns
    -------
    lag : float
        Frame of b at the first frame of a; None for recordings of more than 20 minutes.
    """
    if max(len(a), len(b)) > MOST_FRAMES:
        return None
    levels = [s.levels(np.arange(s.first, s.last)) for s in (a, b)]
    levels = [db - db.mean(axis=0) for db in levels]
    size = scipy.fft.next_fast_len(len(levels[0]) + len(levels[1]), real=True)
    spectra = [scipy.fft.rfft(db, size, axis=0) for db in levels]
    products = scipy.fft.irfft((spectra[1] * np.conj(spectra[0])).sum(axis=1), size)
    # Lags count from -len(a); each is weighed by what meets there.
    lags = np.arange(-len(levels[0]) + 1, len(levels[1]))
    sums = [np.concatenate([[0.0], np.cumsum(np.square(db).sum(axis=1))]) for db in levels]
    ends = [
        (np.maximum(0, -lags), np.minimum(len(levels[0]), len(levels[1]) - lags)),
        (np.maximum(0, lags), np.minimum(len(levels[1]), len(levels[0]) + lags)),
    ]
    energies = [total[end] - total[begin] for total, (begin, end) in zip(sums, ends, strict=True)]
    met = ends[0][1] - ends[0][0]
    norms = np.sqrt(np.maximum(energies[0] * energies[1], 1e-3))
    scores = np.where(met >= _LEAST_FOR_SPEED, products[lags % size] / norms, -1.0)
    return float(lags[int(np.argmax(scores))] + b.first - a.first)


def compare(a: Sound, b: Sound, at: Alignment, near: bool = False) -> Agreement | None:
    """Compare two recordings along an alignment.

    Parameters
    ----------
    at : Alignment
        From :func:`align`.
    near : bool
        Look for the same recording under noise, not for a copy.

    Returns
    -------
    agreement : Agreement
        None if nothing agrees.
    """
    lag, speed, ratio = at.lag, at.speed, at.ratio
    begin = max(a.first, EDGE_FRAMES, int(np.ceil((max(b.first, EDGE_FRAMES) - lag) / speed)))
    last_b = min(b.last, len(b) - EDGE_FRAMES) - 1
    end = min(a.last, len(a) - EDGE_FRAMES, int((last_b - lag) / speed) + 1)
    if end - begin < LEAST_FRAMES:
        return None
    # Of hours, not every frame, so that memory is bounded.
    step = 1 + (end - begin) // MOST_FRAMES
    frames = np.arange(begin, end, step)
    places = lag + speed * frames
    top = min(a.top, b.top)
    of_a, floor_a = a.levels(frames)[:, :top], a.floor[frames, None]
    of_b, floor_b = b.levels(places, ratio)[:, :top], b.floor[np.rint(places).astype(int), None]
    loud = (of_a > floor_a + _LOUD_DB) & (of_b > floor_b + _LOUD_DB)
    gain = _mode((of_b - of_a)[loud])
    # A cell at the floor of one and above that of the other differs by what is above.
    floor = np.maximum(floor_a + gain, floor_b)
    of_a = np.maximum(of_a + gain, floor)
    of_b = np.maximum(of_b, floor)
    difference = of_b - of_a
    away = np.minimum(np.abs(difference), _MOST_DB)
    heard = (of_a > floor) | (of_b > floor)
    n_cells = heard.sum(axis=1)
    levels = np.maximum(of_a, of_b)
    loudest = heard & (levels > levels.max(axis=1, keepdims=True) - _LOUDEST_DB)
    moving_a, moving_b = (_fluctuation(db) * heard for db in (of_a, of_b))
    if near:
        speaks = _local_correlation(moving_a, moving_b) - _NEAR_CORRELATION
    else:
        speaks = 1 - (away * heard).sum(axis=1) / np.maximum(n_cells, 1) / _COPY_DB
    start, stop = best_stretch(speaks * np.minimum(1, n_cells / _FEW_CELLS))
    if stop - start < min(len(frames), LEAST_FRAMES):
        return None
    burst = _burst(difference[start:stop], loudest[start:stop], 1 + _BURST_FRAMES // step)
    of_loudest = difference[start:stop][loudest[start:stop]]
    cells = heard[start:stop]
    away, difference = away[start:stop][cells], difference[start:stop][cells]
    moving_a, moving_b = moving_a[start:stop].ravel(), moving_b[start:stop].ravel()
    power = float(moving_a @ moving_a) * float(moving_b @ moving_b)
    return Agreement(
        alignment=at,
        start=begin + start * step,
        end=min(end, begin + stop * step),
        difference_db=float(away.mean()),
        share=float((away < CLOSE_DB).mean()),
        far=float((away > FAR_DB).mean()),
        torn=min(_beyond(difference, CLOSE_DB)),
        loud_share=float((np.abs(of_loudest) < CLOSE_DB).mean()),
        loud_far=max(_beyond(of_loudest, FAR_DB)),
        loud_burst=burst,
        correlation=float(moving_a @ moving_b) / max(1e-6, power**0.5),
        gain_db=gain,
    )


def _beyond(difference: np.ndarray, db: float) -> tuple[float, float]:
    # Shares of cells in which b, or a, is louder by more.
    return float((difference > db).mean()), float((difference < -db).mean())


def _burst(difference: np.ndarray, loudest: np.ndarray, size: int) -> float:
    # The greatest share of some frames in a row, in which the one is far louder in several of the
    # loudest cells. What is left at the end goes with what is before.
    if len(difference) >= _LONG_BURSTS * size:
        # Where what is shared begins and ends, something else may end and begin.
        difference, loudest = difference[size:-size], loudest[size:-size]
    starts = np.arange(max(1, round(len(difference) / size))) * size
    far = [(loudest & (sign * difference > FAR_DB)).sum(axis=1) for sign in (1, -1)]
    return max(int(np.add.reduceat(n >= _BURST_CELLS, starts).max()) for n in far) / size


def _fluctuation(db: np.ndarray) -> np.ndarray:
    # Bands against their own mean over a second.
    return db - scipy.ndimage.uniform_filter1d(db, min(_SLOW_FRAMES, len(db)), axis=0)


def _local_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Correlation of the fluctuations within a second around each frame [shape=(n_frames,)].
    size = min(_SLOW_FRAMES, len(a))
    products, of_a, of_b = (
        scipy.ndimage.uniform_filter1d(values.sum(axis=1, dtype=np.float64), size)
        for values in (a * b, a * a, b * b)
    )
    return products / np.sqrt(np.maximum(of_a * of_b, 1e-6))


def _mode(differences: np.ndarray) -> float:
    # The most frequent difference: other sound on top changes the mean, and the median too.
    differences = differences[:: 1 + len(differences) // _MOST_FOR_GAIN]
    if len(differences) == 0:
        return 0.0
    steps = np.rint(2 * differences).astype(np.int64)
    lowest = int(steps.min()) - 8
    counts = np.bincount(steps - lowest, minlength=int(steps.max()) - lowest + 8)
    smooth = scipy.ndimage.gaussian_filter1d(counts.astype(float), 2.0)
    middle = (int(np.argmax(smooth)) + lowest) / 2
    near = differences[np.abs(differences - middle) < CLOSE_DB]
    return float(near.mean()) if len(near) else middle


def best_stretch(speaks: np.ndarray) -> tuple[int, int]:
    """The stretch whose sum is greatest (Kadane's algorithm).

    >>> best_stretch(np.array([-1.0, 2.0, -1.0, 3.0, -4.0, 1.0]))
    (1, 4)

    Returns
    -------
    start, end : int
        Empty when nothing is above zero.
    """
    sums = np.concatenate([[0.0], np.cumsum(speaks)])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    # Of several lowest sums the last: what counts for nothing stays outside.
    return end - int(np.argmin(sums[end::-1])), end
