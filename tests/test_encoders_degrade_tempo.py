"""Changes of tempo and pitch keep time."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.degrade import change_pitch, change_speed, change_tempo

PIECE_S = 0.05


def delays(original: np.ndarray, changed: np.ndarray, rate: int, tempo: float) -> np.ndarray:
    """How far pieces of ``changed`` are from where they should be, s."""
    n, reach = round(PIECE_S * rate), round(0.08 * rate)
    found = []
    for start in range(2 * reach, round(len(original) / tempo) - 2 * reach - n, rate // 10):
        piece = changed[start : start + n]
        # A piece keeps its own speed: compare its middle.
        first = round((start + n / 2) * tempo - n / 2) - reach
        around = original[first : first + n + 2 * reach]
        energy = np.sqrt(np.convolve(np.square(around), np.ones(n), "valid")) + 1e-6
        correlation = np.correlate(around, piece, "valid") / energy
        if correlation.max() > 0.9 * np.linalg.norm(piece):
            found.append((np.argmax(correlation) - reach) / rate)
    assert len(found) > 20
    return np.array(found)


@pytest.mark.parametrize("tempo", [0.95, 0.98, 1.0, 1.03, 1.05])
def test_tempo_keeps_time(music: tuple[np.ndarray, int], tempo: float) -> None:
    signal, rate = music[0][: 10 * music[1]], music[1]
    changed = change_tempo(signal, rate, tempo)
    assert changed.dtype == np.float32
    assert len(changed) == round(len(signal) / tempo)
    found = delays(signal, changed, rate, tempo)
    assert abs(np.median(found)) < 0.008
    assert np.quantile(np.abs(found), 0.95) < 0.025


def test_tempo_begins_and_ends_with_the_signal(music: tuple[np.ndarray, int]) -> None:
    signal, rate = music[0][: 2 * music[1]], music[1]
    changed = change_tempo(signal, rate, 1.05)
    quarter = rate // 4
    for piece in (changed[:quarter], changed[-quarter:]):
        assert np.sqrt(np.mean(piece**2)) > 0.3 * np.sqrt(np.mean(signal**2))


def pitch(signal: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    return float(np.argmax(spectrum) * rate / len(signal))


@pytest.mark.parametrize("cents", [-50, 50])
def test_pitch_moves_and_time_does_not(music: tuple[np.ndarray, int], cents: int) -> None:
    rate = music[1]
    tone = np.sin(2 * np.pi * 440 * np.arange(4 * rate) / rate).astype(np.float32)
    assert pitch(change_tempo(tone, rate, 1.05), rate) == pytest.approx(440, abs=1)
    higher = change_pitch(tone, rate, cents)
    assert abs(len(higher) - len(tone)) <= 1
    assert pitch(higher, rate) == pytest.approx(440 * 2 ** (cents / 1200), abs=1)
    # With the pitch taken back, and so the tempo changed, the sound is the same as ever.
    ratio = 2 ** (cents / 1200)
    back = change_speed(change_pitch(music[0][: 10 * rate], rate, cents), 1 / ratio)
    found = delays(music[0][: 10 * rate], back, rate, 1 / ratio)
    assert abs(np.median(found)) < 0.008
