"""Scores over time to events: median smoothing, hysteresis, onset and offset."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.ndimage

from encoders.features import FeatureSpec


@dataclasses.dataclass(frozen=True)
class RegionOptions:
    """How scores become events.

    Parameters
    ----------
    median_s : float
        Width of the median filter, s. Shorter bursts and gaps are noise.
    low : float
        An event goes on while the score stays above this share of the threshold.
    gap_s : float
        Events of one class that are no further apart are one.
    min_s : float
        Shorter events are left out.
    """

    median_s: float = 0.0
    low: float = 0.6
    gap_s: float = 0.1
    min_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class EventRegion:
    """A run of steps with a sound in it.

    Attributes
    ----------
    first, last : int
        Its steps.
    score : float
        The highest.
    """

    first: int
    last: int
    score: float


def smooth(scores: np.ndarray, step_s: float, median_s: float) -> np.ndarray:
    """Median filter over time.

    Parameters
    ----------
    scores : np.ndarray [shape=(n, n_classes)]
    step_s : float
        Between rows.
    median_s : float
        Width; rounded to an odd number of rows.

    Returns
    -------
    scores : np.ndarray [shape=(n, n_classes)]
    """
    width = 2 * int(median_s / step_s / 2) + 1
    if width == 1 or not len(scores):
        return scores
    return scipy.ndimage.median_filter(scores, size=(width, 1), mode="nearest")


def hysteresis(
    scores: np.ndarray, threshold: float, low: float, gap: int = 0, least: int = 1
) -> list[EventRegion]:
    """Runs that reach a threshold, as far as they stay above a lower one.

    Parameters
    ----------
    scores : np.ndarray [shape=(n,)]
    threshold, low : float
        ``low <= threshold``.
    gap : int
        Runs with no more steps between them are joined.
    least : int
        Shorter runs are left out.

    Returns
    -------
    regions : list of EventRegion
        In time order.

    Examples
    --------
    >>> hysteresis(np.array([0.1, 0.5, 0.9, 0.5, 0.1, 0.5]), 0.8, 0.4)
    [EventRegion(first=1, last=3, score=0.9)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], scores >= low, [False]])))
    runs = [
        (int(first), int(end)) for first, end in edges.reshape(-1, 2)
        if scores[first:end].max() >= threshold
    ]  # fmt: skip
    joined: list[tuple[int, int]] = []
    for first, end in runs:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((first, end))
    return [
        EventRegion(first, end - 1, float(scores[first:end].max()))
        for first, end in joined
        if end - first >= least
    ]


def find_regions(
    scores: np.ndarray, thresholds: np.ndarray, step_s: float, options: RegionOptions
) -> list[list[EventRegion]]:
    """Events of every class, each class on its own, so that different sounds may overlap.

    Parameters
    ----------
    scores : np.ndarray [shape=(n, n_classes)]
    thresholds : np.ndarray [shape=(n_classes,)]
    step_s : float
    options : RegionOptions

    Returns
    -------
    regions : list of list of EventRegion
        For each class, in time order.
    """
    smoothed = smooth(scores, step_s, options.median_s)
    gap, least = round(options.gap_s / step_s), max(1, round(options.min_s / step_s))
    return [
        hysteresis(smoothed[:, c], float(t), options.low * float(t), gap, least)
        for c, t in enumerate(thresholds)
    ]


def window_span(
    first: int, last: int, n_windows: int, seconds: float, spec: FeatureSpec
) -> tuple[float, float]:
    """Onset and offset of a run of stored windows, s.

    The first window of a run reaches in with part of its length only, so half of what windows
    overlap is taken off at either end; not off a single window, and not at an end of the
    recording.

    Parameters
    ----------
    first, last : int
        Windows, counted from the start of the recording.
    n_windows : int
        Of the recording.
    seconds : float
        Its length.
    spec : FeatureSpec
    """
    hop, length = spec.window_hop / spec.sample_rate, spec.window_length / spec.sample_rate
    margin = (length - hop) / 2 if last > first else 0.0
    onset = first * hop + (margin if first else 0.0)
    offset = seconds if last == n_windows - 1 else last * hop + length - margin
    return min(onset, seconds), min(offset, seconds)
