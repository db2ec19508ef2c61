from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.signs import MAX_SIGNS, n_signs, n_words, signs, window_signs

SPEC = FeatureSpec()


def one_by_one(packed: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The signs of some frames, each on its own [shape=(n, n_signs), dtype=bool]."""
    little = packed.astype("<u4").view(np.uint8)
    return np.unpackbits(little, axis=-1)[:, : n_signs(spec)].astype(bool)


@pytest.mark.parametrize("n_mels", [128, 97, 64, 40, 2])
def test_a_sign_is_whether_the_step_between_two_bands_grows(n_mels: int) -> None:
    spec = dataclasses.replace(SPEC, n_mels=n_mels, n_mfcc=1)
    frames = np.random.default_rng(0).normal(size=(20, n_mels)).astype(np.float32)
    found = one_by_one(signs(frames, spec), spec)
    assert found.shape == (19, min(MAX_SIGNS, n_mels - 1))
    for t in range(19):
        for band in range(found.shape[1]):
            now = frames[t + 1, band + 1] - frames[t + 1, band]
            before = frames[t, band + 1] - frames[t, band]
            assert found[t, band] == (now > before)


def test_words_hold_all_signs_and_nothing_else() -> None:
    frames = np.random.default_rng(0).normal(size=(50, 128)).astype(np.float32)
    packed = signs(frames, SPEC)
    assert packed.shape == (49, n_words(SPEC)) == (49, 3)
    assert packed.dtype == np.uint32
    few = dataclasses.replace(SPEC, n_mels=41)
    packed = signs(frames[:, :41], few)
    assert packed.shape == (49, 2)
    assert np.bitwise_count(packed).sum() == one_by_one(packed, few).sum()


def test_silence_has_none_and_loudness_does_not_matter(music: tuple[np.ndarray, int]) -> None:
    assert not signs(log_mel(np.zeros(16_000, np.float32), SPEC), SPEC).any()
    signal = music[0][: 5 * 16_000]
    loud, quiet = (signs(log_mel(gain * signal, SPEC), SPEC) for gain in (1.0, 0.1))
    assert np.bitwise_count(loud ^ quiet).sum() < 0.001 * loud.size * 32


def test_windows_share_them_out(music: tuple[np.ndarray, int]) -> None:
    frames = log_mel(music[0][: 7 * 16_000], SPEC)
    windows = cut_windows(frames, SPEC)
    mine = window_signs(windows, SPEC)
    assert mine.shape == (len(windows), SPEC.hop_frames, 3)
    whole = signs(frames, SPEC)
    assert np.array_equal(mine.reshape(-1, 3), whole[: len(windows) * SPEC.hop_frames])


def test_noise_turns_some_and_another_sound_half(music: tuple[np.ndarray, int]) -> None:
    signal = music[0][: 10 * 16_000]
    noise = np.random.default_rng(0).normal(size=len(signal)).astype(np.float32)
    noisy = signal + noise * np.float32(np.std(signal) / np.std(noise))
    clean, noisy_signs, later = (
        signs(log_mel(s, SPEC), SPEC) for s in (signal, noisy, np.roll(signal, 16_000 * 3))
    )
    n = clean.size * 32
    assert np.bitwise_count(clean ^ noisy_signs).sum() / n < 0.46
    assert 0.48 < np.bitwise_count(clean ^ later).sum() / n < 0.52
