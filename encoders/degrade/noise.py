"""Background sound, and how it is mixed in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.fft


class NoiseSource(Protocol):
    """Where background sound comes from."""

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Give ``n_samples`` of some recording, at random."""


def add_noise(signal: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix in background sound.

    Parameters
    ----------
    signal, noise : np.ndarray [shape=(n,)]
        Of equal length. When either is silent the signal comes back unchanged.
    snr_db : float
        Power of the signal over that of the noise, both taken over the whole stretch.
    """
    signal_power = float(np.mean(np.square(signal)))
    noise_power = float(np.mean(np.square(noise)))
    if signal_power == 0.0 or noise_power == 0.0:
        return signal
    gain = np.sqrt(signal_power / noise_power / 10.0 ** (snr_db / 10.0))
    return signal + np.float32(gain) * noise


def colored_noise(n_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as ``1 / f ** exponent``: 0 is white, 1 pink, 2 brown."""
    size = scipy.fft.next_fast_len(n_samples, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-exponent / 2)
    return scipy.fft.irfft(spectrum, size)[:n_samples]


def drone(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What stays of a sound when it is smeared over its whole length: its spectrum, without events.

    Random phases in place of its own, as in surrogate data (Theiler et al., 1992).

    Parameters
    ----------
    sound : np.ndarray [shape=(n,)]
    """
    size = scipy.fft.next_fast_len(len(sound), real=True)
    spectrum = np.abs(scipy.fft.rfft(sound, size))
    phases = rng.uniform(0.0, 2 * np.pi, len(spectrum)).astype(np.float32)
    return scipy.fft.irfft(spectrum * np.exp(1j * phases), size)[: len(sound)]


def babble(
    voices: NoiseSource, n_samples: int, n_voices: int, rng: np.random.Generator
) -> np.ndarray:
    """Several voices at once, each about as loud as the others [shape=(n_samples,)]."""
    mix = voices.excerpt(n_samples, rng)
    for _ in range(n_voices - 1):
        mix = add_noise(mix, voices.excerpt(n_samples, rng), rng.uniform(-3.0, 3.0))
    return mix
