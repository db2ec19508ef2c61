"""A sketch, ready to be compared: what of it counts, and its levels at any time and pitch."""

from __future__ import annotations

import functools

import numpy as np

from encoders.features import hz_to_mel, mel_to_hz
from encoders.sketch import EDGE_FRAMES, FRAMES_PER_SECOND, SKETCH_SPEC, decibels

MOST_FRAMES = round(20 * 60 * FRAMES_PER_SECOND)
"""Frames that are looked at, at most: those of 20 minutes."""

LEAST_FRAMES = 4
"""Fewer say nothing."""

STEADY_DB = 3.0
"""Sound whose bands change by less than this (standard deviation over time) is a background, of one
room or one microphone: 1.2 to 2.2 dB where it was, 4.8 and more in what recordings share."""

# What lies this far below the loudest cell of the file, or of the frame, is not compared.
_FILE_RANGE_DB = 60.0
_FRAME_RANGE_DB = 40.0
# Frames, spread evenly, that tell which bands hold sound and whether they ever change.
_SAMPLED = 8192
# A band of a constant tone changes by less than this (standard deviation).
_CONSTANT_DB = 1.0


class Sound:
    """A sketch, ready to be compared.

    Parameters
    ----------
    sketch : np.ndarray [shape=(n_frames, n_mels), dtype=uint8]

    Attributes
    ----------
    floor : np.ndarray [shape=(n_frames,), dtype=float32]
        Level below which nothing of a frame is compared, dB.
    first, last : int
        Frames that hold sound: from the first to one past the last.
    top : int
        Bands up to the highest that holds sound.
    """

    def __init__(self, sketch: np.ndarray) -> None:
        self._sketch = sketch
        peaks = decibels(sketch.max(axis=1))
        peak = float(peaks.max())
        self.floor = np.maximum(peak - _FILE_RANGE_DB, peaks - _FRAME_RANGE_DB)
        self._is_heard = peaks > peak - _FILE_RANGE_DB + 10
        heard = np.flatnonzero(self._is_heard)
        self.first, self.last = int(heard[0]), int(heard[-1]) + 1
        some = heard[:: 1 + len(heard) // _SAMPLED]
        loud = decibels(np.percentile(sketch[some], 95, axis=0)) > peak - _FILE_RANGE_DB
        self.top = int(np.flatnonzero(loud)[-1]) + 1

    def __len__(self) -> int:
        return len(self._sketch)

    @property
    def frames(self) -> int:
        """Length without silence before and after."""
        return self.last - self.first

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self._sketch.nbytes + self.floor.nbytes

    def levels(self, places: np.ndarray, ratio: float = 1.0) -> np.ndarray:
        """Levels at some times, between frames too, clamped to the floor.

        Parameters
        ----------
        places : np.ndarray [shape=(n,)]
            In frames; those outside stand for the first or last frame.
        ratio : float
            At this many times the frequencies.

        Returns
        -------
        db : np.ndarray [shape=(n, n_mels), dtype=float32]
        """
        places = np.clip(places, 0, len(self) - 1)
        before = places.astype(int)
        frames = self._frames(before)
        part = (places - before).astype(np.float32)[:, None]
        if part.any():
            frames += part * (self._frames(np.minimum(before + 1, len(self) - 1)) - frames)
        return frames if ratio == 1.0 else frames @ _warp(round(ratio, 4))

    def heard_outside(self, start: float, end: float) -> int:
        """Frames that hold sound, before and after a stretch of frames."""
        before, after = max(0, round(start)), max(0, round(end))
        return int(self._is_heard[:before].sum() + self._is_heard[after:].sum())

    def is_steady(self, start: int, end: int) -> bool:
        """Whether a stretch of frames hardly changes, as the hum of a room between words."""
        levels = self.levels(np.arange(start, end))[:, : self.top]
        return float(np.sqrt(levels.var(axis=0).mean())) < STEADY_DB

    def _frames(self, numbers: np.ndarray) -> np.ndarray:
        return np.maximum(decibels(self._sketch[numbers]), self.floor[numbers, None])

    @functools.cached_property
    def is_constant(self) -> bool:
        """Whether nothing ever changes, as in a test tone."""
        inside = np.arange(self.first + EDGE_FRAMES, self.last - EDGE_FRAMES)
        inside = inside[:: 1 + len(inside) // _SAMPLED]
        if len(inside) < LEAST_FRAMES:
            return False
        above = self._frames(inside) - self.floor[inside, None]
        return float(above.std(axis=0).max()) < _CONSTANT_DB


@functools.lru_cache(maxsize=64)
def _warp(ratio: float) -> np.ndarray:
    # Takes each band from where it is at another pitch [shape=(n_mels, n_mels)].
    spec = SKETCH_SPEC
    low, high = (float(hz_to_mel(f)) for f in (spec.fmin, spec.fmax))
    centres = np.linspace(low, high, spec.n_mels + 2)[1:-1]
    step = centres[1] - centres[0]
    bands = (hz_to_mel(ratio * mel_to_hz(centres)) - centres[0]) / step
    bands = np.clip(bands, 0, spec.n_mels - 1)
    below = np.minimum(bands.astype(int), spec.n_mels - 2)
    matrix = np.zeros((spec.n_mels, spec.n_mels), np.float32)
    columns = np.arange(spec.n_mels)
    matrix[below, columns] = 1 - (bands - below)
    matrix[below + 1, columns] = bands - below
    return matrix
