"""Where something sounds above the background, frame by frame: exact onsets and offsets.

A window of a second tells what sounds, and only roughly when. How far the spectrum stands out of
the noise floor tells when, and not what. Together they tell both.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import scipy.special

from encoders.features import SILENCE_DB, FeatureSpec

# The floor of a band: this percentile of its level, over so many seconds around.
_FLOOR_PERCENTILE = 20
_FLOOR_S = 6.0
# A band stands out from so many dB above its floor; what is further above counts up to a limit.
_MARGIN_DB = 6.0
_MOST_DB = 40.0
# The loudest share of the bands decides, so that a narrow sound counts as much as a broad one.
_BANDS = 0.15
# An excess of so many dB is as likely foreground as not, and how sharp that is.
_HALF_DB = 3.5
_SLOPE = 1.2
# Beside a loud sound, what is as far above the floor as this share of it is background still.
_SHARE = 0.35
_BESIDE_S = 0.6


def activity(frames: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """How surely a sound stands out of the background.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
        Log-mel, dB.
    spec : FeatureSpec

    Returns
    -------
    activity : np.ndarray [shape=(n_frames,)]
        0 to 1.
    """
    if not len(frames):
        return np.empty(0)
    per_second = spec.sample_rate / spec.hop_length
    # Thirds of a second are enough for a floor.
    step = max(1, round(per_second / 3))
    coarse = np.stack([frames[i : i + step].mean(axis=0) for i in range(0, len(frames), step)])
    width = max(1, round(_FLOOR_S * per_second / step))
    floor = scipy.ndimage.percentile_filter(
        coarse, _FLOOR_PERCENTILE, size=(width, 1), mode="reflect"
    )
    floor = np.maximum(np.repeat(floor, step, axis=0)[: len(frames)], SILENCE_DB)
    excess = np.clip(frames - floor - _MARGIN_DB, 0.0, _MOST_DB)
    n = max(1, round(_BANDS * spec.n_mels))
    loudest = np.partition(excess, spec.n_mels - n, axis=1)[:, -n:].mean(axis=1)
    smoothed = scipy.ndimage.median_filter(loudest, size=3, mode="nearest")
    beside = 2 * round(_BESIDE_S * per_second) + 1
    loudest_near = scipy.ndimage.maximum_filter1d(smoothed, beside, mode="nearest")
    half = np.maximum(_HALF_DB, _SHARE * loudest_near)
    return scipy.special.expit(_SLOPE * (smoothed - half))


def sharpen(
    scores: np.ndarray, step_frames: int, frames: np.ndarray, spec: FeatureSpec, reach_s: float
) -> np.ndarray:
    """Scores of windows to scores of frames, where something stands out.

    Parameters
    ----------
    scores : np.ndarray [shape=(n_steps, n_classes)]
        Of the window around every step.
    step_frames : int
        Between steps.
    frames : np.ndarray [shape=(n_frames, n_mels)]
    spec : FeatureSpec
    reach_s : float
        A window speaks for so much on either side of its middle.

    Returns
    -------
    scores : np.ndarray [shape=(n_frames, n_classes)]
    """
    reach = 2 * round(reach_s * spec.sample_rate / spec.hop_length / step_frames) + 1
    wide = scipy.ndimage.maximum_filter1d(scores, reach, axis=0, mode="nearest")
    at = np.minimum(np.arange(len(frames)) / step_frames, len(wide) - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(wide) - 1)
    part = (at - below)[:, None]
    fine = wide[below] * (1 - part) + wide[above] * part
    return fine * activity(frames, spec)[:, None]
