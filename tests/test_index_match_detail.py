from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr

from encoders.audio import load_audio
from encoders.degrade import add_noise
from index.identify import Identifier
from index.match import STEPS, Spectrogram, find_alignments, score_alignments
from index.match.detail import ANY_PITCH, CERTAIN, ENOUGH, SURE, UNKNOWN, compare, strengths
from index.match.scan import scan

RATE = 16_000
TRACK = "palace.ogg"


def recording(identifier: Identifier) -> int:
    names = identifier.index.uris()
    return next(i for i, uri in enumerate(names) if uri.endswith(TRACK))


def spectrogram(identifier: Identifier, clip: np.ndarray) -> Spectrogram:
    return identifier.fingerprint([clip])[1]


def lag_at(spec: Spectrogram, second: float) -> float:
    """Lag in query steps of a clip that begins at a second of the recording."""
    return (second * RATE / 500 - (spec.first - 1)) / spec.per_step


@pytest.mark.parametrize("second", [3.0, 5.17, 11.9])
def test_signs_tell_the_time_to_a_frame(
    identifier: Identifier, signal: np.ndarray, second: float
) -> None:
    clip = signal[round(second * RATE) :][: 2 * RATE]
    mine = spectrogram(identifier, clip)
    whole = (0, len(mine.heard))
    # The lag as it would be a quarter of a second off.
    lag = lag_at(mine, second - 0.25)
    detail = compare(mine, identifier.index, recording(identifier), lag, 1.0, whole)
    assert detail.agreement > 0.5
    assert detail.strength > SURE
    assert detail.move * 0.125 == pytest.approx(0.25, abs=0.032)
    elsewhere = lag_at(mine, second + 4)
    other = compare(mine, identifier.index, recording(identifier), elsewhere, 1.0, whole)
    assert other.agreement < 0.3 * detail.agreement


def test_signs_agree_through_noise(identifier: Identifier, signal: np.ndarray) -> None:
    clip = signal[7 * RATE : 10 * RATE]
    noise = np.random.default_rng(1).normal(size=len(clip)).astype(np.float32)
    mine = spectrogram(identifier, add_noise(clip, noise, 6.0))
    detail = compare(
        mine, identifier.index, recording(identifier), lag_at(mine, 7), 1.0, (0, len(mine.heard))
    )
    assert detail.strength > SURE


@pytest.mark.parametrize("speed", [0.95, 1.05])
def test_another_pitch_is_looked_for(
    identifier: Identifier, signal: np.ndarray, speed: float
) -> None:
    faster = soxr.resample(signal[6 * RATE : 12 * RATE], RATE * speed, RATE)
    mine = spectrogram(identifier, faster[: 4 * RATE])
    # Frames before the clip pass at speed 1 of the query.
    lag = 6 * RATE / 500 / mine.per_step - speed * (mine.first - 1) / mine.per_step
    whole = (0, len(mine.heard))
    detail = compare(mine, identifier.index, recording(identifier), lag, speed, whole, ANY_PITCH)
    assert detail.strength > SURE
    assert detail.pitch == pytest.approx(speed, abs=0.011)


def test_all_places_at_once_say_what_each_says(identifier: Identifier, signal: np.ndarray) -> None:
    mine = spectrogram(identifier, signal[4 * RATE : 6 * RATE])
    right = round(lag_at(mine, 4))
    lags = np.array([right, right + 24, right + 1])
    recordings = np.full(3, recording(identifier))
    steps = np.full(3, 2 * STEPS)
    found = strengths(mine, identifier.index, recordings, lags, steps, 1000)
    assert found[0] > ENOUGH
    assert found[2] == pytest.approx(found[0], abs=0.01)
    assert found[1] < found[0]
    for lag, strength in zip(lags, found, strict=True):
        detail = compare(
            mine, identifier.index, recording(identifier), float(lag), 1.0, (0, len(mine.heard))
        )
        assert detail.strength >= strength - 1e-6


