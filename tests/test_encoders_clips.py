"""Batches of labelled sounds: what is together, what is varied, what stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from encoders.clips import (
    ClipBatches,
    Clips,
    change_speed,
    name_classes,
    place,
    place_near,
    shift_bands,
    smooth_filter,
)
from encoders.corpus import Item, PcmCache
from encoders.errors import EarmarkError
from encoders.features import FLOOR_DB, FeatureSpec, log_mel
from encoders.levels import LevelInput
from encoders.teacher import Teacher

SPEC = FeatureSpec()
INPUTS = LevelInput(0, 128)


def item(name: str, label: str = "", source: str = "p") -> Item:
    return Item(Path("sounds") / name, "event", "train", label, source)


def clips(items: list[Item], seconds: float = 0.4) -> Clips:
    """Tones, one higher than the other."""
    t = np.arange(int(seconds * SPEC.sample_rate)) / SPEC.sample_rate
    tones = [0.3 * np.sin(2 * np.pi * 300 * (n + 1) * t).astype(np.float32) for n in range(20)]
    frames = [log_mel(tones[n % 20], SPEC).astype(np.float16) for n in range(len(items))]
    return Clips(frames, items)


def test_names_tell_what_belongs_together() -> None:
    items = [
        item("splat1.wav"), item("splat 02.wav"), item("bark.wav", "dog"), item("woof.wav", "dog"),
        item("once.wav"), item("other/splat1.wav"), item("17.wav"), item("18.wav"),
    ]  # fmt: skip
    names = name_classes(items)
    assert names[0] == names[1]
    assert names[2] == names[3] == "dog"
    assert len(set(names)) == 6


def test_a_batch_has_several_sounds_of_each_label_from_different_sources() -> None:
    items = [item(f"{label}{n}.wav", label, f"p{n}") for label in "abcd" for n in range(5)]
    batches = ClipBatches(clips(items), SPEC, INPUTS, clips([]), 3, 4, 2, seed=1)
    levels, classes = batches.batch(0)
    assert levels.shape == (2 * (3 * 4 + 2), SPEC.window_frames, 128)
    assert levels.dtype == np.float32
    assert levels.min() >= 0.0
    assert levels.max() <= 1.0
    labelled = classes[:24].reshape(3, 8)
    assert (labelled == labelled[:, :1]).all()
    assert len(set(labelled[:, 0])) == 3
    assert classes.max() < len(batches.labels) == 4
    # Two windows of a sound differ; the same number gives the same batch.
    assert not np.array_equal(levels[0], levels[1])
    again = ClipBatches(clips(items), SPEC, INPUTS, clips([]), 3, 4, 2, seed=1).batch(0)
    assert all(np.array_equal(a, b) for a, b in zip((levels, classes), again, strict=True))
    assert not np.array_equal(batches.batch(1)[0], levels)


def test_labels_of_another_split_keep_their_numbers() -> None:
    dev = ClipBatches(
        clips([item("x.wav", "cat"), item("y.wav", "cat"), item("z.wav")]),
        SPEC, INPUTS, clips([]), labels=["bird", "cat", "dog"], seed=0,
    )  # fmt: skip
    assert dev.classes.tolist()[:2] == [1, 1]
    assert dev.classes[2] > 2


def test_background_changes_what_is_quiet_and_not_what_is_loud() -> None:
    sound, beside = clips([item("a1.wav", "a"), item("a2.wav", "a")]), clips([item("b.wav")] * 3)
    alone = ClipBatches(sound, SPEC, INPUTS, clips([]), 1, 2, 0, seed=3)
    among = ClipBatches(sound, SPEC, INPUTS, beside, 1, 2, 0, seed=3)
    quiet = np.mean([alone.batch(i)[0].mean() for i in range(8)])
    filled = np.mean([among.batch(i)[0].mean() for i in range(8)])
    assert filled > quiet


def test_a_teacher_says_of_each_window_what_it_has_heard_near_it() -> None:
    # A low tone for two seconds, then a high one; and a sound that the teacher has not heard.
    t = np.arange(4 * SPEC.sample_rate) / SPEC.sample_rate
    tones = np.sin(2 * np.pi * np.where(t < 2, 200, 4000) * t).astype(np.float32)
    long, never = log_mel(tones, SPEC).astype(np.float16), clips([item("never.wav", "a")])
    music = dataclasses.replace(item("long.wav"), role="music")
    sounds = Clips([long, *never.frames], [music, *never.items])
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    teacher = Teacher(vectors, {music.path: [(0.5, 0), (3.0, 1)]})
    batches = ClipBatches(sounds, SPEC, INPUTS, clips([]), 1, 1, 40, seed=0, teacher=teacher)
    levels, classes, told = batches.batch(0)
    assert told.shape == (len(classes), 2)
    # The labelled one comes first; the further ones are all of those that it has heard.
    assert not told[:2].any()
    assert set(map(tuple, told[2:].tolist())) == {(1.0, 0.0), (0.0, 1.0)}
    loudest = levels.mean(axis=1).argmax(axis=1)
    assert loudest[2:][told[2:, 0] == 1].max() < loudest[2:][told[2:, 1] == 1].min()
    with pytest.raises(EarmarkError, match="none of the sounds"):
        ClipBatches(never, SPEC, INPUTS, clips([]), 1, 1, 1, teacher=teacher)


@pytest.mark.parametrize("n", [3, 32, 200])
def test_a_window_near_another_holds_most_of_it(n: int) -> None:
    frames = np.arange(n, dtype=np.float32)[:, None] + np.zeros(4, np.float32)
    first = max(0, n - 64)
    rng = np.random.default_rng(0)
    for _ in range(50):
        window = place_near(frames, first, 32, rng)
        assert window.shape == (32, 4)
        held = set(window[window > FLOOR_DB].tolist())
        assert len(held & set(range(first, first + 32))) >= min(n, 21)


@pytest.mark.parametrize("n", [8, 33, 200])
def test_a_window_always_holds_some_of_the_sound(n: int) -> None:
    frames = np.full((n, 4), FLOOR_DB, np.float32)
    frames[n // 2] = -10.0
    rng = np.random.default_rng(0)
    for _ in range(50):
        window = place(frames, 32, rng)
        assert window.shape == (32, 4)
        assert window.max() == -10.0


def test_speed_pitch_and_filter() -> None:
    frames = np.arange(20, dtype=np.float32)[:, None] * np.ones(6, np.float32)
    assert len(change_speed(frames, 2.0)) == 10
    assert change_speed(frames, 2.0)[3, 0] == 6.0
    assert np.array_equal(change_speed(frames, 1.0), frames)
    window = np.tile(np.arange(6, dtype=np.float32), (2, 1))
    assert shift_bands(window, 2)[0].tolist() == [0, 0, 0, 1, 2, 3]
    assert shift_bands(window, -1)[0].tolist() == [1, 2, 3, 4, 5, 5]
    gains = smooth_filter(128, 6.0, np.random.default_rng(0))
    assert np.abs(gains).max() <= 6.0
    assert np.abs(np.diff(gains)).max() < 0.5


def test_clips_leave_out_what_cannot_be_decoded(demo_tracks: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    items = [
        Item(tmp_path / "bad.wav", "event", "train", "x"),
        Item(demo_tracks / "musicbox.mp3", "event", "train", "box"),
    ]
    cache = PcmCache.build(items, tmp_path / "pcm", SPEC.sample_rate)
    made = Clips.compute(cache, items, SPEC)
    assert [i.label for i in made.items] == ["box"]
    assert len(made.frames[0]) <= 30 * SPEC.sample_rate // SPEC.hop_length + 1
    # From the disk as well, where lengths of nothing are kept.
    assert PcmCache.build(items, tmp_path / "pcm", SPEC.sample_rate).kept == [1]
