"""Short sounds with labels, as spectrograms in memory, and batches of them that teach.

Everything that varies a sound works on its log-mel frames: where the window lies, a filter, what
sounds beside it, how fast and how high it is. That costs next to nothing, so that training never
waits for it, and is close to doing it to the samples.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from encoders.batches import Batch, mask_levels
from encoders.corpus import ROLES, Item, PcmCache
from encoders.errors import EarmarkError
from encoders.features import FLOOR_DB, FeatureSpec, log_mel
from encoders.levels import LevelInput
from encoders.teacher import Teacher

LONGEST_S = 30
"""Of longer recordings only so much is kept, in seconds: the rest is more of the same."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """Spectrograms of short recordings, and what they are.

    Attributes
    ----------
    frames : list of np.ndarray [shape=(n_frames, n_mels), dtype=float16]
        dB.
    items : list of Item
        Of the same length.
    """

    frames: list[np.ndarray]
    items: list[Item]

    @classmethod
    def compute(
        cls,
        cache: PcmCache,
        items: Sequence[Item],
        spec: FeatureSpec,
        progress: Callable[[int, int], None] | None = None,
    ) -> Clips:
        """Spectrograms of the recordings of a cache.

        Parameters
        ----------
        cache : PcmCache
            Made of ``items``; those that could not be decoded are left out here too.
        """
        frames = []
        for number in range(len(cache)):
            signal = cache.recording(number)[: LONGEST_S * spec.sample_rate]
            frames.append(log_mel(signal, spec).astype(np.float16))
            if progress:
                progress(number + 1, len(cache))
        return cls(frames, [items[k] for k in cache.kept])

    @classmethod
    def decode(
        cls,
        items: Sequence[Item],
        folder: Path,
        spec: FeatureSpec,
        progress: Callable[[int, int], None] | None = None,
    ) -> Clips:
        """Spectrograms of files, by a cache in ``folder`` (see :class:`PcmCache`)."""
        return cls.compute(PcmCache.build(items, folder, spec.sample_rate, progress), items, spec)

    def __len__(self) -> int:
        return len(self.frames)


def name_classes(items: Sequence[Item]) -> list[str]:
    """What belongs together: the label of each item, or else what its name says.

    Files without a label whose names differ only in their numbers (``splat1.wav``, ``splat2.wav``
    in one folder) are takes of one kind of sound, though nobody knows which.

    Returns
    -------
    classes : list of str
        Of different items the same only if they belong together.
    """
    taken: dict[str, int] = defaultdict(int)
    names = []
    for item in items:
        stem = re.sub(r"[\d_\s.()-]+", "", item.path.stem)
        name = item.label or (f"{item.path.parent}/{stem}" if stem else str(item.path))
        taken[name] += 1
        names.append(name)
    return [
        n if i.label or taken[n] > 1 else str(i.path) for n, i in zip(names, items, strict=True)
    ]


class ClipBatches:
    """Batches for the supervised contrastive loss: a few classes, several sounds of each.

    The sounds of a class come from different sources where there are some, so that what is
    learned is the kind of sound and not how one person recorded it. Each sound is seen in two
    windows that were varied independently.

    Parameters
    ----------
    clips : Clips
    spec : FeatureSpec
    inputs : LevelInput
    background : Clips
        What sounds beside them; its labels do not matter.
    n_classes, n_each : int
        Their product is the number of labelled sounds in a batch.
    n_others : int
        Further sounds, of any class or none.
    labels : sequence of str, optional
        The first classes, in their order. [default: the labels of the clips, sorted]
    seed : int
    teacher : Teacher, optional
        What it says of the windows that it has heard is learned too. Only of these are there
        further sounds then, of every role as many, but twice as many events.
    """

    # Varied this far: filter (dB at its extremes), pitch (mel bands) and speed (a fraction).
    _FILTER_DB = 6.0
    _PITCH_BANDS = 2
    _SPEED = 0.12
    # How often something sounds beside it, and how far below it, in dB.
    _P_BACKGROUND = 0.5
    _BELOW_DB = (3.0, 40.0)
    _P_MASK = 0.2

    def __init__(
        self,
        clips: Clips,
        spec: FeatureSpec,
        inputs: LevelInput,
        background: Clips,
        n_classes: int = 24,
        n_each: int = 4,
        n_others: int = 32,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        self.clips, self.spec, self.inputs, self.background = clips, spec, inputs, background
        self.n_each, self.n_others, self.seed = n_each, n_others, seed
        names = name_classes(clips.items)
        labelled = {item.label for item in clips.items if item.label}
        self.labels = sorted(labelled) if labels is None else list(labels)
        # The labels first, in their order, then whatever else belongs together.
        ordered = [*self.labels, *sorted(set(names) - set(self.labels))]
        numbers = {name: number for number, name in enumerate(ordered)}
        self.classes = np.array([numbers[name] for name in names])
        # By label, then by source.
        members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, item in enumerate(clips.items):
            if item.label:
                members[item.label][item.source].append(number)
        self._members = [list(sources.values()) for sources in members.values()]
        self.n_classes = min(n_classes, len(self._members))
        sizes = np.array([sum(map(len, sources)) for sources in self._members], np.float64)
        # Between every class alike and every sound alike.
        self._weights = np.sqrt(sizes) / np.sqrt(sizes).sum() if len(sizes) else sizes
        self._teacher = teacher
        self._heard = [teacher.of(item) if teacher else [] for item in clips.items]
        self._others = self._pools() if teacher else [np.arange(len(clips))]

    def batch(self, number: int) -> Batch:
        """Sounds ``number``.

        Returns
        -------
        levels : np.ndarray [shape=(2 * n, window_frames, n_bands), dtype=float32]
            Both windows of each sound, one after the other.
        classes : np.ndarray [shape=(2 * n,), dtype=int32]
        told : np.ndarray [shape=(2 * n, teacher.dim), dtype=float32]
            If there is a teacher: what it says of them, zero where it says nothing.
        """
        rng = np.random.default_rng([self.seed, number])
        chosen: list[int] = []
        if self.n_classes:
            kinds = rng.choice(len(self._members), self.n_classes, replace=False, p=self._weights)
            for kind in kinds:
                chosen += self._pick(self._members[kind], rng)
        for other in range(self.n_others):
            chosen.append(int(rng.choice(self._others[other % len(self._others)])))
        views = [self._view(number, rng) for number in chosen for _ in range(2)]
        levels = self.inputs(np.stack([window for window, _ in views]))
        for window in levels:
            if rng.random() < self._P_MASK:
                mask_levels(window, rng)
        classes = np.repeat(self.classes[chosen], 2).astype(np.int32)
        if self._teacher is None:
            return levels, classes
        told = np.zeros((len(views), self._teacher.dim), np.float32)
        for line, (_, row) in zip(told, views, strict=True):
            if row is not None:
                line[:] = self._teacher.vectors[row]
        return levels, classes, told

    def _pools(self) -> list[np.ndarray]:
        roles = np.array([item.role for item in self.clips.items])
        heard = np.array([bool(windows) for windows in self._heard])
        pools = [np.flatnonzero(heard & (roles == role)) for role in ("event", *ROLES)]
        if not any(map(len, pools)):
            raise EarmarkError("the teacher has heard none of the sounds of the corpus")
        return [pool for pool in pools if len(pool)]

    def _pick(self, sources: list[list[int]], rng: np.random.Generator) -> list[int]:
        # Round the sources in random order, until there are enough; twice the same if need be.
        order = rng.permutation(len(sources))
        taken = [sources[order[i % len(sources)]] for i in range(self.n_each)]
        return [int(rng.choice(numbers)) for numbers in taken]

    def _view(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, int | None]:
        # A window of a sound, varied, and the row of what the teacher says of it.
        spec, row = self.spec, None
        frames = self.clips.frames[number].astype(np.float32)
        speed = 1.0 + self._SPEED * float(rng.uniform(-1, 1))
        frames = change_speed(frames, speed)
        if self._heard[number]:
            start_s, row = self._heard[number][int(rng.integers(len(self._heard[number])))]
            first = round(start_s * spec.sample_rate / spec.hop_length / speed)
            window = place_near(frames, first, spec.window_frames, rng)
        else:
            window = place(frames, spec.window_frames, rng)
        bands = int(rng.integers(-self._PITCH_BANDS, self._PITCH_BANDS + 1))
        window = shift_bands(window, bands)
        window += smooth_filter(spec.n_mels, self._FILTER_DB, rng)
        if len(self.background) and rng.random() < self._P_BACKGROUND:
            other = self.background.frames[int(rng.integers(len(self.background)))]
            beside = place(other.astype(np.float32), spec.window_frames, rng)
            below = float(rng.uniform(*self._BELOW_DB))
            beside += window.max() - beside.max() - below
            window = np.logaddexp(window * _TO_LOG, beside * _TO_LOG) / _TO_LOG
        return window, row


# From decibels of power to natural logarithms.
_TO_LOG = np.float32(np.log(10.0) / 10.0)


def place(frames: np.ndarray, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A window somewhere on a sound, that holds its loudest part or most of another one.

    Parameters
    ----------
    frames : np.ndarray [shape=(n, n_mels)]
        dB; silence is added where it is too short.
    n_frames : int
        Of the window.

    Returns
    -------
    window : np.ndarray [shape=(n_frames, n_mels)]
    """
    loudness = frames.max(axis=1)
    # Frames that carry sound; any of them may be what the window is about.
    loud = np.flatnonzero(loudness > loudness.max() - 30.0)
    about = int(rng.choice(loud))
    first = about - int(rng.integers(n_frames))
    # Mostly from the beginning of the sound on, as ingest sees a short file.
    if len(frames) <= n_frames or rng.random() < 0.5:
        first = max(first, -(n_frames // 4))
    return _cut(frames, first, n_frames)


def place_near(
    frames: np.ndarray, first: int, n_frames: int, rng: np.random.Generator
) -> np.ndarray:
    """A window that begins about where another one does, which holds much the same.

    Parameters
    ----------
    frames : np.ndarray [shape=(n, n_mels)]
        dB; silence is added where it is too short.
    first : int
        Frame at which the other one begins.
    n_frames : int
        Of the window.

    Returns
    -------
    window : np.ndarray [shape=(n_frames, n_mels)]
    """
    third = n_frames // 3
    # Of what is shorter than a window all stays in it.
    latest = third // 2 if len(frames) > n_frames else 0
    return _cut(frames, first + int(rng.integers(-third, latest + 1)), n_frames)


def _cut(frames: np.ndarray, first: int, n_frames: int) -> np.ndarray:
    window = np.full((n_frames, frames.shape[1]), FLOOR_DB, np.float32)
    begin, end = max(first, 0), min(first + n_frames, len(frames))
    window[begin - first : end - first] = frames[begin:end]
    return window


def change_speed(frames: np.ndarray, speed: float) -> np.ndarray:
    """Faster (above 1) or slower at the same pitch, by taking the nearest frames."""
    at = np.arange(max(1, int(len(frames) / speed))) * speed
    return frames[np.minimum(np.round(at).astype(int), len(frames) - 1)]


def shift_bands(window: np.ndarray, bands: int) -> np.ndarray:
    """Higher or lower by mel bands; what moves in is as the outermost band was."""
    n = window.shape[1]
    return window[:, np.clip(np.arange(n) - bands, 0, n - 1)]


def smooth_filter(n_mels: int, extreme_db: float, rng: np.random.Generator) -> np.ndarray:
    """A random frequency response of a few bends [shape=(n_mels,), dtype=float32], in dB."""
    gains = rng.uniform(-extreme_db, extreme_db, 5)
    return np.interp(np.linspace(0, 4, n_mels), np.arange(5), gains).astype(np.float32)
