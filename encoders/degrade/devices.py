"""Microphones, loudspeakers, gain controls, bad lines."""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.ndimage


def filter_response(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Apply a frequency response sampled evenly from 0 Hz to Nyquist, without delay.

    Parameters
    ----------
    response : np.ndarray [shape=(n_points,)]
        Linear gain, real.
    """
    size = scipy.fft.next_fast_len(len(signal), real=True)
    spectrum = scipy.fft.rfft(signal, size)
    points = np.linspace(0, len(response) - 1, len(spectrum))
    spectrum *= np.interp(points, np.arange(len(response)), response).astype(np.float32)
    return scipy.fft.irfft(spectrum, size)[: len(signal)]


def microphone(signal: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A small loudspeaker and a phone microphone: band limits, uneven response, soft clipping."""
    low, high = rng.uniform(80, 400), rng.uniform(3000, 7500)
    bands = np.linspace(0, sample_rate / 2, 65)
    tilt = np.interp(np.arange(65), np.arange(0, 65, 8), rng.normal(0, 5, 9))
    # Second-order slopes outside the pass band.
    edges = -10 * np.log10(1 + (low / np.maximum(bands, 1)) ** 4) - 10 * np.log10(
        1 + (bands / high) ** 8
    )
    heard = filter_response(signal, 10 ** ((tilt + edges) / 20))
    peak = float(np.max(np.abs(heard), initial=0.0))
    if peak == 0.0:
        return heard
    drive = rng.uniform(0.5, 2.5)
    return (np.tanh(heard * (drive / peak)) * (peak / drive)).astype(np.float32)


def control_gain(signal: np.ndarray, sample_rate: int, strength: float) -> np.ndarray:
    """Automatic gain control: loud stretches are turned down, soft ones up.

    Parameters
    ----------
    strength : float
        0 changes nothing; 1 brings every half second to the same level, within 20 dB.
    """
    level = scipy.ndimage.uniform_filter1d(np.square(signal), max(1, sample_rate // 2))
    mean = float(np.mean(level))
    if mean == 0.0:
        return signal
    gain = np.sqrt(np.clip(level / mean, 0.01, 100.0)) ** -strength
    return (signal * gain).astype(np.float32)


def clip_peaks(signal: np.ndarray, share: float) -> np.ndarray:
    """Cut off the loudest ``share`` of the samples, as an overdriven input does."""
    if len(signal) == 0:
        return signal
    limit = np.quantile(np.abs(signal), 1.0 - share).astype(np.float32)
    return np.clip(signal, -limit, limit)


def drop_out(signal: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Lose packets: about one gap of 20 to 120 ms in a second is silent."""
    heard = signal.copy()
    for _ in range(rng.poisson(len(signal) / sample_rate)):
        start = int(rng.integers(len(signal)))
        heard[start : start + int(rng.uniform(0.02, 0.12) * sample_rate)] = 0.0
    return heard
