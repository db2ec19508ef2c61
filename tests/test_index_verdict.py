"""Kinds of duplicates, and what must not be taken for one, on real sound."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from conftest import ROOT, SAMPLE_RATE
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.audio import load_audio
from encoders.degrade import add_noise, change_pitch, change_speed, colored_noise, transcode
from encoders.sketch import FRAMES_PER_SECOND, SKETCH_SPEC, sketch
from index.compare import align, best_lag, best_stretch, compare
from index.schema import DuplicateKind
from index.sound import Sound
from index.verdict import Proposal, Verdict, judge
from index.verdict_windows import judge_windows

TRACKS = ROOT / "pipelines" / "demo_tracks"


@functools.cache
def track(name: str) -> np.ndarray:
    return load_audio(TRACKS / name, SAMPLE_RATE)


def cut(signal: np.ndarray, start: float, end: float) -> np.ndarray:
    return signal[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def sound(signal: np.ndarray) -> Sound:
    return Sound(sketch([signal.astype(np.float32)]))


def verdict(a: np.ndarray, b: np.ndarray, lag: float = 0.0, speed: float = 1.0) -> Verdict | None:
    return judge(sound(a), sound(b), [Proposal(lag, speed)])


@pytest.fixture
def base() -> np.ndarray:
    return cut(track("palace.ogg"), 5, 25)


def assert_is(found: Verdict | None, kind: DuplicateKind) -> Verdict:
    assert found is not None
    assert found.kind == kind, found.reason
    return found


@pytest.mark.parametrize("codec", ["mp3-64k", "mp3-24k"])
def test_a_codec_and_a_gain_leave_the_same_audio(base: np.ndarray, codec: str) -> None:
    coded = transcode(base * np.float32(0.25), SAMPLE_RATE, codec)
    found = assert_is(verdict(base, coded), DuplicateKind.SAME_AUDIO)
    assert found.coverage > 0.99
    assert found.speed == 1.0
    assert found.a_start_s == pytest.approx(found.b_start_s, abs=0.01)
    assert "gain -12" in found.reason


def test_silence_around_and_a_trim_leave_the_same_audio(base: np.ndarray) -> None:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    padded = np.concatenate([silence, cut(base, 0.3, 20), silence])
    found = assert_is(verdict(base, padded, lag=0.5), DuplicateKind.SAME_AUDIO)
    assert found.b_start_s == pytest.approx(1.0, abs=0.03)
    assert found.a_start_s == pytest.approx(0.3, abs=0.03)


def test_what_is_trimmed_before_a_pause_counts_for_what_sounded(base: np.ndarray) -> None:
    paused = base.copy()
    paused[round(0.3 * SAMPLE_RATE) : round(0.8 * SAMPLE_RATE)] = 0
    trimmed = cut(paused, 0.3, len(paused) / SAMPLE_RATE)
    assert_is(verdict(paused, trimmed, -0.3), DuplicateKind.SAME_AUDIO)
    # Much that sounds is missing.
    paused[: SAMPLE_RATE // 2] = base[: SAMPLE_RATE // 2]
    paused[SAMPLE_RATE // 2 : 2 * SAMPLE_RATE] = 0
    brief = cut(paused, 1.0, len(paused) / SAMPLE_RATE)
    assert_is(
        verdict(np.concatenate([base[:SAMPLE_RATE], paused]), brief, -2.0), DuplicateKind.EXCERPT
    )


def test_an_excerpt_lies_inside(base: np.ndarray) -> None:
    inside = transcode(cut(base, 6.4, 14.4), SAMPLE_RATE, "mp3-64k")
    found = assert_is(verdict(base, inside, lag=-6.0), DuplicateKind.EXCERPT)
    assert (found.a_start_s, found.a_end_s) == pytest.approx((6.4, 14.4), abs=0.05)
    assert (found.b_start_s, found.b_end_s) == pytest.approx((0, 8), abs=0.05)
    assert found.coverage > 0.98


def test_an_overlap_tells_how_long_it_is(base: np.ndarray) -> None:
    other = np.concatenate([cut(base, 12, 20), cut(track("hacienda.mp3"), 2, 14)])
    found = assert_is(verdict(base, other, lag=-12.2), DuplicateKind.OVERLAP)
    assert found.a_end_s - found.a_start_s == pytest.approx(8.0, abs=0.3)
    assert found.a_start_s == pytest.approx(12.0, abs=0.1)


def test_a_loop_shared_by_two_pieces_is_an_overlap_not_the_same_audio(base: np.ndarray) -> None:
    loop = cut(track("chaos-god.ogg"), 3, 6)
    first = np.concatenate([cut(base, 0, 8), loop])
    second = np.concatenate([loop, cut(track("eureka.m4a"), 3, 10)])
    found = assert_is(verdict(first, second, lag=-8.0), DuplicateKind.OVERLAP)
    assert found.a_end_s - found.a_start_s == pytest.approx(3.0, abs=0.3)


def test_two_pieces_spliced_overlap_with_both(base: np.ndarray) -> None:
    other = cut(track("hacienda.mp3"), 2, 18)
    spliced = np.concatenate([cut(base, 4, 12), cut(other, 3, 11)])
    for whole, at, lag in ((base, 0.0, 4.0), (other, 8.0, -5.0)):
        proposal = Proposal(lag + 0.2, 1.0, at, at + 8)
        found = judge(sound(spliced), sound(whole), [proposal])
        found = assert_is(found, DuplicateKind.OVERLAP)
        assert (found.a_start_s, found.a_end_s) == pytest.approx((at, at + 8), abs=0.2)
        assert found.b_start_s == pytest.approx(at + lag, abs=0.2)


def test_a_pause_of_the_voice_on_top_is_no_overlap(base: np.ndarray) -> None:
    voice = np.resize(track("ezer-ev.opus"), len(base))
    voice[10 * SAMPLE_RATE : 15 * SAMPLE_RATE] = 0
    proposal = Proposal(0.0, 1.0, 10.0, 15.0)
    found = judge(sound(base), sound(add_noise(base, voice, 3.0)), [proposal])
    assert_is(found, DuplicateKind.NEAR)


def test_speech_or_noise_on_top_is_near(base: np.ndarray) -> None:
    voices = np.resize(track("restaurant.ogg"), len(base))
    assert_is(verdict(base, add_noise(base, voices, 6.0)), DuplicateKind.NEAR)
    noise = colored_noise(len(base), 1.0, np.random.default_rng(0))
    assert_is(verdict(base, add_noise(base, noise, 6.0)), DuplicateKind.NEAR)


def test_one_word_on_top_is_near() -> None:
    # Over forty seconds it weighs less than what a codec does to them.
    base = cut(track("hacienda.mp3"), 0, 40)
    word = np.zeros_like(base)
    word[30 * SAMPLE_RATE : 31 * SAMPLE_RATE] = cut(track("ezer-ev.opus"), 4, 5)
    word *= 0.5 * np.abs(base).max() / np.abs(word).max()
    assert_is(verdict(base, transcode(base, SAMPLE_RATE, "mp3-24k")), DuplicateKind.SAME_AUDIO)
    assert_is(verdict(base, transcode(base + word, SAMPLE_RATE, "mp3-24k")), DuplicateKind.NEAR)


@pytest.mark.parametrize("speed", [1.01, 0.95, 1.05])
def test_another_speed_is_near_and_told(base: np.ndarray, speed: float) -> None:
    found = assert_is(
        verdict(base, change_speed(base, speed), speed=round(1 / speed, 2)), DuplicateKind.NEAR
    )
    assert found.speed == pytest.approx(1 / speed, abs=0.002)


@pytest.mark.parametrize("semitones", [-1, 1])
def test_another_pitch_is_near(base: np.ndarray, semitones: int) -> None:
    shifted = change_pitch(base, SAMPLE_RATE, 100.0 * semitones)
    found = assert_is(verdict(base, shifted), DuplicateKind.NEAR)
    assert found.speed == pytest.approx(1.0, abs=0.002)
    assert f"pitch {'+' if semitones > 0 else '-'}" in found.reason


@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.2])
def test_short_sounds_are_compared_by_what_they_have(seconds: float) -> None:
    word = cut(track("ezer-ev.opus"), 4.0, 4.0 + seconds)
    trimmed = transcode(word[round(0.05 * SAMPLE_RATE) :], SAMPLE_RATE, "mp3-64k")
    found = assert_is(verdict(word, trimmed), DuplicateKind.SAME_AUDIO)
    assert found.a_start_s == pytest.approx(found.b_start_s + 0.05, abs=0.01)


def test_neighbouring_sounds_of_one_source_are_not_duplicates() -> None:
    # Notes of a music box, bars of a guitar, moments of one room.
    for name in ("musicbox.mp3", "hacienda.mp3", "restaurant.ogg", "ezer-ev.opus"):
        pieces = [sound(cut(track(name), at, at + 0.8)) for at in np.arange(2.0, 12.0, 1.0)]
        for i, a in enumerate(pieces):
            for b in pieces[i + 1 :]:
                assert judge(a, b, [Proposal(0.0)]) is None


def test_what_moves_alike_at_other_levels_is_another_take(base: np.ndarray) -> None:
    # The same loudness from moment to moment, on another sound.
    take = cut(base, 0, 6)
    loudness = np.abs(take) ** 2
    smooth = np.sqrt(np.convolve(loudness, np.ones(400) / 400, mode="same"))
    noise = colored_noise(len(take), 0.0, np.random.default_rng(5))
    assert verdict(take, smooth * noise) is None


def another_take(signal: np.ndarray, db: float, seed: int) -> np.ndarray:
    # Each sound a little louder or softer, here and there: levels of a third of an octave and a
    # tenth of a second.
    n = 1024
    spectrum = scipy.signal.stft(signal, SAMPLE_RATE, nperseg=n, noverlap=3 * n // 4)[2]
    field = np.random.default_rng(seed).normal(size=spectrum.shape)
    field = scipy.ndimage.gaussian_filter(field, (6, 3))
    gain = 10 ** (db / 20 * field / field.std())
    _, take = scipy.signal.istft(gain * spectrum, SAMPLE_RATE, nperseg=n, noverlap=3 * n // 4)
    return take[: len(signal)].astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_words_spoken_again_are_not_near(seed: int) -> None:
    # As two prompts of one speaker are, of which most words are the same: 47 % of the cells within
    # 3 dB, correlation 0.8, but no less in the one that the other lacks than the other way round.
    words = cut(track("ezer-ev.opus"), 4, 9)
    assert verdict(words, another_take(words, 5.0, seed)) is None
    other = cut(track("ezer-ev.opus"), 10, 15)
    assert_is(verdict(words, add_noise(words, other, 6.0)), DuplicateKind.NEAR)


def test_ambience_of_one_place_is_not_the_same_audio() -> None:
    room = track("restaurant.ogg")
    half = len(room) // 2
    assert verdict(room[:half], room[half:]) is None


def test_the_hum_of_one_room_is_no_overlap(base: np.ndarray) -> None:
    t = np.arange(round(1.4 * SAMPLE_RATE)) / SAMPLE_RATE
    hum = 0.003 * sum(np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 60))
    shared = {"hum": hum.astype(np.float32), "music": cut(base, 5.0, 6.4) * np.float32(0.1)}
    found = {}
    for name, ending in shared.items():
        a, b = (np.concatenate([cut(base, at, at + 1.0), ending]) for at in (0.0, 10.0))
        found[name] = judge(sound(a), sound(b), [Proposal(0.0, 1.0, 1.0, 2.4)])
    assert found["hum"] is None
    assert_is(found["music"], DuplicateKind.OVERLAP)


def test_noises_alike_are_not_the_same_audio() -> None:
    first, second = (
        colored_noise(5 * SAMPLE_RATE, 1.0, np.random.default_rng(seed)) for seed in (1, 2)
    )
    assert verdict(first, second) is None
    assert_is(verdict(first, 0.5 * first), DuplicateKind.SAME_AUDIO)


def test_tones_are_constant_and_never_paired(base: np.ndarray) -> None:
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.float32(0.3) * np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    assert sound(tone).is_constant
    assert sound(transcode(tone, SAMPLE_RATE, "mp3-64k")).is_constant
    assert not sound(base).is_constant
    assert verdict(tone, 0.5 * tone) is None


def test_of_music_that_repeats_itself_the_place_that_fits_best() -> None:
    # Two bars that differ a little, twice: the lag of a whole bar fits as well, but less long.
    bar = cut(track("palace.ogg"), 8, 12)
    noise = colored_noise(4 * len(bar), 0.0, np.random.default_rng(3))
    music = add_noise(np.tile(bar, 4), noise, 40.0)
    found = judge(sound(music), sound(music * np.float32(0.5)), [Proposal(4.0), Proposal(0.1)])
    found = assert_is(found, DuplicateKind.SAME_AUDIO)
    assert found.b_start_s == pytest.approx(found.a_start_s, abs=0.02)


def test_the_best_lag_of_whole_recordings(base: np.ndarray) -> None:
    a, b = sound(base), sound(cut(base, 7.5, 15))
    lag = best_lag(a, b)
    assert lag is not None
    assert lag / FRAMES_PER_SECOND == pytest.approx(-7.5, abs=0.02)


def test_an_alignment_is_exact_to_a_fraction_of_a_frame(base: np.ndarray) -> None:
    found = align(sound(base), sound(cut(base, 2.005, 20)), -1.7 * FRAMES_PER_SECOND)
    assert found is not None
    assert found.lag / FRAMES_PER_SECOND == pytest.approx(-2.005, abs=0.004)


def test_what_does_not_meet_is_not_compared(base: np.ndarray) -> None:
    a = sound(base)
    assert align(a, a, 60 * FRAMES_PER_SECOND) is None
    found = align(a, a, 0.0)
    assert found is not None
    agreement = compare(a, a, found)
    assert agreement is not None
    assert agreement.difference_db == pytest.approx(0.0, abs=0.001)
    assert agreement.correlation == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=12))
def test_no_stretch_has_a_greater_sum_than_the_best(values: list[float]) -> None:
    speaks = np.array(values)
    start, end = best_stretch(speaks)
    every = [speaks[i:j].sum() for i in range(len(values)) for j in range(i, len(values) + 1)]
    assert speaks[start:end].sum() == pytest.approx(max(every))


def test_a_sketch_is_the_same_in_whatever_blocks_it_comes(base: np.ndarray) -> None:
    whole = sketch([base])
    assert whole.dtype == np.uint8
    assert whole.shape == (1 + len(base) // SKETCH_SPEC.hop_length, SKETCH_SPEC.n_mels)
    np.testing.assert_array_equal(whole, sketch(np.array_split(base, 37)))


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, 64)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_without_files_fingerprints_decide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = unit(rng, 20)
    same = judge_windows(a, a, 10.5, 10.5, [Proposal(0.0)], 0.5)
    assert_is(same, DuplicateKind.SAME_AUDIO)
    assert "could not be read again" in str(same)
    assert_is(judge_windows(a, a[6:14], 10.5, 4.5, [Proposal(-3.0)], 0.5), DuplicateKind.EXCERPT)
    mixed = np.concatenate([a[12:], unit(rng, 10)])
    shared = judge_windows(a, mixed, 10.5, 9.5, [Proposal(-6.0)], 0.5)
    found = assert_is(shared, DuplicateKind.OVERLAP)
    assert found.a_start_s == pytest.approx(6.0)
    silent = np.zeros((4, a.shape[1]), np.float32)
    padded = np.concatenate([silent, a, silent])
    longer = judge_windows(a, padded, 10.5, 14.5, [Proposal(2.0)], 0.5)
    assert_is(longer, DuplicateKind.SAME_AUDIO)
    noisy = a + 0.08 * rng.normal(size=a.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    assert_is(judge_windows(a, noisy, 10.5, 10.5, [Proposal(0.0)], 0.5), DuplicateKind.NEAR)
    assert judge_windows(a, unit(rng, 20), 10.5, 10.5, [Proposal(0.0)], 0.5) is None
