"""Batches of real and degraded sound, made ahead of the training.

Everything random is drawn from ``(seed, number)``, so a run that is stopped and resumed sees the
same batches as one that was not.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np

from encoders.corpus import PcmCache
from encoders.degrade import World, change_speed
from encoders.features import FeatureSpec, log_mel
from encoders.levels import LevelInput

Batch = tuple[np.ndarray, ...]


class Batches(Protocol):
    """Batches by number: the same seed and number give the same batch."""

    def batch(self, number: int) -> Batch: ...


class PairBatches:
    """Pairs of the same moment, clean and after a way through the world.

    Several windows are taken from each excerpt, so that a batch holds the hardest negatives there
    are: other moments of the same recording, in the same room, under the same noise.

    Parameters
    ----------
    music : PcmCache
    world : World
    spec : FeatureSpec
    inputs : LevelInput
    n_excerpts, n_each : int
        Their product is the number of pairs in a batch.
    max_speed : float
        Largest change of speed, tempo or pitch, as a fraction.
    others : sequence of PcmCache
        Sound of other kinds, for a share of ``p_other`` of the excerpts.
    p_speed, p_tempo, p_pitch, p_mask, p_edge : float
        How often speed, only tempo or only pitch is changed; how often a stretch of time or of
        frequency is hidden; and how often a window reaches past an end of the clip.
    """

    # Frames of sound before the first window, so that rooms have something to ring from.
    _LEAD_IN = 24

    def __init__(
        self,
        music: PcmCache,
        world: World,
        spec: FeatureSpec,
        inputs: LevelInput,
        n_excerpts: int = 32,
        n_each: int = 8,
        max_speed: float = 0.06,
        p_speed: float = 0.2,
        p_tempo: float = 0.1,
        p_pitch: float = 0.1,
        p_mask: float = 0.2,
        p_edge: float = 0.25,
        others: Sequence[PcmCache] = (),
        p_other: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.others, self.p_other = others, p_other if others else 0.0
        self.music, self.world, self.spec, self.inputs = music, world, spec, inputs
        self.n_excerpts, self.n_each, self.max_speed = n_excerpts, n_each, max_speed
        self.p_speed, self.p_tempo, self.p_pitch, self.p_mask = p_speed, p_tempo, p_pitch, p_mask
        self.p_edge, self.seed = p_edge, seed
        # Lead-in, a random phase, the windows half a window apart, the largest shift at the end.
        self._n_frames = 2 * self._LEAD_IN + spec.hop_frames * (n_each + 2)

    def batch(self, number: int) -> Batch:
        """Pairs ``number``.

        Returns
        -------
        anchors, positives : np.ndarray [shape=(n, window_frames, n_bands)]
            Levels; anchors are clean.
        same : np.ndarray [shape=(n, n), dtype=bool]
            Different pairs whose clean sound is all but equal, such as an exact loop.
        """
        rng = np.random.default_rng([self.seed, number])
        pairs = [self._pairs(rng) for _ in range(self.n_excerpts)]
        anchors = np.concatenate([a for a, _ in pairs])
        positives = np.concatenate([p for _, p in pairs])
        return anchors, positives, sounds_alike(anchors)

    def _pairs(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        spec, width = self.spec, self.spec.window_frames
        pitch, stretch = self._speed_and_stretch(rng)
        # The degraded side is cut at a random sample, so that frames fall between frames.
        jitter = int(rng.integers(spec.hop_length))
        clean = self._excerpt(self._n_frames * spec.hop_length + jitter, rng)
        played = clean if pitch == 1.0 else change_speed(clean, pitch)
        heard = change_tempo(log_mel(self.world(played, rng)[jitter:], spec), stretch)
        known = log_mel(clean, spec)
        phase = self._LEAD_IN + int(rng.integers(spec.hop_frames))
        starts = phase + spec.hop_frames * np.arange(self.n_each)
        centres = ((starts + width / 2) / pitch - jitter / spec.hop_length) / stretch
        # Small shifts are the rule: queries are taken more densely than references.
        half = spec.hop_frames // 2
        shifts = np.round(rng.triangular(-half, 0, half, self.n_each)).astype(int)
        heard_starts = np.round(centres - width / 2).astype(int) + shifts
        heard_starts = np.clip(heard_starts, 0, len(heard) - width)
        positives = self.inputs(np.stack([heard[s : s + width] for s in heard_starts]))
        for window in positives:
            if rng.random() < self.p_mask:
                mask_levels(window, rng)
            if rng.random() < self.p_edge:
                cut_edge(window, half, rng)
        return self.inputs(np.stack([known[s : s + width] for s in starts])), positives

    def _speed_and_stretch(self, rng: np.random.Generator) -> tuple[float, float]:
        # Playing faster by one factor and stretching time by another reaches all three: speed
        # (1 + x, 1), tempo (1, 1 + x) and pitch (1 + x, 1 / (1 + x)).
        kind, factor = rng.random(), 1.0 + float(rng.uniform(-1, 1)) * self.max_speed
        if kind < self.p_speed:
            return factor, 1.0
        if kind < self.p_speed + self.p_tempo:
            return 1.0, factor
        if kind < self.p_speed + self.p_tempo + self.p_pitch:
            return factor, 1.0 / factor
        return 1.0, 1.0

    def _excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        source = self.music
        if self.p_other and rng.random() < self.p_other:
            source = self.others[int(rng.integers(len(self.others)))]
        for _ in range(20):
            signal = source.excerpt(n_samples, rng)
            if np.sqrt(np.mean(np.square(signal))) > 1e-3:
                break
        return signal


def change_tempo(frames: np.ndarray, tempo: float) -> np.ndarray:
    """Faster (``tempo > 1``) or slower at the same pitch, by interpolation between frames.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
    """
    if tempo == 1.0:
        return frames
    at = np.arange(int((len(frames) - 1) / tempo) + 1) * tempo
    left = np.minimum(at.astype(int), len(frames) - 2)
    share = (at - left).astype(np.float32)[:, None]
    return frames[left] * (1 - share) + frames[left + 1] * share


def mask_levels(levels: np.ndarray, rng: np.random.Generator, axis: int | None = None) -> None:
    """Hide, in place, up to a quarter of the bands or of the frames (SpecAugment, 2019).

    Parameters
    ----------
    levels : np.ndarray [shape=(window_frames, n_bands)]
    axis : int, optional
        0 hides frames, 1 bands. [default: one of them at random]
    """
    if axis is None:
        axis = int(rng.integers(2))
    n = levels.shape[axis]
    width = int(rng.integers(1, max(2, n // 4 + 1)))
    start = int(rng.integers(n - width + 1))
    hidden = [slice(None), slice(None)]
    hidden[axis] = slice(start, start + width)
    levels[tuple(hidden)] = levels.mean()


def cut_edge(levels: np.ndarray, longest: int, rng: np.random.Generator) -> None:
    """Take away, in place, up to ``longest`` frames at one end, as of a clip that ends there.

    The last frame goes on, as it does when a clip is looked up, or there is silence, as in files
    shorter than a window.

    Parameters
    ----------
    levels : np.ndarray [shape=(window_frames, n_bands)]
    """
    n = int(rng.integers(1, longest + 1))
    backwards = levels[::-1] if rng.random() < 0.5 else levels
    backwards[:n] = backwards[n] if rng.random() < 0.7 else 0.0


def sounds_alike(levels: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """Pairs of different windows whose levels correlate above ``threshold``.

    Parameters
    ----------
    levels : np.ndarray [shape=(n, window_frames, n_bands)]

    Returns
    -------
    same : np.ndarray [shape=(n, n), dtype=bool]
        False on the diagonal.
    """
    flat = levels.reshape(len(levels), -1)
    # Without the mean spectrum, or every two windows of music look alike.
    flat = flat - levels.mean(axis=1, keepdims=True).repeat(levels.shape[1], 1).reshape(flat.shape)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9
    same = flat @ flat.T > threshold
    np.fill_diagonal(same, False)
    return same


class WindowBatches:
    """Windows of all kinds of sound, as they are, for the autoencoder."""

    def __init__(
        self,
        sources: Sequence[PcmCache],
        weights: Sequence[float],
        spec: FeatureSpec,
        inputs: LevelInput,
        n_excerpts: int = 64,
        n_each: int = 4,
        seed: int = 0,
    ) -> None:
        self.sources, self.spec, self.inputs = sources, spec, inputs
        self.weights = np.asarray(weights) / np.sum(weights)
        self.n_excerpts, self.n_each, self.seed = n_excerpts, n_each, seed

    def batch(self, number: int) -> Batch:
        """Windows ``number``: one array of levels [shape=(n, window_frames, n_bands)]."""
        rng = np.random.default_rng([self.seed, number])
        spec, windows = self.spec, []
        n_samples = spec.window_length + (self.n_each - 1) * spec.window_hop
        for which in rng.choice(len(self.sources), self.n_excerpts, p=self.weights):
            frames = log_mel(self.sources[which].excerpt(n_samples, rng), spec)
            starts = spec.hop_frames * np.arange(self.n_each)
            windows += [frames[s : s + spec.window_frames] for s in starts]
        return (self.inputs(np.stack(windows)),)


def prefetch(
    batches: Batches, first: int, last: int, depth: int = 4
) -> Generator[Batch, None, None]:
    """Batches ``first`` to ``last - 1``, made ahead in a thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.5)
                return

    def produce() -> None:
        try:
            for number in range(first, last):
                if stop.is_set():
                    return
                put(batches.batch(number))
        except BaseException as error:
            put(error)

    threading.Thread(target=produce, daemon=True, name="batches").start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
