"""Loudness of log-mel frames, as ITU-R BS.1770-4 measures it.

How far a sound stands out of ambience is told in it, as scaper does: a rumble counts for less, and
the quiet end of a sound does not count.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.signal

from encoders.features import FeatureSpec, mel_edges, mel_to_hz, to_decibels, to_power

# Coefficients for 48 kHz: a shelf for the head, then a high-pass.
_RATE = 48_000
_FILTERS = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285),
     (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)  # fmt: skip
# Blocks of so many seconds, of which three quarters overlap; and what is so many decibels below
# their mean is left out.
_BLOCK_S, _OVERLAP, _GATE_DB = 0.4, 0.75, 10.0


@functools.lru_cache
def k_weights(spec: FeatureSpec) -> np.ndarray:
    """What the level of each mel band counts [shape=(n_mels,), dtype=float32]."""
    edges = mel_to_hz(mel_edges(spec))
    centres = edges[1:-1]
    # Filters are normalised by their area: their power is that of a hertz.
    weights = (edges[2:] - edges[:-2]) / 2
    for numerator, denominator in _FILTERS:
        _, response = scipy.signal.freqz(numerator, denominator, centres, fs=_RATE)
        weights *= np.abs(response) ** 2
    return weights.astype(np.float32)


def loudness(frames: np.ndarray, spec: FeatureSpec) -> float:
    """Gated loudness.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
        Log-mel, dB. Of fewer than a block has, the mean.
    spec : FeatureSpec

    Returns
    -------
    loudness : float
        dB, up to a constant.
    """
    power = to_power(frames) @ k_weights(spec)
    block = round(_BLOCK_S * spec.sample_rate / spec.hop_length)
    hop = max(1, round((1.0 - _OVERLAP) * block))
    if len(power) > block:
        sums = np.concatenate([[0.0], np.cumsum(power, dtype=np.float64)])
        power = (sums[block:] - sums[:-block])[::hop] / block
        power = power[power >= power.mean() * 10 ** (-_GATE_DB / 10)]
    return float(to_decibels(power.mean()))
