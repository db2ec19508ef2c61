"""Features against librosa, the oracle, on real music; streaming leaves no trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.features import (
    AMIN,
    FLOOR_DB,
    FeatureSpec,
    LogMelStream,
    cut_windows,
    log_mel,
    mel_filterbank,
    mfcc,
    mfcc_summary,
    stream_windows,
)

SPEC = FeatureSpec()
SPECS = [
    pytest.param(SPEC, id="default"),
    pytest.param(
        FeatureSpec(n_fft=512, hop_length=160, n_mels=64, fmin=0.0, fmax=7600.0), id="small"
    ),
]

CHANGED = {
    "sample_rate": 22_050,
    "n_fft": 1024,
    "hop_length": 250,
    "n_mels": 64,
    "fmin": 0.0,
    "fmax": 7000.0,
    "window_length": 32_000,
    "window_hop": 4_000,
    "n_mfcc": 13,
    "lifter": 22,
}
"""Another value for every field of the spec."""


def librosa_mel_power(signal: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=signal,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
    )


def in_blocks(signal: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """Cut a signal into blocks whose sizes go round ``sizes``."""
    start = turn = 0
    while start < len(signal):
        size = sizes[turn % len(sizes)]
        yield signal[start : start + size]
        start += size
        turn += 1


def streamed(signal: np.ndarray, spec: FeatureSpec, sizes: list[int]) -> np.ndarray:
    stream = LogMelStream(spec)
    frames = [stream.push(block) for block in in_blocks(signal, sizes)]
    return np.concatenate([*frames, stream.finish()])


@pytest.mark.parametrize("spec", SPECS)
def test_mel_filterbank_is_librosas(spec: FeatureSpec) -> None:
    expected = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax
    )
    np.testing.assert_allclose(mel_filterbank(spec), expected.T, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_mel_power_is_librosas(music: tuple[np.ndarray, int], spec: FeatureSpec) -> None:
    signal, _ = music
    expected = np.maximum(librosa_mel_power(signal, spec).T, AMIN)
    power = 10.0 ** (log_mel(signal, spec) / 10.0)
    np.testing.assert_allclose(power, expected, rtol=1e-3)


@pytest.mark.parametrize("spec", SPECS)
def test_log_mel_is_librosas(music: tuple[np.ndarray, int], spec: FeatureSpec) -> None:
    signal, _ = music
    expected = librosa.power_to_db(librosa_mel_power(signal, spec), amin=AMIN, top_db=None).T
    frames = log_mel(signal, spec)
    assert frames.dtype == np.float32
    assert frames.shape == expected.shape
    np.testing.assert_allclose(frames, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lifter", [0, 22])
@pytest.mark.parametrize("n_mfcc", [13, 20, 40])
def test_mfcc_is_librosas(music: tuple[np.ndarray, int], n_mfcc: int, lifter: int) -> None:
    signal, _ = music
    spec = dataclasses.replace(SPEC, n_mfcc=n_mfcc, lifter=lifter)
    power_db = librosa.power_to_db(librosa_mel_power(signal, spec), amin=AMIN, top_db=None)
    expected = librosa.feature.mfcc(S=power_db, n_mfcc=n_mfcc, lifter=lifter).T
    coefficients = mfcc(log_mel(signal, spec), spec)
    assert coefficients.dtype == np.float32
    np.testing.assert_allclose(coefficients, expected, rtol=1e-3, atol=1e-3)


def test_silence_lies_on_the_floor() -> None:
    frames = log_mel(np.zeros(SPEC.window_length, np.float32), SPEC)
    np.testing.assert_allclose(frames, FLOOR_DB, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    n_samples=st.integers(1, 200_000),
    sizes=st.lists(st.integers(1_000, 300_000), min_size=1, max_size=6),
)
def test_streamed_equals_whole(
    music: tuple[np.ndarray, int], n_samples: int, sizes: list[int]
) -> None:
    signal = music[0][:n_samples]
    np.testing.assert_array_equal(streamed(signal, SPEC, sizes), log_mel(signal, SPEC))


def test_streamed_sample_by_sample_equals_whole(music: tuple[np.ndarray, int]) -> None:
    signal = music[0][:17_123]
    np.testing.assert_array_equal(streamed(signal, SPEC, [1]), log_mel(signal, SPEC))


def test_stream_holds_a_bounded_part_of_the_signal(music: tuple[np.ndarray, int]) -> None:
    signal, _ = music
    stream = LogMelStream(SPEC)
    frames_before_the_end = sum(len(stream.push(block)) for block in in_blocks(signal, [16_000]))
    frames_held_back = len(stream.finish())
    assert frames_before_the_end + frames_held_back == 1 + len(signal) // SPEC.hop_length
    assert frames_held_back <= 256 + SPEC.n_fft // SPEC.hop_length


@pytest.mark.parametrize(
    ("n_samples", "n_windows"),
    [(0, 0), (1, 1), (15_999, 1), (16_000, 1), (23_999, 1), (24_000, 2), (31_999, 2), (32_000, 3)],
)
def test_number_of_windows(music: tuple[np.ndarray, int], n_samples: int, n_windows: int) -> None:
    assert SPEC.n_windows(n_samples) == n_windows
    batches = list(stream_windows([music[0][:n_samples]], SPEC))
    assert sum(len(windows) for _, windows in batches) == n_windows
    for _, windows in batches:
        assert windows.shape[1:] == (SPEC.window_frames, SPEC.n_mels)


@settings(deadline=None, max_examples=30)
@given(
    n_samples=st.integers(16_000, 400_000),
    sizes=st.lists(st.integers(1_000, 100_000), min_size=1, max_size=6),
    batch=st.integers(1, 70),
)
def test_streamed_windows_are_cut_from_the_whole(
    music: tuple[np.ndarray, int], n_samples: int, sizes: list[int], batch: int
) -> None:
    signal = music[0][:n_samples]
    batches = list(stream_windows(in_blocks(signal, sizes), SPEC, batch=batch))

    n_windows = SPEC.n_windows(n_samples)
    expected = cut_windows(log_mel(signal, SPEC), SPEC)[:n_windows]
    np.testing.assert_array_equal(np.concatenate([windows for _, windows in batches]), expected)
    assert [len(windows) for _, windows in batches[:-1]] == [batch] * (len(batches) - 1)
    starts = [start for start, _ in batches]
    assert starts == list(range(0, n_windows * SPEC.window_hop, batch * SPEC.window_hop))


def test_a_window_is_the_frames_from_its_start(music: tuple[np.ndarray, int]) -> None:
    frames = log_mel(music[0][:80_000], SPEC)
    windows = cut_windows(frames, SPEC)
    starts = range(0, SPEC.hop_frames * len(windows), SPEC.hop_frames)
    assert len(windows) == 1 + (len(frames) - SPEC.window_frames) // SPEC.hop_frames
    for start, window in zip(starts, windows, strict=True):
        np.testing.assert_array_equal(window, frames[start : start + SPEC.window_frames])


def test_finer_hop(music: tuple[np.ndarray, int]) -> None:
    frames = log_mel(music[0][:80_000], SPEC)
    windows = cut_windows(frames, SPEC, hop_frames=5)
    assert len(windows) == 1 + (len(frames) - SPEC.window_frames) // 5
    np.testing.assert_array_equal(windows[3], frames[15 : 15 + SPEC.window_frames])


def test_a_short_file_is_padded_to_one_window(music: tuple[np.ndarray, int]) -> None:
    short = music[0][:5_000]
    [(start, windows)] = stream_windows([short], SPEC)
    padded = np.concatenate([short, np.zeros(SPEC.window_length - len(short), np.float32)])
    assert start == 0
    np.testing.assert_array_equal(windows[0], log_mel(padded, SPEC)[: SPEC.window_frames])


def test_too_few_frames_give_no_window() -> None:
    frames = np.zeros((SPEC.window_frames - 1, SPEC.n_mels), np.float32)
    assert cut_windows(frames, SPEC).shape == (0, SPEC.window_frames, SPEC.n_mels)


def test_mfcc_summary(music: tuple[np.ndarray, int]) -> None:
    windows = cut_windows(log_mel(music[0][:80_000], SPEC), SPEC)
    summary = mfcc_summary(windows, SPEC)
    assert summary.shape == (len(windows), 2 * SPEC.n_mfcc)
    assert summary.dtype == np.float32
    coefficients = librosa.feature.mfcc(S=np.asarray(windows[2]).T, n_mfcc=SPEC.n_mfcc)
    np.testing.assert_allclose(summary[2, : SPEC.n_mfcc], coefficients.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(summary[2, SPEC.n_mfcc :], coefficients.std(axis=1), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be positive"),
        ({"n_fft": -1}, "n_fft must be positive"),
        ({"hop_length": 0}, "hop_length must be positive"),
        ({"window_length": 16_001}, "multiples of hop_length"),
        ({"window_hop": 8_001}, "multiples of hop_length"),
        ({"fmin": -1.0}, "0 <= fmin < fmax"),
        ({"fmin": 8000.0}, "0 <= fmin < fmax"),
        ({"fmax": 8000.5}, "0 <= fmin < fmax"),
        ({"n_mfcc": 0}, "n_mfcc"),
        ({"n_mfcc": 129}, "n_mfcc"),
        ({"lifter": -1}, "lifter"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **changes)


def test_spec_is_frozen_and_hashes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.n_mels = 64  # type: ignore[misc]
    assert {FeatureSpec(): "same"}[SPEC] == "same"
    assert FeatureSpec(**SPEC.to_dict()) == SPEC


def test_spec_sha256_is_the_same_on_every_machine() -> None:
    # Stored in catalogs and bundles: a change here makes all of them unreadable.
    assert SPEC.sha256 == "968d5f2c816428342e76f829fe5ca3a1ecdb76b8079e517ca95458355fdc9be8"
    assert CHANGED.keys() == SPEC.to_dict().keys()
    others = {dataclasses.replace(SPEC, **{name: value}).sha256 for name, value in CHANGED.items()}
    assert len(others | {SPEC.sha256}) == 1 + len(CHANGED)
