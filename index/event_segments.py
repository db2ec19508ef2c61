"""Where something begins to sound and until when, and that stretch alone as windows to embed.

A window of a second tells what sounds, and only roughly when; and of two sounds in it, the louder
one. An onset stands out of the bands as they were a moment before, whatever the background is, be
it music; the bands that rose then tell how long the sound lasts.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import scipy.ndimage
import scipy.signal

from encoders.features import FLOOR_DB, FeatureSpec, to_decibels, to_power

# An onset: the bands that rose most, this share of them, rose by so many dB, above what they do
# all the time around it (SuperFlux: Böck and Widmer 2013).
_BANDS = 0.15
_RISE_DB = 5.0
_MOST_RISE_DB = 30.0
_LAG_FRAMES = 2
_AROUND_S = 0.97
_APART_FRAMES = 3
# The sound lasts while those bands are so far above what was there before.
_ABOVE_DB = 4.0
_BEFORE_FRAMES = 8
_RISING_FRAMES = 6
_LONGEST_S = 5.0
_DROWNED_DB = 10.0
# What no onset explains is looked at in pieces, unless it is shorter than the least.
_PIECE_S = 2.0
_LEAST_PIECE_S = 1.0
# Of a piece, what is this far below its loudest moment, at either end, is no part of it.
_QUIET_DB = 30.0
# A segment begins this far into its window, and a longer one is seen in this many at most.
_LEAD = 0.25
_MOST_WINDOWS = 2
# What sounded before it is taken off so many times, as far as that leaves this share of its power.
_TIMES, _LEFT = 2.0, 0.1


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of frames, ``first`` to ``end - 1``, that may be one sound."""

    first: int
    end: int


def find_segments(frames: np.ndarray, spec: FeatureSpec) -> list[Segment]:
    """Stretches that may be events, whatever of.

    Sounds on top of each other give segments that overlap. Between segments lies what goes on all
    the time, in pieces.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
        Log-mel, dB.
    spec : FeatureSpec

    Returns
    -------
    segments : list of Segment
        By their first frame.
    """
    if len(frames) <= _LAG_FRAMES:
        return [Segment(0, len(frames))] if len(frames) else []
    per_second = spec.sample_rate / spec.hop_length
    longest = round(_LONGEST_S * per_second)
    rise = _rise(frames)
    usual = scipy.ndimage.median_filter(
        rise, 2 * int(_AROUND_S * per_second / 2) + 1, mode="nearest"
    )
    peaks, _ = scipy.signal.find_peaks(
        np.pad(rise - usual, 1), height=_RISE_DB, distance=_APART_FRAMES
    )
    found = []
    for peak in peaks - 1:
        first = int(peak)
        while first > max(0, peak - 3) and rise[first - 1] > 0.5 * rise[peak]:
            first -= 1
        if length := _length(frames, first, longest):
            found.append(Segment(first, first + length))
    found = _cut_short(found, frames.max(axis=1))
    pieces = _between(found, frames, per_second)
    return sorted({*found, *pieces}, key=lambda s: (s.first, s.end))


def segment_windows(frames: np.ndarray, segment: Segment, spec: FeatureSpec) -> np.ndarray:
    """A segment with silence around it, less what sounded before it, as windows of an encoder.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
    segment : Segment
    spec : FeatureSpec

    Returns
    -------
    windows : np.ndarray [shape=(n, window_frames, n_mels), dtype=float32]
        One or more.
    """
    lead, hop = round(_LEAD * spec.window_frames), spec.window_frames // 2
    starts = range(segment.first, max(segment.first + 1, segment.end - hop), hop)[:_MOST_WINDOWS]
    windows = np.full((len(starts), spec.window_frames, frames.shape[1]), FLOOR_DB, np.float32)
    for window, start in zip(windows, starts, strict=True):
        heard = frames[start : min(segment.end, start + spec.window_frames - lead)]
        window[lead : lead + len(heard)] = _less(heard, _before(frames, segment.first))
    return windows


def _before(frames: np.ndarray, first: int) -> np.ndarray:
    return frames[max(0, first - _BEFORE_FRAMES) : max(0, first - 1)]


def _less(frames: np.ndarray, before: np.ndarray) -> np.ndarray:
    # Spectral subtraction (Boll 1979).
    if len(before) < 2:
        return frames
    power = to_power(frames)
    steady = to_power(np.median(before, axis=0))
    return to_decibels(np.maximum(power - _TIMES * steady, _LEFT * power))


def _rise(frames: np.ndarray) -> np.ndarray:
    # How much the bands that rose most rose, dB [shape=(n_frames,)]: each above the loudest of
    # its neighbours a moment before, so that a tone that glides does not begin again and again.
    before = scipy.ndimage.maximum_filter1d(frames[:-_LAG_FRAMES], 3, axis=1)
    risen = np.zeros_like(frames)
    risen[_LAG_FRAMES:] = np.clip(frames[_LAG_FRAMES:] - before, 0.0, _MOST_RISE_DB)
    return _loudest(risen)


def _loudest(levels: np.ndarray) -> np.ndarray:
    # Mean of the highest bands of each frame.
    n = max(1, int(_BANDS * levels.shape[1]))
    mean: np.ndarray = np.partition(levels, -n, axis=1)[:, -n:].mean(axis=1)
    return mean


def _length(frames: np.ndarray, first: int, longest: int) -> int:
    # Frames for which the bands that rose stay above what was there before; 0 if they never are.
    before = _before(frames, first) if first > 1 else frames[:1]
    above = frames[first : first + longest] - np.median(before, axis=0)
    n = max(1, int(_BANDS * frames.shape[1]))
    risen = np.argsort(-above[:_RISING_FRAMES].max(axis=0))[:n]
    level = scipy.ndimage.median_filter(above[:, risen].mean(axis=1), 3, mode="nearest")
    sounding = np.flatnonzero(level >= _ABOVE_DB)
    if not len(sounding):
        return 0
    breaks = np.flatnonzero(np.diff(sounding) > 1)
    return max(2, int(sounding[breaks[0] if len(breaks) else -1]) + 1)


def _cut_short(found: list[Segment], loudness: np.ndarray) -> list[Segment]:
    # What is heard of a sound ends where a much louder one begins.
    kept = []
    for segment in found:
        end = segment.end
        for later in (other.first for other in found if segment.first < other.first < end):
            before = loudness[segment.first : later].max()
            if loudness[later : later + _RISING_FRAMES].max() > before + _DROWNED_DB:
                end = later
                break
        kept.append(Segment(segment.first, end))
    return kept


def _between(found: list[Segment], frames: np.ndarray, per_second: float) -> list[Segment]:
    free = np.ones(len(frames), bool)
    for segment in found:
        free[segment.first : segment.end] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]])))
    pieces = []
    for first, end in edges.reshape(-1, 2):
        # What sounds from the very beginning has no onset.
        if first == 0 or end - first >= _LEAST_PIECE_S * per_second:
            n = max(1, round((end - first) / (_PIECE_S * per_second)))
            bounds = np.linspace(first, end, n + 1).round().astype(int)
            pieces += [_trimmed(frames, *span) for span in itertools.pairwise(bounds.tolist())]
    return pieces


def _trimmed(frames: np.ndarray, first: int, end: int) -> Segment:
    level = frames[first:end].max(axis=1)
    loud = first + np.flatnonzero(level >= level.max() - _QUIET_DB)
    return Segment(int(loud[0]), int(loud[-1]) + 1)
