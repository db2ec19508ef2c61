"""The quick look at long queries, and the time that signs tell."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from encoders.degrade import add_noise, change_speed, change_tempo, reverberate, shipped_rooms
from index.identify import Identifier
from index.match import EDGE, QUICK_FROM, find_alignments, look_quickly
from index.schema import Match

RATE = 16_000
TRACK = "palace.ogg"


def cut(signal: np.ndarray, second: float, seconds: float) -> np.ndarray:
    return signal[round(second * RATE) :][: round(seconds * RATE)]


def hiss(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=n).astype(np.float32)


def begins(match: Match) -> float:
    """Where in the reference the query begins, s."""
    return match.reference_start_s - match.query_start_s


@pytest.mark.parametrize("seconds", [4.5, 10.0, 20.3])
def test_between_two_windows_is_their_mean(
    identifier: Identifier, signal: np.ndarray, seconds: float
) -> None:
    clip = cut(signal, 2.0, seconds)
    every, _, _ = identifier.fingerprint([clip])
    coarse, _, _ = identifier.fingerprint([clip], coarse=True)
    between = np.zeros(len(every), bool)
    between[EDGE + 1 : -EDGE : 2] = True
    np.testing.assert_array_equal(coarse[~between], every[~between])
    assert not np.any(np.all(coarse[between] == every[between], axis=1))
    np.testing.assert_allclose(np.linalg.norm(coarse, axis=1), 1.0, rtol=1e-5)
    assert np.median(np.einsum("nd,nd->n", coarse, every)[between]) > 0.9


def test_silence_stays_silent_between_windows(identifier: Identifier, signal: np.ndarray) -> None:
    clip = cut(signal, 2.0, 10.0)
    clip = clip.copy()
    clip[4 * RATE : 7 * RATE] = 0.0
    every, _, _ = identifier.fingerprint([clip])
    coarse, _, _ = identifier.fingerprint([clip], coarse=True)
    silent = ~every.any(axis=1)
    assert silent.sum() > 10
    assert not coarse[silent].any()
    assert np.count_nonzero(~coarse.any(axis=1)) <= silent.sum() + 2


def test_a_short_query_is_encoded_whole(identifier: Identifier, signal: np.ndarray) -> None:
    clip = cut(signal, 2.0, 3.0)
    every, mine, _ = identifier.fingerprint([clip])
    assert len(every) <= QUICK_FROM
    np.testing.assert_array_equal(identifier.fingerprint([clip], coarse=True)[0], every)
    assert look_quickly(every, identifier.index, mine) == []


def test_a_quick_look_is_enough_for_what_is_certain(
    identifier: Identifier, signal: np.ndarray
) -> None:
    clip = cut(signal, 3.3, 8.0)
    every, mine, _ = identifier.fingerprint([clip])
    coarse, _, _ = identifier.fingerprint([clip], coarse=True)
    quick = look_quickly(coarse, identifier.index, mine)[0]
    thorough = find_alignments(every, identifier.index, spectrogram=mine)[0]
    assert quick.recording == thorough.recording
    assert quick.lag == pytest.approx(thorough.lag, abs=0.5)
    assert quick.similarity == pytest.approx(thorough.similarity, abs=0.06)


def test_what_a_quick_look_does_not_explain_is_encoded_whole(
    identifier: Identifier, signal: np.ndarray
) -> None:
    # Two recordings, and one in much noise.
    half = np.concatenate([cut(signal, 3.0, 5.0), 0.1 * hiss(5 * RATE)])
    clip = cut(signal, 3.0, 8.0)
    for query in (half, 0.1 * hiss(8 * RATE), add_noise(clip, hiss(len(clip)), -12.0)):
        coarse, mine, _ = identifier.fingerprint([query], coarse=True)
        assert look_quickly(coarse, identifier.index, mine) == []
        every, _, _ = identifier.fingerprint([query])
        found = find_alignments(
            every,
            identifier.index,
            spectrogram=mine,
            second=functools.partial(identifier._flattened, mine),
        )
        scored, _ = identifier.candidates([query])
        assert {s.alignment.recording for s in scored} <= {a.recording for a in found}
        assert scored[0].alignment.similarity == pytest.approx(found[0].similarity, abs=1e-5)


@pytest.mark.parametrize("second", [3.0, 5.171, 11.913])
@pytest.mark.parametrize("seconds", [2.0, 8.0])
def test_the_time_is_told_to_a_fraction_of_a_frame(
    identifier: Identifier, signal: np.ndarray, second: float, seconds: float
) -> None:
    clip = cut(signal, second, seconds)
    for query in (clip, add_noise(clip, hiss(len(clip)), 5.0)):
        match = identifier.identify(query, RATE, threshold=0)[0]
        # Half a frame.
        assert begins(match) == pytest.approx(second, abs=0.0156)


@pytest.mark.parametrize("speed", [0.94, 0.97, 1.03, 1.06])
@pytest.mark.parametrize("pitch_too", [True, False])
def test_speed_and_tempo_are_told(
    identifier: Identifier, signal: np.ndarray, speed: float, pitch_too: bool
) -> None:
    clip = cut(signal, 4.2, 10.0)
    query = change_speed(clip, speed) if pitch_too else change_tempo(clip, RATE, speed)
    match = identifier.identify(query, RATE, top=1)[0]
    assert match.reference.endswith(TRACK)
    assert match.speed == pytest.approx(speed, abs=0.005)
    assert match.reference_start_s is not None
    assert match.query_start_s is not None
    begin = match.reference_start_s - match.speed * match.query_start_s
    assert begin == pytest.approx(4.2, abs=0.06)


def test_rooms_hardly_make_it_late(identifier: Identifier, signal: np.ndarray) -> None:
    errors = []
    for number, response in enumerate(shipped_rooms()):
        second = 3.013 + 1.37 * number
        match = identifier.identify(reverberate(cut(signal, second, 4.0), response), RATE, top=1)
        errors += [begins(m) - second for m in match]
    assert len(errors) >= 0.8 * len(shipped_rooms())
    assert np.median(np.abs(errors)) < 0.025
