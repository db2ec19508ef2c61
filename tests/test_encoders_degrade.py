"""What the world does to sound keeps its time, and does what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.fft

from encoders.degrade import (
    CODECS,
    World,
    add_noise,
    babble,
    change_speed,
    clip_peaks,
    colored_noise,
    control_gain,
    drone,
    drop_out,
    filter_response,
    microphone,
    reverberate,
    shipped_rooms,
    simulate_rooms,
    transcode,
)

RATE = 16_000
SIX_MS = 96
"""The look-ahead of the speech codecs; a frame is 31 ms, so that no frame moves."""

Degrade = Callable[[np.ndarray, int], np.ndarray]

WAYS: dict[str, Degrade] = {
    "noise": lambda x, seed: add_noise(x, white(len(x), seed), 5.0),
    "room": lambda x, seed: reverberate(x, shipped_rooms()[seed % len(shipped_rooms())]),
    "microphone": lambda x, seed: microphone(x, RATE, np.random.default_rng(seed)),
    "gain control": lambda x, seed: control_gain(x, RATE, 0.8),
    "clipping": lambda x, seed: clip_peaks(x, 0.02),
    "dropouts": lambda x, seed: drop_out(x, RATE, np.random.default_rng(seed)),
    "equalizer": lambda x, seed: filter_response(x, np.linspace(1.0, 0.1, 65)),
    # Without its rooms: under noise, the correlation takes a reflection for the direct sound.
    "world": lambda x, seed: world(p_room=0.0)(x, np.random.default_rng(seed)),
    **{name: lambda x, seed, name=name: transcode(x, RATE, name) for name in CODECS},
}


def white(n_samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(n_samples, dtype=np.float32)


PARTS = ("room", "noise", "agc", "microphone", "clip", "codec", "dropout")
OFF = {f"p_{part}": 0.0 for part in PARTS}


def world(**settings: Any) -> World:
    return World(RATE, [], shipped_rooms(), **settings)


class Tone:
    """A source of one frequency; remembers how often it was asked."""

    def __init__(self, hz: float) -> None:
        self.hz = hz
        self.n_asked = 0

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        self.n_asked += 1
        phase = rng.uniform(0, 2 * np.pi)
        t = np.arange(n_samples) / RATE
        return np.sin(2 * np.pi * self.hz * t + phase).astype(np.float32)


@pytest.fixture(scope="module")
def clip(music: tuple[np.ndarray, int]) -> np.ndarray:
    """3 s of music."""
    return music[0][8 * RATE : 11 * RATE]


def lag(before: np.ndarray, after: np.ndarray) -> int:
    """Samples by which ``after`` is late: the peak of the phase correlation (GCC-PHAT)."""
    size = scipy.fft.next_fast_len(2 * len(before), real=True)
    cross = scipy.fft.rfft(after, size) * np.conj(scipy.fft.rfft(before, size))
    frequencies = scipy.fft.rfftfreq(size, 1 / RATE)
    heard = (frequencies > 300) & (frequencies < 3000)  # Every codec passes these.
    correlation = scipy.fft.irfft(np.where(heard, cross / (np.abs(cross) + 1e-12), 0), size)
    at = int(np.argmax(np.abs(correlation)))
    return at if at < size // 2 else at - size


def band_power(signal: np.ndarray, low: float, high: float) -> float:
    """Power between two frequencies in Hz."""
    frequencies = np.fft.rfftfreq(len(signal), 1 / RATE)
    spectrum = np.abs(np.fft.rfft(signal)) ** 2
    return float(spectrum[(frequencies >= low) & (frequencies < high)].sum())


def test_lag_measures() -> None:
    noise = white(RATE)
    assert lag(noise, np.concatenate([np.zeros(120, np.float32), noise[:-120]])) == 120


@pytest.mark.parametrize("name", WAYS)
def test_length_type_and_time_stay(name: str, clip: np.ndarray) -> None:
    before = clip.copy()
    after = WAYS[name](clip, 3)
    assert after.shape == clip.shape
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
    assert abs(lag(clip, after)) <= SIX_MS
    assert not np.array_equal(after, clip)
    np.testing.assert_array_equal(clip, before)  # Its input is left alone.


@pytest.mark.parametrize("name", WAYS)
def test_silence_stays_quiet(name: str) -> None:
    after = WAYS[name](np.zeros(RATE, np.float32), 3)
    assert after.shape == (RATE,)
    assert np.abs(after).max() < 1e-3  # GSM's idle noise is 5e-4.


@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 12.5])
def test_noise_has_the_asked_ratio(snr_db: float, clip: np.ndarray) -> None:
    added = add_noise(clip, white(len(clip)), snr_db) - clip
    power_ratio = np.mean(np.square(clip, dtype=np.float64)) / np.mean(np.square(added, dtype="f8"))
    assert 10 * np.log10(power_ratio) == pytest.approx(snr_db, abs=1e-3)


def test_silent_noise_adds_nothing(clip: np.ndarray) -> None:
    np.testing.assert_array_equal(add_noise(clip, np.zeros_like(clip), 0.0), clip)


@pytest.mark.parametrize(("exponent", "db_per_octave"), [(0.0, 0.0), (1.0, -3.01), (2.0, -6.02)])
def test_colored_noise_has_its_slope(exponent: float, db_per_octave: float) -> None:
    noise = colored_noise(8 * RATE + 1, exponent, np.random.default_rng(0))
    assert noise.shape == (8 * RATE + 1,)
    assert noise.dtype == np.float32
    # Density in two bands whose centres are three octaves apart.
    ratio = band_power(noise, 3800, 4200) / band_power(noise, 475, 525) / 8
    assert 10 * np.log10(ratio) / 3 == pytest.approx(db_per_octave, abs=0.2)


def test_a_drone_has_the_spectrum_and_no_events() -> None:
    # A tone, and a click every half second.
    t = np.arange(4 * RATE) / RATE
    sound = (0.1 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    sound[:: RATE // 2] += 1.0
    smeared = drone(sound, np.random.default_rng(0))
    assert smeared.shape == sound.shape
    assert smeared.dtype == np.float32
    assert len(sound) == scipy.fft.next_fast_len(len(sound), real=True)
    # The first and the last are real: they have no phase to choose.
    spectra = [np.abs(scipy.fft.rfft(x))[1:-1] for x in (smeared, sound)]
    np.testing.assert_allclose(*spectra, atol=0.5)
    assert np.abs(smeared).max() < 0.5 * np.abs(sound).max()


def test_flat_response_changes_nothing(clip: np.ndarray) -> None:
    odd = clip[:30_011]  # A prime: the transform is longer than the signal.
    np.testing.assert_allclose(filter_response(odd, np.ones(65)), odd, atol=1e-6)


def test_response_has_gain_by_frequency_and_no_delay() -> None:
    signal = white(4 * RATE)
    after = filter_response(signal, np.array([1.0, 1.0, 0.1, 0.1, 0.1]))  # 0, 2, 4, 6, 8 kHz
    assert band_power(after, 200, 1800) == pytest.approx(band_power(signal, 200, 1800), rel=0.01)
    high = band_power(after, 5000, 7500) / band_power(signal, 5000, 7500)
    assert high == pytest.approx(0.01, rel=0.01)
    assert lag(signal, after) == 0


def test_microphone_limits_the_band_and_bends_peaks(clip: np.ndarray) -> None:
    noise = white(4 * RATE)
    for seed in range(4):
        after = microphone(noise, RATE, np.random.default_rng(seed))
        middle = band_power(after, 500, 2500) / band_power(noise, 500, 2500)
        assert band_power(after, 0, 40) / band_power(noise, 0, 40) < 0.2 * middle
    # Soft clipping makes overtones where a pure tone had none.
    tone = 0.5 * np.sin(2 * np.pi * 700 * np.arange(RATE) / RATE).astype(np.float32)
    heard = microphone(tone, RATE, np.random.default_rng(0))
    assert band_power(heard, 2050, 2150) > 1e3 * band_power(tone, 2050, 2150)


def test_gain_control_evens_out_the_level() -> None:
    soft_and_loud = white(4 * RATE) * np.repeat(np.float32([0.1, 1.0]), 2 * RATE)

    def step_db(signal: np.ndarray) -> float:
        soft, loud = signal[RATE // 2 : 3 * RATE // 2], signal[5 * RATE // 2 : 7 * RATE // 2]
        return 20 * float(np.log10(np.std(loud) / np.std(soft)))

    assert step_db(soft_and_loud) == pytest.approx(20.0, abs=0.2)
    np.testing.assert_allclose(control_gain(soft_and_loud, RATE, 0.0), soft_and_loud, rtol=1e-6)
    assert step_db(control_gain(soft_and_loud, RATE, 0.5)) == pytest.approx(10.0, abs=0.5)
    assert step_db(control_gain(soft_and_loud, RATE, 1.0)) == pytest.approx(0.0, abs=0.5)
    # What is all but silent is not blown up without end.
    soft_and_loud[: 2 * RATE] *= np.float32(1e-4)
    assert step_db(control_gain(soft_and_loud, RATE, 1.0)) > 40


@pytest.mark.parametrize("share", [0.005, 0.05])
def test_clipping_cuts_the_asked_share(share: float, clip: np.ndarray) -> None:
    after = clip_peaks(clip, share)
    changed = after != clip
    assert changed.mean() == pytest.approx(share, abs=2e-4)
    limit = np.abs(after).max()
    np.testing.assert_array_equal(np.abs(after[changed]), limit)
    assert np.abs(clip[~changed]).max() <= limit


def test_dropouts_are_short_gaps_of_silence() -> None:
    sound = np.ones(60 * RATE, np.float32)
    after = drop_out(sound, RATE, np.random.default_rng(0))
    edges = np.flatnonzero(np.diff(np.concatenate([[1], after, [1]])))
    gaps = (edges[1::2] - edges[::2]) / RATE
    assert 35 < len(gaps) < 85  # About one a second; some run into each other.
    assert 0.02 <= np.median(gaps) <= 0.12
    assert gaps.max() < 0.4
    np.testing.assert_array_equal(after[after != 0], 1.0)


def test_empty_signals_stay_empty() -> None:
    nothing = np.empty(0, np.float32)
    assert clip_peaks(nothing, 0.1).shape == (0,)
    assert drop_out(nothing, RATE, np.random.default_rng(0)).shape == (0,)
    assert transcode(nothing, RATE, "gsm").shape == (0,)


def test_babble_is_several_voices_of_about_one_level() -> None:
    class Choir:
        """Every excerpt is another tone."""

        def __init__(self) -> None:
            self.tones = [Tone(hz) for hz in (500, 1000, 2000, 4000)]

        def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
            return self.tones.pop(0).excerpt(n_samples, rng)

    def levels(n_voices: int, seed: int) -> np.ndarray:
        mix = babble(Choir(), RATE, n_voices, np.random.default_rng(seed))
        assert mix.shape == (RATE,)
        assert mix.dtype == np.float32
        powers = [band_power(mix, hz - 5, hz + 5) for hz in (500, 1000, 2000, 4000)]
        return 10 * np.log10(np.array(powers) / powers[0] + 1e-9)

    for n_voices in (1, 2, 4):
        found = levels(n_voices, seed=n_voices)
        assert (np.abs(found[:n_voices]) < 12).all()
        assert (found[n_voices:] < -60).all()
    np.testing.assert_array_equal(levels(4, seed=0), levels(4, seed=0))
    assert not np.array_equal(levels(4, seed=0), levels(4, seed=1))


def test_direct_sound_keeps_its_place_and_level() -> None:
    click = np.zeros(RATE, np.float32)
    click[4000] = 0.5
    late = np.zeros(2000, np.float32)
    late[300], late[900] = -1.0, 0.4  # The strongest tap is not the first, and is negative.
    after = reverberate(click, late)
    assert int(np.argmax(np.abs(after))) == 4000
    assert after[4000] == pytest.approx(-0.5, abs=1e-5)
    assert after[4600] == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize("speed", [0.8, 0.96, 1.04, 1.25])
def test_speed_moves_pitch_and_length(speed: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    played = change_speed(tone, speed)
    assert played.dtype == np.float32
    assert abs(len(played) - len(tone) / speed) <= 1
    peak = int(np.argmax(np.abs(np.fft.rfft(played * np.hanning(len(played))))))
    assert peak * RATE / len(played) == pytest.approx(1000 * speed, abs=1.0)


def test_speed_keeps_time(clip: np.ndarray) -> None:
    click = np.zeros(RATE, np.float32)
    click[12_000] = 1.0
    assert int(np.argmax(np.abs(change_speed(click, 1.25)))) == pytest.approx(9600, abs=2)
    assert int(np.argmax(np.abs(change_speed(click, 1.04)))) == pytest.approx(11_538, abs=2)


# The share of white noise above a frequency that is left.
@pytest.mark.parametrize(
    ("codec", "above_hz", "left"),
    [
        ("mp3-64k", 7000, 0.8),
        ("mp3-24k", 7000, 0.01),
        ("opus-12k", 7000, 0.5),
        ("opus-6k", 5000, 0.01),
        ("amr-12k", 4200, 1e-3),
        ("gsm", 4200, 1e-3),
    ],
)
def test_a_codec_limits_the_band(codec: str, above_hz: float, left: float) -> None:
    noise = white(2 * RATE)
    after = transcode(noise, RATE, codec)
    assert band_power(after, above_hz, 8000) < left * band_power(noise, above_hz, 8000)
    # It is there where speech is: this is a codec, not a mute button.
    assert band_power(after, 500, 3000) > 0.4 * band_power(noise, 500, 3000)


def test_every_codec_is_measured_and_costs_quality(clip: np.ndarray) -> None:
    error_db = {}
    for codec in CODECS:
        error = transcode(clip, RATE, codec) - clip
        error_db[codec] = 10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(clip)))
    assert all(value > -35 for value in error_db.values()), error_db
    # Fewer bits, more error.
    assert error_db["mp3-24k"] > error_db["mp3-64k"] + 2
    assert error_db["opus-6k"] > error_db["opus-12k"] + 2


def test_a_codec_keeps_the_sound(clip: np.ndarray) -> None:
    for codec in set(CODECS) - {"amr-12k"}:  # AMR does not keep the waveform.
        assert np.corrcoef(transcode(clip, RATE, codec), clip)[0, 1] > 0.8, codec


def test_shipped_rooms_start_with_the_direct_sound() -> None:
    rooms = shipped_rooms()
    assert rooms.dtype == np.float32
    assert rooms.shape == (12, RATE)
    check_rooms(rooms)
    times = sorted(reverberation_time(room) for room in rooms)
    assert 0.15 < times[0] < 0.4
    assert 0.9 < times[-1] < 1.3


def test_simulated_rooms() -> None:
    pytest.importorskip("pyroomacoustics")
    rooms = simulate_rooms(2, RATE, seed=5)
    assert rooms.shape == (2, RATE)
    assert rooms.dtype == np.float32
    check_rooms(rooms)
    np.testing.assert_array_equal(rooms, simulate_rooms(2, RATE, seed=5))
    assert not np.array_equal(rooms, simulate_rooms(2, RATE, seed=6))


def reverberation_time(response: np.ndarray) -> float:
    """RT60 in seconds from the decay between -5 and -25 dB (Schroeder, 1965; ISO 3382, T20)."""
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    decay = 10 * np.log10(left / left[0] + 1e-12)
    return 3 * float(np.argmax(decay < -25) - np.argmax(decay < -5)) / RATE


def check_rooms(rooms: np.ndarray) -> None:
    np.testing.assert_array_equal(rooms[:, 0], 1.0)
    assert (np.abs(rooms) <= 1.0).all()
    energy = np.square(rooms, dtype=np.float64)
    assert (energy[:, 100:].sum(axis=1) > 0.02).all()  # It rings
    assert (energy[:, 12_000:].sum(axis=1) < 0.01 * energy[:, :4000].sum(axis=1)).all()  # and dies.
    assert not np.allclose(rooms[0], rooms[1])


def test_the_world_is_random_and_repeatable(clip: np.ndarray) -> None:
    versions = [world()(clip, np.random.default_rng(seed)) for seed in range(6)]
    again = world()(clip, np.random.default_rng(3))
    np.testing.assert_array_equal(again, versions[3])
    for i, a in enumerate(versions):
        for b in versions[:i]:
            assert not np.array_equal(a, b)


def test_a_world_without_anything_is_silent_about_it(clip: np.ndarray) -> None:
    np.testing.assert_array_equal(world(**OFF)(clip, np.random.default_rng(0)), clip)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_world_acts(part: str, clip: np.ndarray) -> None:
    changed = world(**OFF | {f"p_{part}": 1.0})(clip, np.random.default_rng(1))
    assert not np.allclose(changed, clip, atol=1e-3)


def added_by(noisy: World, clip: np.ndarray, seed: int) -> np.ndarray:
    """What a world of nothing but noise at 0 dB mixes in."""
    added = noisy(clip, np.random.default_rng(seed)) - clip
    assert np.mean(np.square(clip)) / np.mean(np.square(added)) == pytest.approx(1.0, rel=1e-3)
    return added


def test_the_world_uses_its_noises_and_voices(clip: np.ndarray) -> None:
    hum, voice = Tone(1234), Tone(500)
    only_noise = OFF | {"p_noise": 1.0, "p_second": 0.0}
    noisy = World(RATE, [hum], shipped_rooms(), [voice], (0.0, 0.0), **only_noise)
    shares: dict[str, list[float]] = {"hum": [], "voice": []}
    for seed in range(16):
        added = added_by(noisy, clip, seed)
        total = band_power(added, 0, 8000)
        shares["hum"].append(band_power(added, 1230, 1238) / total)
        shares["voice"].append(band_power(added, 496, 504) / total)
    # Now the hum, now voices (one or more), now the coloured noise that is always among them.
    for name in shares:
        assert max(shares[name]) > 0.95
        assert min(shares[name]) < 0.1
    assert min(h + v for h, v in zip(*shares.values(), strict=True)) < 0.1
    assert voice.n_asked > sum(share > 0.95 for share in shares["voice"])


def test_a_second_background_is_under_the_first(clip: np.ndarray) -> None:
    tones = [Tone(1000), Tone(3000)]
    both = OFF | {"p_noise": 1.0, "p_second": 1.0}
    noisy = World(RATE, tones, shipped_rooms(), (), (0.0, 0.0), **both)
    apart_db = []
    for seed in range(24):
        added = added_by(noisy, clip, seed)
        low, high = band_power(added, 995, 1005), band_power(added, 2995, 3005)
        if low + high > 0.98 * band_power(added, 0, 8000) and min(low, high) > 1e-3 * max(
            low, high
        ):
            apart_db.append(abs(10 * np.log10(low / high)))
    assert apart_db  # Both tones at once,
    assert max(apart_db) < 10.5  # the softer one up to 10 dB below.
