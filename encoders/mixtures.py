"""Sounds over ambience, and what sounds in every frame of them: what detection is learned from.

Recordings of single sounds are not what a microphone hears. Here they are put on top of ambience,
as log-mel frames, several at a time, so that when each of them begins and ends is known to the
frame. That costs next to nothing, so that no mixture is ever seen twice.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.batches import Batch, mask_levels
from encoders.clips import Clips, change_speed, shift_bands, smooth_filter
from encoders.errors import EarmarkError
from encoders.features import FLOOR_DB, FeatureSpec, to_decibels, to_power
from encoders.levels import LevelInput
from encoders.loudness import loudness

TRIM_DB = 40.0
"""Of a sound, what is further below its loudest moment than this, at either end, is silence."""

LONGEST_S = 5.0
"""Of a longer sound only so much is put in."""


class Placed(NamedTuple):
    """A sound in a mixture: its frames ``first`` to ``end - 1``, and which one it is."""

    first: int
    end: int
    sound: int


@dataclasses.dataclass(frozen=True)
class MixtureRecipe:
    """What mixtures are like.

    Parameters
    ----------
    most : int
        Sounds in a mixture; none to so many.
    snr_db : (float, float)
        Loudness of a sound above that of the ambience.
    filter_db, speed, bands
        How far each sound is varied: the extremes of a smooth filter, a fraction, mel bands.
    p_unlabelled, p_stranger : float
        How often a sound has no label, or one that is not learned.
    p_music, p_noise : float
        How often the ambience is music, or made noise.
    p_two : float
        How often there are two kinds of ambience.
    balance : float
        0 takes every class alike, 1 every sound alike.
    """

    most: int = 6
    snr_db: tuple[float, float] = (-5.0, 22.0)
    filter_db: float = 8.0
    speed: float = 0.2
    bands: int = 3
    p_unlabelled: float = 0.04
    p_stranger: float = 0.06
    p_music: float = 0.06
    p_noise: float = 0.08
    p_two: float = 0.2
    balance: float = 0.5


PLAIN = MixtureRecipe(
    most=5, snr_db=(0.0, 20.0), filter_db=0.0, speed=0.0, bands=0,
    p_unlabelled=0.0, p_stranger=0.0, p_music=0.0, p_noise=0.0, p_two=0.0, balance=0.0,
)  # fmt: skip
"""Sounds as they are over one kind of ambience: to measure by, and not to learn from."""


def add_frames(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Log-mel frames of two sounds at once, dB: their powers add up."""
    mixed: np.ndarray = to_decibels(to_power(a) + to_power(b))
    return mixed


def trimmed(frames: np.ndarray, longest: int) -> np.ndarray:
    """A sound without the silence around it, at most ``longest`` frames of it."""
    loudness = frames.max(axis=1)
    loud = np.flatnonzero(loudness >= loudness.max() - TRIM_DB)
    return frames[loud[0] : loud[-1] + 1][:longest]


