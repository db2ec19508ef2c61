"""The detector: one network that says of every moment of a recording which sounds are heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.special

from encoders.bundle import load_bundle, update_meta
from encoders.errors import BundleError
from encoders.features import FLOOR_DB, SILENCE_DB, FeatureSpec

KIND = "detector"

STEP = 2
"""Frames for which the network answers once (62.5 ms)."""

# Of neighbouring windows, this share overlaps: at its ends a window knows one side only.
_OVERLAP = 0.25

# Nothing is so sure that another class could not be meant.
_LEAST_ABSENT = 0.03


class Detector:
    """A trained detector, ready to run.

    Parameters
    ----------
    name_or_path : str or Path
        A shipped bundle, or a folder.

    Attributes
    ----------
    classes : list of str
    special : list of str
        Those that networks which know no others were asked for as well.
    thresholds : np.ndarray [shape=(n_classes,)]
        Score from which an event of each is reported.
    spec : FeatureSpec
        Its window is what the network sees at once.

    Raises
    ------
    BundleError
        If there is no such bundle, or it is another kind of network.
    """

    def __init__(self, name_or_path: str | Path = KIND) -> None:
        self.bundle = load_bundle(name_or_path, "float32")
        if self.bundle.kind != KIND:
            raise BundleError(f"{self.bundle.folder} is a {self.bundle.kind} and no {KIND}")
        meta = self.bundle.meta
        try:
            self.classes = [str(name) for name in meta["classes"]]
            self.special = [str(name) for name in meta["special"]]
            self.thresholds = np.array(meta["thresholds"], np.float64).reshape(len(self.classes))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.bundle.folder} does not describe a {KIND}: {error}") from None
        self.spec: FeatureSpec = self.bundle.spec

    def scores(self, frames: np.ndarray) -> np.ndarray:
        """How likely each class is heard in each frame.

        Parameters
        ----------
        frames : np.ndarray [shape=(n_frames, n_mels)]
            Log-mel, dB, made by :attr:`spec`.

        Returns
        -------
        scores : np.ndarray [shape=(n_frames, n_classes), dtype=float32]
            0 to 1, and 0 in silence. Where windows overlap, the mean of both, each counting less
            towards its ends.
        """
        length, n = self.spec.window_frames, len(self.classes)
        hop = length - round(_OVERLAP * length)
        starts = range(0, max(1, len(frames) - length + hop), hop)
        total = np.zeros((starts[-1] + length, n), np.float32)
        weight = np.zeros((len(total), 1), np.float32)
        edge = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
        fade = np.minimum(edge / (length - hop), 1.0).astype(np.float32)[:, None]
        for start in starts:
            window = np.full((length, frames.shape[1]), FLOOR_DB, np.float32)
            heard = frames[start : start + length]
            window[: len(heard)] = heard
            weight[start : start + length] += fade
            if window.max() >= SILENCE_DB:
                logits = self.bundle.run(window[None])[0][:, :n]
                said = np.repeat(scipy.special.expit(logits), STEP, axis=0)
                total[start : start + length] += fade * said
        scores = (total / weight)[: len(frames)]
        scores[frames.max(axis=1, initial=FLOOR_DB) < SILENCE_DB] = 0.0
        return scores


def condition(scores: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Scores of some classes, where no other can be there.

    Parameters
    ----------
    scores : np.ndarray [shape=(n, n_classes)]
    chosen : sequence of int

    Returns
    -------
    scores : np.ndarray [shape=(n, n_chosen)]
        Given that the likeliest of the others is not heard.
    """
    others = np.delete(scores, chosen, axis=1)
    if not others.shape[1]:
        return scores[:, chosen]
    absent = np.maximum(1.0 - others.max(axis=1, keepdims=True), _LEAST_ABSENT)
    given: np.ndarray = np.minimum(scores[:, chosen] / absent, 1.0)
    return given


def write_thresholds(folder: Path, thresholds: Sequence[float], f1: Sequence[float | None]) -> None:
    """Store from which score events of each class are reported, and what event F1 that gave it.

    The bundle's hash stays.
    """
    update_meta(
        folder,
        thresholds=[round(float(value), 3) for value in thresholds],
        f1=[None if value is None else round(float(value), 3) for value in f1],
    )
