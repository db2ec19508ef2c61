"""What a network sees: levels by hand, cepstra against librosa."""

from __future__ import annotations

import json
from typing import Any

import librosa
import numpy as np
import pytest

from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import INPUTS, LevelInput, MfccInput, input_from_dict

SPEC = FeatureSpec()
RAW = MfccInput(low=0, high=96, n_mfcc=20)


@pytest.fixture(scope="module")
def windows(music: tuple[np.ndarray, int]) -> np.ndarray:
    return cut_windows(log_mel(music[0], SPEC), SPEC)


def test_levels_of_loudness_and_range() -> None:
    windows = np.full((2, 4, 16), -90.0, np.float32)
    windows[0, 1, 5], windows[0, 2, 6] = -20.0, -60.0
    windows[1] += 30.0
    levels = LevelInput(low=4, high=12, range_db=80.0)(windows)
    assert levels.shape == (2, 4, 8)
    assert levels[0, 1, 1] == 1.0
    assert levels[0, 2, 2] == pytest.approx(0.5)
    assert levels[0, 0, 0] == pytest.approx(1 - 70 / 80)
    np.testing.assert_array_equal(levels[1], 1.0)
    assert LevelInput(4, 12, 40.0)(windows)[0, 0, 0] == 0.0


def test_coefficients_are_librosas(windows: np.ndarray) -> None:
    levels = LevelInput(low=0, high=96)(windows)
    found = RAW(windows)
    assert found.shape == (len(windows), SPEC.window_frames, 20)
    assert found.dtype == np.float32
    for i in (0, 7, len(windows) - 1):
        expected = librosa.feature.mfcc(S=levels[i].T, n_mfcc=20).T
        np.testing.assert_allclose(found[i], expected, atol=1e-4)


def test_coefficients_are_standardised_by_constants(windows: np.ndarray) -> None:
    fitted = RAW.fitted_to(RAW(windows[::2]))
    seen = fitted(windows[::2])
    np.testing.assert_allclose(seen.mean(axis=(0, 1)), 0.0, atol=1e-3)
    np.testing.assert_allclose(seen.std(axis=(0, 1)), 1.0, atol=1e-3)
    # The same constants for every window: one alone gives what it gave among others.
    np.testing.assert_allclose(fitted(windows[:1])[0], seen[0], atol=1e-5)
    other = fitted(windows[1::2]).std(axis=(0, 1))
    assert not np.allclose(other, 1.0, atol=1e-3)
    np.testing.assert_allclose(other, 1.0, atol=0.3)


@pytest.mark.parametrize("inputs", [LevelInput(8, 104), RAW], ids=lambda x: x.kind)
def test_loudness_does_not_matter_and_silence_is_finite(
    inputs: LevelInput, windows: np.ndarray
) -> None:
    before = windows.copy()
    np.testing.assert_allclose(inputs(windows - np.float32(9.0)), inputs(windows), atol=1e-4)
    np.testing.assert_array_equal(windows, before)
    silence = np.full((2, SPEC.window_frames, SPEC.n_mels), -100.0, np.float32)
    constant = RAW.fitted_to(RAW(silence))(silence)
    assert np.isfinite(inputs(silence)).all()
    np.testing.assert_allclose(constant, 0.0, atol=0.01)


@pytest.mark.parametrize("kind", INPUTS)
def test_json_and_back(kind: str, windows: np.ndarray) -> None:
    inputs = INPUTS[kind](low=4, high=100)
    if isinstance(inputs, MfccInput):
        inputs = inputs.fitted_to(inputs(windows))
    fields = json.loads(json.dumps(inputs.to_dict()))
    back = input_from_dict(fields)
    assert fields["kind"] == kind
    assert back == inputs
    assert hash(back) == hash(inputs)
    np.testing.assert_array_equal(back(windows), inputs(windows))
    assert back(windows).shape[2] == back.n_bands == {"log-mel": 96, "mfcc": 40}[kind]


def test_without_a_kind_it_is_log_mel() -> None:
    assert input_from_dict({"low": 8, "high": 104, "range_db": 80.0}) == LevelInput(8, 104)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "chroma", "low": 0, "high": 12}, "unknown kind of input 'chroma'"),
        ({"kind": "mfcc", "low": 0, "high": 12}, "need 1 <= n_mfcc <= high - low"),
        ({"kind": "mfcc", "low": 0, "high": 96, "mean": [1.0]}, "one mean and one deviation"),
        ({"kind": "log-mel", "low": 0, "high": 96, "n_mfcc": 4}, "n_mfcc"),
    ],
)
def test_fields_that_do_not_fit_are_told(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        input_from_dict(fields)
