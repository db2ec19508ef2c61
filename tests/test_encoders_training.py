"""Training: batches by number, pairs that belong together, runs that resume where they stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.corpus import Item, PcmCache
from encoders.degrade import World, shipped_rooms
from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import LevelInput
from encoders.training import (
    Batch,
    PairBatches,
    TrainingConfig,
    WindowBatches,
    fit,
    prefetch,
    sounds_alike,
)

SPEC = FeatureSpec()
INPUT = LevelInput(low=8, high=104)


@pytest.fixture(scope="module")
def cache(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> PcmCache:
    names = ("palace.ogg", "musicbox.mp3", "morning-coffee.mp3")
    items = [Item(demo_tracks / name, "music", "train") for name in names]
    return PcmCache.build(items, tmp_path_factory.mktemp("pcm"), SPEC.sample_rate)


def clean_world() -> World:
    return World(
        SPEC.sample_rate, [], shipped_rooms(), p_room=0, p_noise=0, p_microphone=0, p_codec=0
    )


def full_world(cache: PcmCache) -> World:
    return World(SPEC.sample_rate, [cache], shipped_rooms())


# Pairs.


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
        np.testing.assert_allclose(levels.max(axis=(1, 2)), 1.0, atol=1e-6)


def test_the_two_views_show_the_same_moment(cache: PcmCache) -> None:
    shifts = {}
    for max_speed in (0.0, 0.04):
        anchors, positives, _ = PairBatches(
            cache, clean_world(), SPEC, INPUT, n_excerpts=8, n_each=6, max_speed=max_speed
        ).batch(0)
        found = [best_shift(a, p, 24) for a, p in zip(anchors, positives, strict=True)]
        shifts[max_speed] = np.array([shift for _, shift in found])
        # Pitch moves with speed, so that those pairs fit less well.
        assert min(fit for fit, _ in found) > (0.9 if max_speed == 0 else 0.25)
        assert np.median([fit for fit, _ in found]) > 0.9
    # They are shifted on purpose, both ways, by a quarter of a second at most;
    assert np.abs(shifts[0.0]).max() <= SPEC.hop_frames // 2
    assert shifts[0.0].min() <= -6
    assert shifts[0.0].max() >= 6
    assert abs(shifts[0.0].mean()) < 2.5
    # and a change of speed (up to 6 frames late at the end of the excerpt) is allowed for.
    assert np.abs(shifts[0.04] - shifts[0.0]).max() <= 2


def test_speed_really_changes(cache: PcmCache) -> None:
    same_speed, other_speed = (
        PairBatches(cache, clean_world(), SPEC, INPUT, 8, 2, max_speed=speed).batch(0)
        for speed in (0.0, 0.04)
    )
    np.testing.assert_array_equal(same_speed[0], other_speed[0])  # The clean side is as it was.
    changed = [not np.array_equal(a, b) for a, b in zip(same_speed[1], other_speed[1], strict=True)]
    assert 0 < sum(changed) < len(changed)


def test_anchors_stay_clean(cache: PcmCache) -> None:
    def silence(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.zeros_like(signal)

    worlds: list[Any] = [clean_world(), silence]
    (anchors, positives, _), (kept, silent, _) = (
        PairBatches(cache, world, SPEC, INPUT, 1, 2, max_speed=0).batch(0) for world in worlds
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


def test_a_batch_of_a_loop_says_so(music: tuple[np.ndarray, int]) -> None:
    signal, rate = music
    once = np.round(signal[10 * rate : 10 * rate + SPEC.window_hop] * 32767).astype(np.int16)
    looped = PcmCache(np.tile(once, 40), np.array([40 * len(once)]))
    _, _, same = PairBatches(looped, clean_world(), SPEC, INPUT, 1, 4).batch(0)
    np.testing.assert_array_equal(same, ~np.eye(4, dtype=bool))


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


# Feeding.


class Numbers:
    """Batch ``n`` holds ``n``; remembers what was asked for."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.asked: list[int] = []

    def batch(self, number: int) -> Batch:
        self.asked.append(number)
        if number == self.fails_at:
            raise OSError("the disk is gone")
        return (np.array([number]),)


def feeders() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "batches"]


