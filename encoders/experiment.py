"""What a training run comes to: figures while it runs, an examination after, a line in a log."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from encoders.batches import Batches, prefetch
from encoders.cost import Cost

Progress = Callable[[int, dict[str, float]], None]

LOG_FILE = "experiment.json"


class Tally:
    """Figures of a run from those of its steps: hand it to :func:`encoders.training.fit`.

    Parameters
    ----------
    progress : callable, optional
        Is called with every step and the figures so far: the newest of each kind, those of the
        held-back batches too, and ``waited``, the mean share of a step spent waiting for batches.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._latest: dict[str, float] = {}
        self._waited: list[float] = []
        self._times: list[float] = []

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        """Take the figures of a step."""
        self._times.append(time.perf_counter())
        self._waited.append(figures["waited"])
        self._latest |= figures | {"waited": float(np.mean(self._waited))}
        if self._progress:
            self._progress(step, dict(self._latest))

    def figures(self) -> dict[str, float]:
        """The figures in the end, with ``steps_taken`` and ``seconds_per_step``.

        Empty where no step was taken, as in a run that had ended before.
        """
        if not self._times:
            return {}
        # From the end of the first step: that one waits for the compiler.
        between = max(1, len(self._times) - 1)
        seconds = (self._times[-1] - self._times[0]) / between
        return self._latest | {
            "steps_taken": float(len(self._times)),
            "seconds_per_step": seconds,
        }


@dataclasses.dataclass(frozen=True)
class Examination:
    """How fingerprints of held-back pairs do.

    Parameters
    ----------
    same, different : np.ndarray [shape=(n_windows,)], [shape=(n_different,)]
        Cosines of a degraded window with its clean one; with other windows of its batch.
    top_1 : float
        Share of the degraded windows whose clean one is the nearest of *all* clean windows. One
        that sounds the same, such as a loop, is as good.
    """

    same: np.ndarray
    different: np.ndarray
    top_1: float

    @property
    def n_windows(self) -> int:
        """Windows that were looked for, among as many."""
        return len(self.same)


def examine(
    embed: Callable[[np.ndarray], np.ndarray], held_back: Batches, first: int, last: int
) -> Examination:
    """Look for the degraded windows of batches ``first`` to ``last - 1`` among the clean ones.

    Parameters
    ----------
    embed : callable
        Network inputs [shape=(n, window_frames, n_bands)] to unit vectors [shape=(n, dim)].
    held_back : Batches
        Pairs, as :class:`encoders.batches.PairBatches` gives them.
    """
    clean, heard, alike = [], [], []
    for anchors, positives, same in prefetch(held_back, first, last):
        clean.append(embed(anchors))
        heard.append(embed(positives))
        alike.append(same)
    everything = np.concatenate(clean)
    own, different, n_right, start = [], [], 0, 0
    for known, queries, same in zip(clean, heard, alike, strict=True):
        n = len(known)
        cosines = queries @ known.T
        own.append(np.diagonal(cosines))
        as_good = same | np.eye(n, dtype=bool)
        different.append(cosines[~as_good])
        nearest = np.argmax(queries @ everything.T, axis=1) - start
        here = (nearest >= 0) & (nearest < n)
        n_right += int(as_good[here, nearest[here]].sum())
        start += n
    return Examination(np.concatenate(own), np.concatenate(different), n_right / start)


def log_run(
    out: Path, kind: str, settings: dict[str, Any], cost: Cost, figures: dict[str, float]
) -> None:
    """Append a line of JSON to ``out/experiment.json``: settings to figures."""
    line = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kind": kind,
        "settings": settings,
        "cost": dataclasses.asdict(cost),
        "figures": {name: round(value, 6) for name, value in figures.items()},
    }
    with (out / LOG_FILE).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
