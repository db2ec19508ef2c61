"""Pairs of the same moment: shifted, changed and hidden on purpose, and told from loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.batches import (
    Batch,
    PairBatches,
    WindowBatches,
    change_tempo,
    cut_edge,
    mask_levels,
    sounds_alike,
)
from encoders.corpus import Item, PcmCache
from encoders.degrade import World, shipped_rooms
from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import LevelInput

SPEC = FeatureSpec()
INPUT = LevelInput(low=8, high=104)


@pytest.fixture(scope="module")
def cache(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> PcmCache:
    names = ("palace.ogg", "musicbox.mp3", "morning-coffee.mp3")
    items = [Item(demo_tracks / name, "music", "train") for name in names]
    return PcmCache.build(items, tmp_path_factory.mktemp("pcm"), SPEC.sample_rate)


def clean_world() -> World:
    parts = ("room", "noise", "agc", "microphone", "clip", "codec", "dropout")
    return World(SPEC.sample_rate, [], shipped_rooms(), **{f"p_{part}": 0.0 for part in parts})


def clean_pairs(cache: PcmCache, n_excerpts: int, n_each: int, **settings: float) -> PairBatches:
    """Of a world that changes nothing but what is asked for."""
    off = dict.fromkeys(("p_speed", "p_tempo", "p_pitch", "p_mask", "p_edge"), 0.0)
    changes = off | settings
    return PairBatches(cache, clean_world(), SPEC, INPUT, n_excerpts, n_each, **changes)


def full_world(cache: PcmCache) -> World:
    return World(SPEC.sample_rate, [cache], shipped_rooms())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of the levels of two stretches, each band without its mean."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def best_shift(anchor: np.ndarray, positive: np.ndarray, largest: int) -> tuple[float, int]:
    """Correlation where two windows fit best, and how many frames the second one starts later."""
    n = len(anchor)
    fits = []
    for shift in range(-largest, largest + 1):
        a = anchor[max(0, shift) : n + min(0, shift)]
        b = positive[max(0, -shift) : n + min(0, -shift)]
        fits.append((correlation(a, b), shift))
    return max(fits)


def test_levels_are_0_to_1_and_shapes_hold(cache: PcmCache) -> None:
    pairs = PairBatches(cache, full_world(cache), SPEC, INPUT, n_excerpts=3, n_each=4)
    anchors, positives, same = pairs.batch(0)
    assert anchors.shape == positives.shape == (12, SPEC.window_frames, INPUT.n_bands)
    assert same.shape == (12, 12)
    for levels in (anchors, positives):
        assert levels.dtype == np.float32
        assert levels.min() >= 0.0
    np.testing.assert_allclose(anchors.max(axis=(1, 2)), 1.0, atol=1e-6)
    assert positives.max() == 1.0


def test_a_share_of_the_pairs_is_of_other_sounds(cache: PcmCache) -> None:
    hum = np.sin(2 * np.pi * 440 / SPEC.sample_rate * np.arange(10 * SPEC.sample_rate))
    other = PcmCache(np.round(20_000 * hum).astype(np.int16), np.array([len(hum)]))
    settings = {"others": [other], "p_other": 0.3}
    pairs = PairBatches(cache, clean_world(), SPEC, INPUT, 60, 1, **settings)  # type: ignore[arg-type]
    anchors, _, _ = pairs.batch(0)
    # A tone is in a few bands only, and music in many.
    n_tones = np.count_nonzero(np.mean(anchors > 0.5, axis=(1, 2)) < 0.15)
    assert 9 <= n_tones <= 27
    alone, _, _ = PairBatches(cache, clean_world(), SPEC, INPUT, 60, 1).batch(0)
    without, _, _ = PairBatches(cache, clean_world(), SPEC, INPUT, 60, 1, others=[other]).batch(0)
    np.testing.assert_array_equal(alone, without)


def test_the_two_views_show_the_same_moment(cache: PcmCache) -> None:
    shifts = {}
    for change in ("none", "speed", "tempo"):
        changes = {} if change == "none" else {f"p_{change}": 1.0, "max_speed": 0.04}
        anchors, positives, _ = clean_pairs(cache, 8, 6, **changes).batch(0)
        found = [best_shift(a, p, 24) for a, p in zip(anchors, positives, strict=True)]
        shifts[change] = np.array([shift for _, shift in found])
        # Pitch moves with speed, and time within a window with both: those pairs fit less well.
        assert min(fit for fit, _ in found) > (0.9 if change == "none" else 0.25)
        assert np.median([fit for fit, _ in found]) > (0.9 if change == "none" else 0.6)
    # They are shifted on purpose, both ways, by a quarter of a second at most;
    assert np.abs(shifts["none"]).max() <= SPEC.hop_frames // 2
    assert shifts["none"].min() <= -6
    assert shifts["none"].max() >= 6
    assert abs(shifts["none"].mean()) < 2.5
    # and a change of speed (up to 6 frames late at the end of the excerpt) is allowed for.
    for change in ("speed", "tempo"):
        assert np.median(np.abs(shifts[change] - shifts["none"])) <= 2


@pytest.mark.parametrize("change", ["speed", "tempo", "pitch", "mask", "edge"])
def test_each_change_comes_as_often_as_asked(change: str, cache: PcmCache) -> None:
    # Masks and edges are drawn for every window, the others for every excerpt.
    n_excerpts, n_each = (1, 24) if change in ("mask", "edge") else (12, 2)
    plain = clean_pairs(cache, n_excerpts, n_each).batch(0)
    shares = []
    for share in (0.5, 1.0):
        changed = clean_pairs(cache, n_excerpts, n_each, **{f"p_{change}": share}).batch(0)
        np.testing.assert_array_equal(changed[0], plain[0])  # The clean side is as it was.
        different = [not np.array_equal(a, b) for a, b in zip(changed[1], plain[1], strict=True)]
        shares.append(np.mean(different))
    assert 0.1 < shares[0] < 0.9
    assert shares[1] > 0.9


def tones(batch: Batch) -> np.ndarray:
    """The loudest band of each window: anchors, positives [shape=(2, n)]."""
    return np.stack([levels.mean(axis=1).argmax(axis=1) for levels in batch[:2]])


def test_pitch_moves_bands_and_tempo_does_not() -> None:
    t = np.arange(20 * SPEC.sample_rate) / SPEC.sample_rate
    tone = PcmCache((8000 * np.sin(2 * np.pi * 3000 * t)).astype(np.int16), np.array([len(t)]))
    moved = {}
    for change in ("speed", "tempo", "pitch"):
        known, heard = tones(clean_pairs(tone, 16, 2, **{f"p_{change}": 1.0}).batch(0))
        assert len(set(known)) == 1
        moved[change] = np.abs(heard - known).max()
    # 6 % at 3 kHz is three bands.
    assert moved["tempo"] == 0
    assert 2 <= moved["pitch"] <= 4
    assert 2 <= moved["speed"] <= 4


@pytest.mark.parametrize("tempo", [0.95, 1.0, 1.05])
def test_tempo_moves_frames_and_keeps_bands(tempo: float) -> None:
    # A ramp tells at which time each frame was.
    frames = np.arange(200, dtype=np.float32)[:, None] * np.array([1.0, 2.0], np.float32)
    changed = change_tempo(frames, tempo)
    assert abs(len(changed) - len(frames) / tempo) <= 1
    assert changed.dtype == np.float32
    at = np.arange(len(changed)) * tempo
    np.testing.assert_allclose(changed, np.stack([at, 2 * at], axis=1), rtol=1e-5, atol=1e-4)


def test_masks_hide_up_to_a_quarter_of_one_axis() -> None:
    rng = np.random.default_rng(0)
    original = rng.random((32, 96)).astype(np.float32)
    axes = []
    for seed in range(30):
        levels = original.copy()
        mask_levels(levels, np.random.default_rng(seed))
        hidden = levels != original
        frames, bands = (np.flatnonzero(hidden.any(axis=axis)) for axis in (1, 0))
        stretch, whole = (frames, bands) if len(frames) < 32 else (bands, frames)
        axes.append(len(frames) < 32)
        # One run of frames over all bands, or of bands over all frames,
        assert len(whole) == levels.shape[1 if axes[-1] else 0]
        assert 1 <= len(stretch) <= levels.shape[0 if axes[-1] else 1] // 4
        np.testing.assert_array_equal(np.diff(stretch), 1)
        # at the mean of what was there.
        np.testing.assert_allclose(levels[hidden], original.mean(), rtol=1e-5)
    assert set(axes) == {True, False}


def test_a_clip_ends_early_at_one_end() -> None:
    original = np.random.default_rng(0).random((32, 96)).astype(np.float32)
    seen = set()
    for seed in range(40):
        levels = original.copy()
        cut_edge(levels, 8, np.random.default_rng(seed))
        cut = np.flatnonzero((levels != original).any(axis=1))
        at_end = cut[-1] == 31
        assert 1 <= len(cut) <= 8
        np.testing.assert_array_equal(
            cut, np.arange(32 - len(cut), 32) if at_end else np.arange(len(cut))
        )
        # The frame beside it goes on, or there is silence.
        beside = original[cut[0] - 1] if at_end else original[cut[-1] + 1]
        silent = not levels[cut].any()
        np.testing.assert_array_equal(
            levels[cut], np.broadcast_to(0 if silent else beside, (len(cut), 96))
        )
        seen.add((at_end, silent))
    assert len(seen) == 4


def test_anchors_stay_clean(cache: PcmCache) -> None:
    def silence(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.zeros_like(signal)

    worlds: list[Any] = [clean_world(), silence]
    (anchors, positives, _), (kept, silent, _) = (
        PairBatches(cache, world, SPEC, INPUT, 1, 2, max_speed=0, p_mask=0, p_edge=0).batch(0)
        for world in worlds
    )
    # Both worlds leave the sound itself alone; only the second one is heard as nothing.
    assert best_shift(anchors[0], kept[0], 0)[0] > 0.1
    assert positives.std() > 0.05
    np.testing.assert_array_equal(silent, 1.0)


@pytest.mark.parametrize("kind", ["pairs", "windows"])
def test_batches_go_by_seed_and_number(kind: str, cache: PcmCache) -> None:
    def make(seed: int) -> PairBatches | WindowBatches:
        if kind == "pairs":
            return PairBatches(cache, full_world(cache), SPEC, INPUT, 2, 2, seed=seed)
        return WindowBatches([cache], [1.0], SPEC, INPUT, 2, 2, seed=seed)

    batches = make(7)
    later = batches.batch(5)
    for a, b in zip(
        make(7).batch(5), later, strict=True
    ):  # Another object, without 0 to 4 before it.
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(batches.batch(6)[0], later[0])
    assert not np.array_equal(make(8).batch(5)[0], later[0])


def test_windows_come_from_all_sources_by_weight() -> None:
    t = np.arange(4 * SPEC.sample_rate) / SPEC.sample_rate
    low, high = (
        PcmCache((8000 * np.sin(2 * np.pi * hz * t)).astype(np.int16), np.array([len(t)]))
        for hz in (300, 3000)
    )
    batches = WindowBatches([low, high], [1.0, 3.0], SPEC, INPUT, n_excerpts=80, n_each=2)
    (levels,) = batches.batch(0)
    assert levels.shape == (160, SPEC.window_frames, INPUT.n_bands)
    loudest = levels.mean(axis=1).argmax(axis=1)
    assert len(set(loudest)) == 2
    assert np.mean(loudest == loudest.max()) == pytest.approx(0.75, abs=0.15)


def test_loops_are_found_and_music_is_not(music: tuple[np.ndarray, int]) -> None:
    signal, rate = music
    loop = np.tile(signal[10 * rate : 10 * rate + SPEC.window_hop], 8)
    looped = INPUT(cut_windows(log_mel(loop, SPEC), SPEC))[1:6]
    n = len(looped)
    np.testing.assert_array_equal(sounds_alike(looped), ~np.eye(n, dtype=bool))
    played_on = INPUT(cut_windows(log_mel(signal[: 20 * rate], SPEC), SPEC))
    assert not sounds_alike(played_on).any()
    both = sounds_alike(np.concatenate([looped, played_on]))
    assert both[:n, :n].sum() == n * (n - 1)
    assert both.sum() == n * (n - 1)


def test_neighbours_that_merely_sound_alike_stay_negatives(cache: PcmCache) -> None:
    # The same instruments in the same key half a second later: the hardest negatives there are.
    anchors, _, same = clean_pairs(cache, 6, 8).batch(0)
    flat = anchors.reshape(len(anchors), -1)
    likeness = np.corrcoef(flat)
    neighbours = np.eye(len(anchors), k=1, dtype=bool)
    neighbours[7::8] = False  # The next excerpt begins.
    assert np.median(likeness[neighbours]) > 0.6  # Most of it is the mean spectrum.
    assert not same[neighbours].any()


@pytest.mark.parametrize("seconds", [0.25, 0.5])
def test_loops_that_fit_the_hop_are_no_negatives(
    seconds: float, music: tuple[np.ndarray, int]
) -> None:
    signal, rate = music
    once = signal[10 * rate : 10 * rate + int(seconds * rate)]
    looped = INPUT(cut_windows(log_mel(np.tile(once, 30), SPEC), SPEC))[1:-2]
    np.testing.assert_array_equal(sounds_alike(looped), ~np.eye(len(looped), dtype=bool))


def test_a_batch_of_a_loop_says_so(music: tuple[np.ndarray, int]) -> None:
    signal, rate = music
    once = np.round(signal[10 * rate : 10 * rate + SPEC.window_hop] * 32767).astype(np.int16)
    looped = PcmCache(np.tile(once, 40), np.array([40 * len(once)]))
    _, _, same = PairBatches(looped, clean_world(), SPEC, INPUT, 1, 4).batch(0)
    np.testing.assert_array_equal(same, ~np.eye(4, dtype=bool))