@pytest.fixture
def no_feeder_left() -> Iterator[None]:
    """The threads that the test started end by themselves."""
    before = set(feeders())
    yield
    deadline = time.monotonic() + 5
    while set(feeders()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(feeders()) <= before


@pytest.mark.usefixtures("no_feeder_left")
def test_prefetch_keeps_the_order() -> None:
    assert [int(b[0][0]) for b in prefetch(Numbers(), 3, 20)] == list(range(3, 20))
    assert list(prefetch(Numbers(), 5, 5)) == []


@pytest.mark.usefixtures("no_feeder_left")
def test_prefetch_works_ahead_but_not_without_end() -> None:
    numbers = Numbers()
    feed = prefetch(numbers, 0, 100, depth=3)
    next(feed)
    deadline = time.monotonic() + 5
    while len(numbers.asked) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert numbers.asked == [0, 1, 2, 3, 4]  # One taken, three waiting, one in hand.
    feed.close()


@pytest.mark.usefixtures("no_feeder_left")
def test_an_error_in_the_thread_is_raised_where_the_batch_is_wanted() -> None:
    feed = prefetch(Numbers(fails_at=2), 0, 10)
    assert [int(next(feed)[0][0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(feed)


@pytest.mark.usefixtures("no_feeder_left")
def test_stopping_early_leaves_no_thread() -> None:
    feed = prefetch(Numbers(), 0, 1000)
    next(feed)
    assert feeders()
    feed.close()


@pytest.mark.usefixtures("no_feeder_left")
def test_stopping_before_an_error_is_seen_leaves_no_thread() -> None:
    numbers = Numbers(fails_at=3)
    feed = prefetch(numbers, 0, 1000, depth=2)
    next(feed)  # 1 and 2 fill the queue, and the error of 3 waits for a place in it.
    deadline = time.monotonic() + 5
    while 3 not in numbers.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    feed.close()


# Fitting. Needs the train extra.


class Line:
    """Points of a plane, by number."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.asked: list[int] = []

    def batch(self, number: int) -> Batch:
        self.asked.append(number)
        x = np.random.default_rng([self.seed, number]).normal(size=(16, 3)).astype(np.float32)
        return x, x @ np.array([[1.0], [-2.0], [0.5]], np.float32)


class _Stopped(Exception):
    pass


Progress = Callable[[int, dict[str, float]], None]


def train(
    out: Path, steps: int = 8, progress: Progress | None = None, seed: int = 0
) -> tuple[list[np.ndarray], Line]:
    """A model of one layer after a normalisation; gives its weights and its teacher."""
    pytest.importorskip("tensorflow", reason="needs the train extra")
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )

    def loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        x, y = batch
        error = tf.reduce_mean(tf.square(model(x, training=training) - y))
        return {"loss": error, "step": tf.cast(step, tf.float32)}

    teacher = Line()
    config = TrainingConfig(steps=steps, learning_rate=0.1, checkpoint_every=3)
    fit({"model": model}, loss, teacher, Line(seed=1), config, out, progress)
    return [np.array(w) for w in model.get_weights()], teacher


def scalars(logs: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would show: values by tag and step."""
    import tensorflow as tf

    found: dict[str, dict[int, float]] = {}
    for path in sorted(logs.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found


@pytest.fixture(scope="module")
def whole_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[np.ndarray], Path, list[dict[str, float]]]:
    out = tmp_path_factory.mktemp("whole")
    figures: list[dict[str, float]] = []
    weights, teacher = train(out, progress=lambda step, seen: figures.append({"at": step, **seen}))
    assert teacher.asked == list(range(8))
    return weights, out, figures


def test_a_run_reports_learns_and_logs(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]],
) -> None:
    weights, out, figures = whole_run
    assert all(np.isfinite(w).all() for w in weights)
    assert [f["at"] for f in figures] == list(range(1, 9))
    assert [f["step"] for f in figures] == list(range(8))
    assert all(0.0 <= f["waited"] <= 1.0 for f in figures)
    assert figures[-1]["loss"] < figures[0]["loss"]
    assert [f["at"] for f in figures if "dev_loss" in f] == [3, 6, 8]
    logged = scalars(out / "logs")
    assert sorted(logged["loss"]) == list(range(8))
    for step, value in logged["loss"].items():
        assert value == pytest.approx(figures[step]["loss"])
    assert sorted(logged["dev_loss"]) == [2, 5, 7]


@pytest.mark.usefixtures("no_feeder_left")
def test_a_stopped_run_goes_on_to_the_same_end(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 5:  # Two steps after the last checkpoint.
            raise _Stopped

    with pytest.raises(_Stopped):
        train(tmp_path, progress=stop)
    # The new process starts from other weights; the checkpoint's replace them.
    weights, teacher = train(tmp_path, seed=99)
    assert teacher.asked == [3, 4, 5, 6, 7]
    for mine, whole in zip(weights, whole_run[0], strict=True):
        np.testing.assert_allclose(mine, whole, rtol=1e-5, atol=1e-6)
    assert sorted(scalars(tmp_path / "logs")["loss"]) == list(range(8))


def test_a_finished_run_does_nothing_more(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]],
) -> None:
    before, out, _ = whole_run
    checkpoints = {p: p.stat().st_mtime_ns for p in (out / "checkpoints").iterdir()}
    steps: list[int] = []
    weights, teacher = train(out, progress=lambda step, seen: steps.append(step), seed=99)
    assert steps == teacher.asked == []
    for mine, whole in zip(weights, before, strict=True):
        np.testing.assert_array_equal(mine, whole)
    assert {p: p.stat().st_mtime_ns for p in (out / "checkpoints").iterdir()} == checkpoints


def test_the_seed_decides(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    again, _ = train(tmp_path / "again")
    for mine, whole in zip(again, whole_run[0], strict=True):
        np.testing.assert_allclose(mine, whole, rtol=1e-5, atol=1e-6)
    other, _ = train(tmp_path / "other", seed=1)
    assert not np.allclose(other[-2], whole_run[0][-2], atol=1e-3)
