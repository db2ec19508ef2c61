"""Sketches: log-mel spectrograms small enough to keep, fine enough to tell copies from look-alikes.

A frame every 16 ms, 48 mel bands in steps of half a decibel: 3 kB for a second of sound.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from encoders.features import FLOOR_DB, FeatureSpec, LogMelStream

SKETCH_SPEC = FeatureSpec(
    n_fft=1024,
    hop_length=256,
    n_mels=48,
    fmin=60.0,
    fmax=7600.0,
    # No padding to a window: a short file has the frames that it has.
    window_length=256,
    window_hop=256,
)
"""What sketches are made with."""

FRAMES_PER_SECOND = SKETCH_SPEC.sample_rate / SKETCH_SPEC.hop_length

EDGE_FRAMES = SKETCH_SPEC.n_fft // 2 // SKETCH_SPEC.hop_length
"""Frames at both ends of a sketch that look beyond the end of the sound."""

_STEPS_PER_DB = 2.0


def sketch(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Sketch a signal that arrives in blocks.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,)]
        Mono samples at ``SKETCH_SPEC.sample_rate``.

    Returns
    -------
    sketch : np.ndarray [shape=(n_frames, n_mels), dtype=uint8]
    """
    stream = LogMelStream(SKETCH_SPEC)
    pieces = [_quantize(stream.push(block)) for block in blocks]
    return np.concatenate([*pieces, _quantize(stream.finish())])


def decibels(sketch: np.ndarray) -> np.ndarray:
    """Values of a sketch in dB re full scale [dtype=float32]."""
    return np.float32(FLOOR_DB) + np.asarray(sketch, np.float32) / np.float32(_STEPS_PER_DB)


def _quantize(frames: np.ndarray) -> np.ndarray:
    steps = np.rint((frames - np.float32(FLOOR_DB)) * np.float32(_STEPS_PER_DB))
    return np.clip(steps, 0, 255).astype(np.uint8)
