"""Training: batches made ahead, runs that resume where they stopped or start from another's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.batches import Batch, prefetch
from encoders.errors import EarmarkError
from encoders.training import N_WATCHED, TrainingConfig, fit

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
    out: Path,
    steps: int = 8,
    progress: Progress | None = None,
    seed: int = 0,
    start: Path | None = None,
    hidden: int = 0,
) -> tuple[list[np.ndarray], Line]:
    """A model of a layer (or two) after a normalisation; gives its weights and its teacher."""
    pytest.importorskip("tensorflow", reason="needs the train extra")
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    layers = [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    if hidden:
        layers.insert(2, keras.layers.Dense(hidden))
    model = keras.Sequential(layers)

    def loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        x, y = batch
        error = tf.reduce_mean(tf.square(model(x, training=training) - y))
        return {"loss": error, "step": tf.cast(step, tf.float32)}

    teacher, held_back = Line(), Line(seed=1)
    config = TrainingConfig(steps=steps, learning_rate=0.1, checkpoint_every=3)
    fit({"model": model}, loss, teacher, held_back, config, out, progress, start)
    assert held_back.asked == list(range(N_WATCHED))
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


def test_a_warm_start_goes_on_from_another_run(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    _, before, figures = whole_run
    seen: list[dict[str, float]] = []

    def watch(step: int, now: dict[str, float]) -> None:
        seen.append(now)

    _, teacher = train(tmp_path, progress=watch, seed=99, start=before)
    # A run of its own, from the first batch on, but with the weights of the other's end.
    assert teacher.asked == list(range(8))
    assert seen[0]["loss"] < 0.7 * figures[0]["loss"]
    # Its own checkpoint goes before the other's.
    _, teacher = train(tmp_path, steps=10, start=before)
    assert teacher.asked == [8, 9]


def test_a_warm_start_from_nothing_or_another_network_is_told(
    whole_run: tuple[list[np.ndarray], Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    with pytest.raises(EarmarkError, match="holds no checkpoint to start from"):
        train(tmp_path / "out", start=tmp_path)
    with pytest.raises(EarmarkError, match="holds the checkpoint of another network"):
        train(tmp_path / "out", start=whole_run[1], hidden=5)
