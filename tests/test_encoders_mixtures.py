"""Mixtures: what is put in is told, to the frame, and nothing else is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from encoders.clips import Clips
from encoders.corpus import Item
from encoders.features import FLOOR_DB, FeatureSpec
from encoders.levels import LevelInput
from encoders.mixtures import (
    MixtureRecipe,
    Mixtures,
    add_frames,
    stretch_of,
    trimmed,
)

SPEC = dataclasses.replace(FeatureSpec(), window_length=160_000, window_hop=80_000)
PER_SECOND = 32
QUIET = MixtureRecipe(filter_db=0, speed=0, bands=0, snr_db=(30, 30), p_noise=0, p_music=0, p_two=0)


def tone(band: int, seconds: float) -> np.ndarray:
    """A sound in one band, with a quiet second before it and after it."""
    frames = np.full((round((seconds + 2) * PER_SECOND), SPEC.n_mels), -90.0, np.float16)
    frames[PER_SECOND:-PER_SECOND, band] = -10.0
    return frames


def clips(*sounds: tuple[str, np.ndarray]) -> Clips:
    return Clips(
        [frames for _, frames in sounds],
        [Item(Path(f"{n}.wav"), "event", "train", label) for n, (label, _) in enumerate(sounds)],
    )


SOUNDS = clips(
    ("low", tone(10, 1.0)), ("high", tone(100, 0.5)), ("stranger", tone(60, 1.0)), ("", tone(70, 1))
)
HISS = clips(("", np.full((64, SPEC.n_mels), -60.0, np.float16)))
NOTHING = Clips([], [])


def mixtures(recipe: MixtureRecipe | None = None, n: int = 8) -> Mixtures:
    classes = ["high", "low"]
    inputs = LevelInput(0, 128)
    return Mixtures(SOUNDS, HISS, NOTHING, classes, SPEC, inputs, 2, n, recipe=recipe)


def test_what_is_told_is_what_sounds() -> None:
    made, heard = mixtures(QUIET), 0
    for number in range(20):
        frames, placed = made.mix(np.random.default_rng(number))
        assert frames.shape == (320, SPEC.n_mels)
        for first, end, sound in placed:
            band = {0: 10, 1: 100, 2: 60, 3: 70}[sound]
            assert (frames[first:end, band] > -40).all()
            heard += 1
        for band, sound in ((10, 0), (100, 1)):
            told = np.zeros(320, bool)
            for first, end, number_ in placed:
                told[first:end] |= number_ == sound
            np.testing.assert_array_equal(frames[:, band] > -40, told)
    assert heard > 20


def test_a_batch_tells_of_steps_and_not_of_strangers() -> None:
    made = mixtures(QUIET)
    levels, active, onsets, weights = made.batch(3)
    assert levels.shape == (8, 320, 128)
    assert active.shape == onsets.shape == weights.shape == (8, 160, 2)
    assert 0 < active.mean() < 0.5
    assert ((onsets.max(axis=1) > 0) <= (active.max(axis=1) > 0)).all()
    # The shorter sound counts more.
    assert weights[..., 0].max() > weights[..., 1].max() > 0
    only = mixtures(dataclasses.replace(QUIET, p_unlabelled=0.5, p_stranger=0.5))
    assert not only.batch(0)[1].any()


def test_batches_come_again_by_their_number() -> None:
    made = mixtures()
    for a, b in zip(made.batch(5), mixtures().batch(5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(made.batch(5)[0], made.batch(6)[0])


def test_silence_is_cut_off_and_powers_add_up() -> None:
    assert len(trimmed(tone(10, 1.0), 1000)) == PER_SECOND
    assert len(trimmed(tone(10, 1.0), 5)) == 5
    same = np.full((3, SPEC.n_mels), -20.0, np.float32)
    np.testing.assert_allclose(add_frames(same, same), -16.99, atol=0.01)
    np.testing.assert_allclose(add_frames(same, np.full_like(same, FLOOR_DB)), -20.0, atol=1e-3)


def test_short_ambience_is_repeated() -> None:
    rng = np.random.default_rng(0)
    assert stretch_of(np.zeros((7, 4), np.float16), 50, rng).shape == (50, 4)
    assert stretch_of(np.zeros((50, 4), np.float16), 50, rng).shape == (50, 4)