@pytest.mark.parametrize("second", [4.0, 17.3])
def test_signs_alone_find_the_place(
    identifier: Identifier, signal: np.ndarray, second: float
) -> None:
    clip = signal[round(second * RATE) :][:RATE]
    noise = np.random.default_rng(2).normal(size=RATE).astype(np.float32)
    mine = spectrogram(identifier, add_noise(clip, noise, 3.0))
    found, lag = scan(mine, identifier.index, 4)[0]
    assert found == recording(identifier)
    assert lag * mine.per_step == pytest.approx(lag_at(mine, second) * mine.per_step, abs=1.5)


def test_signs_of_a_large_index_are_not_looked_through(
    identifier: Identifier, signal: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.match.scan.MAX_ROWS", identifier.index.info.n_rows - 1)
    assert scan(spectrogram(identifier, signal[:RATE]), identifier.index, 4) == []


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_what_is_absent_is_not_found_by_its_signs(identifier: Identifier, seconds: float) -> None:
    hiss = np.random.default_rng(3).normal(size=round(seconds * RATE)).astype(np.float32)
    queries, mine, _ = identifier.fingerprint([0.1 * hiss])
    found = find_alignments(queries, identifier.index, spectrogram=mine, second=lambda: queries)
    assert all(a.detail.strength < CERTAIN for a in found)


def test_a_clip_whose_fingerprints_say_nothing_is_found_by_its_signs(
    identifier: Identifier, signal: np.ndarray
) -> None:
    queries, mine, _ = identifier.fingerprint([signal[9 * RATE : 10 * RATE]])
    others = np.random.default_rng(4).normal(size=queries.shape).astype(np.float32)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    found = find_alignments(others, identifier.index, spectrogram=mine, second=lambda: others)
    assert found[0].recording == recording(identifier)
    assert found[0].lag == pytest.approx(lag_at(mine, 9), abs=0.3)


def test_signs_that_cannot_be_chance_outrank_fingerprints(
    identifier: Identifier, signal: np.ndarray, demo_tracks: Path
) -> None:
    _, mine, _ = identifier.fingerprint([signal[9 * RATE : 10 * RATE]])
    other = load_audio(demo_tracks / "eureka.m4a", RATE)[5 * RATE : 6 * RATE]
    queries, _, _ = identifier.fingerprint([other])
    found = find_alignments(queries, identifier.index, spectrogram=mine, second=lambda: queries)
    likest = max(found, key=lambda a: a.similarity)
    assert likest.recording != recording(identifier)
    calibration = identifier.bundle.calibration
    scored = score_alignments(queries, found, identifier.index, calibration, mine)
    assert scored[0].alignment.recording == recording(identifier)
    assert scored[0].score == max(s.score for s in scored)


def test_beyond_a_recording_and_in_silence_nothing_agrees(
    identifier: Identifier, signal: np.ndarray
) -> None:
    mine = spectrogram(identifier, signal[: 2 * RATE])
    whole = (0, len(mine.heard))
    for second in (-30.0, 1000.0):
        lag = lag_at(mine, second)
        detail = compare(mine, identifier.index, recording(identifier), lag, 1.0, whole)
        assert detail.agreement == 0
    quiet = spectrogram(identifier, np.zeros(2 * RATE, np.float32))
    assert compare(quiet, identifier.index, 0, 0.0, 1.0, (0, len(quiet.heard))) is UNKNOWN


def test_signs_put_the_right_place_first(identifier: Identifier, signal: np.ndarray) -> None:
    clip = signal[9 * RATE : 10 * RATE + RATE // 2]
    noise = np.random.default_rng(2).normal(size=len(clip)).astype(np.float32)
    queries, mine, _ = identifier.fingerprint([add_noise(clip, noise, -3.0)])
    found = find_alignments(queries, identifier.index, spectrogram=mine)
    assert found == sorted(found, key=lambda a: -a.likeness)
    best = found[0]
    assert best.recording == recording(identifier)
    assert best.lag * 0.125 + (mine.first - 1) * 500 / RATE == pytest.approx(9, abs=0.05)
