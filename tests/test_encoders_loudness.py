"""Loudness of frames, beside pyloudnorm's of the same sound."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from sounds_helpers import load

from encoders.features import FeatureSpec, log_mel
from encoders.loudness import loudness

SPEC = FeatureSpec()
RATE = SPEC.sample_rate


def frames_of(signal: np.ndarray) -> np.ndarray:
    return log_mel(signal.astype(np.float32), SPEC)


def noise(seconds: float, low: float, high: float, level: float) -> np.ndarray:
    """Noise between two frequencies, of a mean power."""
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=n))
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    made = np.fft.irfft(spectrum, n)
    return made / made.std() * 10 ** (level / 20)


def test_differences_are_those_of_pyloudnorm() -> None:
    meter = pyloudnorm.Meter(RATE)
    sounds = [
        noise(4, 60, 7000, -30), noise(4, 60, 200, -30), noise(4, 3000, 7000, -30),
        np.concatenate([noise(2, 60, 7000, -20), noise(4, 60, 7000, -50)]),
        np.tile(load("snare/sn_dub"), 8),
    ]  # fmt: skip
    theirs = np.array([meter.integrated_loudness(s) for s in sounds])
    ours = np.array([loudness(frames_of(s), SPEC) for s in sounds])
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1.0)


def test_highs_count_more_than_a_rumble_and_a_quiet_end_does_not_count() -> None:
    high, low = (loudness(frames_of(noise(2, f, 1.2 * f, -30)), SPEC) for f in (4000, 70))
    assert 4 < high - low < 7
    loud, end = noise(2, 60, 7000, -20), noise(4, 60, 7000, -50)
    whole = loudness(frames_of(np.concatenate([loud, end])), SPEC)
    assert whole == pytest.approx(loudness(frames_of(loud), SPEC), abs=0.7)


def test_of_less_than_a_block_the_mean_is_taken() -> None:
    frames = frames_of(noise(1, 60, 7000, -20))
    assert loudness(frames[:3], SPEC) == pytest.approx(loudness(frames, SPEC), abs=1.5)
    assert np.isfinite(loudness(np.full((1, SPEC.n_mels), -100.0), SPEC))
