"""Signs of a spectrogram: where the step from one band to the next grows from frame to frame.

They are the sub-fingerprints of Haitsma and Kalker ("A highly robust audio fingerprinting system",
ISMIR 2002), on mel bands. An encoder tells which sounds are alike; signs tell which are the same:
noise turns some of them over, another sound half of them.
"""

from __future__ import annotations

import numpy as np

from encoders.features import FeatureSpec

MAX_SIGNS = 96
"""Of a frame: the lowest bands, in which most sounds have most to say."""

_WORD_BITS = 32


def n_signs(spec: FeatureSpec) -> int:
    """Signs of a frame: one for every step between two bands, up to :data:`MAX_SIGNS`."""
    return min(MAX_SIGNS, spec.n_mels - 1)


def n_words(spec: FeatureSpec) -> int:
    """32-bit words that the signs of a frame take."""
    return -(-n_signs(spec) // _WORD_BITS)


def sign_shape(spec: FeatureSpec) -> tuple[int, int]:
    """Of the signs of a window: frames, and 32-bit words of each."""
    return spec.hop_frames, n_words(spec)


def signs(frames: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Signs of neighbouring frames.

    Parameters
    ----------
    frames : np.ndarray [shape=(..., n + 1, n_mels)]
        dB, from :func:`encoders.features.log_mel`.
    spec : FeatureSpec

    Returns
    -------
    signs : np.ndarray [shape=(..., n, n_words), dtype=uint32]
        Of all frames but the first. All zero where nothing changes, as in silence.
    """
    n = n_signs(spec)
    steps = np.diff(frames[..., : n + 1], axis=-1)
    packed = np.packbits(np.diff(steps, axis=-2) > 0, axis=-1)
    whole = np.zeros((*packed.shape[:-1], 4 * n_words(spec)), np.uint8)
    whole[..., : packed.shape[-1]] = packed
    return whole.view("<u4").astype(np.uint32, copy=False)


def window_signs(windows: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The signs that belong to each window: of the frames up to where the next one begins.

    Parameters
    ----------
    windows : np.ndarray [shape=(n, window_frames, n_mels)]
        ``spec.hop_frames`` apart.

    Returns
    -------
    signs : np.ndarray [shape=(n, hop_frames, n_words), dtype=uint32]
        Of frames 1 to ``hop_frames`` of each.
    """
    return signs(windows[:, : spec.hop_frames + 1], spec)