def stretch_of(frames: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` frames from anywhere in ambience, which is repeated where it is too short."""
    frames = np.concatenate([frames] * (1 + -(-n // len(frames))))
    first = int(rng.integers(len(frames) - n + 1))
    return frames[first : first + n].astype(np.float32)


class Mixtures:
    """Batches of mixtures, and of each step of time which classes sound.

    Parameters
    ----------
    sounds : Clips
        Those without a label, or with one that is not among ``classes``, sound and are nothing.
    ambience, music : Clips
    classes : sequence of str
    spec : FeatureSpec
        A window is a mixture.
    inputs : LevelInput
    step : int
        Frames for which the network answers once.
    n : int
        Mixtures in a batch.
    seed : int
    recipe : MixtureRecipe

    Attributes
    ----------
    kinds : list of int [shape=(n_sounds,)]
        The class of each sound, as its number; -1 for none.

    Raises
    ------
    EarmarkError
        If there is no sound of any class.
    """

    # The shorter a sound, the more each of its steps counts, within these; and one of so many
    # frames counts once.
    _WEIGHTS, _USUAL_FRAMES = (0.5, 2.5), 24
    # Some bands are hidden so often.
    _P_MASK = 0.3

    def __init__(
        self,
        sounds: Clips,
        ambience: Clips,
        music: Clips,
        classes: Sequence[str],
        spec: FeatureSpec,
        inputs: LevelInput,
        step: int,
        n: int = 16,
        seed: int = 0,
        recipe: MixtureRecipe | None = None,
    ) -> None:
        self.classes, self.spec, self.inputs = list(classes), spec, inputs
        self.step, self.n, self.seed = step, n, seed
        self.recipe = recipe or MixtureRecipe()
        longest = round(LONGEST_S * spec.sample_rate / spec.hop_length)
        self._sounds = [trimmed(frames, longest) for frames in sounds.frames]
        self._ambience, self._music = ambience.frames, music.frames
        numbers = {label: number for number, label in enumerate(self.classes)}
        self.kinds = [numbers.get(item.label, -1) for item in sounds.items]
        # By class, then by source.
        members: list[dict[str, list[int]]] = [defaultdict(list) for _ in self.classes]
        self._unlabelled: list[int] = []
        self._strangers: list[int] = []
        for number, (item, kind) in enumerate(zip(sounds.items, self.kinds, strict=True)):
            if kind >= 0:
                members[kind][item.source].append(number)
            else:
                (self._strangers if item.label else self._unlabelled).append(number)
        self._members = [list(sources.values()) for sources in members]
        sizes = np.array([sum(map(len, sources)) for sources in self._members], np.float64)
        if not sizes.any():
            raise EarmarkError("there is no sound of any class that is to be learned")
        shares = np.where(sizes > 0, sizes**self.recipe.balance, 0.0)
        self._weights = shares / shares.sum()

    def batch(self, number: int) -> Batch:
        """Mixtures ``number``.

        Returns
        -------
        levels : np.ndarray [shape=(n, n_frames, n_bands), dtype=float32]
        active : np.ndarray [shape=(n, n_steps, n_classes), dtype=float32]
            1 where a class sounds.
        onsets : np.ndarray [shape=(n, n_steps, n_classes), dtype=float32]
            1 where it begins to.
        weights : np.ndarray [shape=(n, n_steps, n_classes), dtype=float32]
            How much a step counts.
        """
        rng = np.random.default_rng([self.seed, number])
        shape = (self.n, self.spec.window_frames, len(self.classes))
        active, onsets, weights = np.zeros(shape), np.zeros(shape), np.ones(shape)
        mixtures = []
        for line in range(self.n):
            frames, placed = self.mix(rng)
            mixtures.append(frames)
            for first, end, sound in placed:
                kind = self.kinds[sound]
                if kind >= 0:
                    active[line, first:end, kind] = 1
                    onsets[line, max(0, first - 1) : first + 2, kind] = 1
                    weight = np.sqrt(self._USUAL_FRAMES / (end - first))
                    weights[line, first:end, kind] = np.clip(weight, *self._WEIGHTS)
        levels = self.inputs(np.stack(mixtures))
        for window in levels:
            if rng.random() < self._P_MASK:
                mask_levels(window, rng, axis=1)
        by_step = (self._by_step(values) for values in (active, onsets, weights))
        return (levels, *by_step)

    def mix(self, rng: np.random.Generator) -> tuple[np.ndarray, list[Placed]]:
        """One mixture: its frames [shape=(n_frames, n_mels)], and what was put into it."""
        n, recipe = self.spec.window_frames, self.recipe
        frames = self._background(n, rng)
        if rng.random() < recipe.p_two:
            other = self._background(n, rng)
            other += rng.uniform(-15, 5) + self._loudness(frames) - self._loudness(other)
            frames = add_frames(frames, other)
        frames = frames + smooth_filter(self.spec.n_mels, recipe.filter_db, rng)
        below, placed = self._loudness(frames), []
        for _ in range(int(rng.integers(recipe.most + 1))):
            number = self._choose(rng)
            sound = self._vary(self._sounds[number].astype(np.float32), rng)
            sound += np.float32(below + rng.uniform(*recipe.snr_db) - self._loudness(sound))
            # Now and then it had begun before.
            first = int(rng.integers(-8, n - 16))
            sound = sound[max(0, -first) :][: n - max(0, first)]
            if len(sound):
                first = max(0, first)
                end = first + len(sound)
                frames[first:end] = add_frames(frames[first:end], sound)
                placed.append(Placed(first, end, number))
        return frames + smooth_filter(self.spec.n_mels, recipe.filter_db / 2, rng), placed

    def _loudness(self, frames: np.ndarray) -> float:
        return loudness(frames, self.spec)

    def _background(self, n: int, rng: np.random.Generator) -> np.ndarray:
        kind, n_mels = rng.random(), self.spec.n_mels
        if kind < self.recipe.p_noise or not self._ambience:
            slope = np.linspace(0, -rng.uniform(0, 40), n_mels)
            return (slope - 60 + rng.normal(0, 4, (n, n_mels))).astype(np.float32)
        musical = self._music and kind < self.recipe.p_noise + self.recipe.p_music
        pool = self._music if musical else self._ambience
        return stretch_of(pool[int(rng.integers(len(pool)))], n, rng)

    def _choose(self, rng: np.random.Generator) -> int:
        kind, recipe = rng.random(), self.recipe
        for pool, share in (
            (self._unlabelled, recipe.p_unlabelled), (self._strangers, recipe.p_stranger),
        ):  # fmt: skip
            if kind < share and pool:
                return pool[int(rng.integers(len(pool)))]
            kind -= share
        sources = self._members[int(rng.choice(len(self._members), p=self._weights))]
        # Between every source alike and every sound alike.
        sizes = np.sqrt([len(members) for members in sources])
        members = sources[int(rng.choice(len(sources), p=sizes / sizes.sum()))]
        return members[int(rng.integers(len(members)))]

    def _vary(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        recipe = self.recipe
        frames = change_speed(frames, 1.0 + recipe.speed * float(rng.uniform(-1, 1)))
        frames = shift_bands(frames, int(rng.integers(-recipe.bands, recipe.bands + 1)))
        varied = frames + smooth_filter(frames.shape[1], recipe.filter_db, rng)
        return np.maximum(varied, np.float32(FLOOR_DB))

    def _by_step(self, values: np.ndarray) -> np.ndarray:
        steps = values.reshape(self.n, -1, self.step, values.shape[2])
        return steps.max(axis=2).astype(np.float32)
