"""When exactly, and how fast: an alignment below the grid that was searched."""

from __future__ import annotations

import dataclasses

import numpy as np

from encoders.signs import n_signs
from index.match.align import Alignment, refine
from index.match.detail import SURE, Spectrogram, held_near
from index.search import FingerprintIndex

# Frames on both sides of a lag at which signs are compared, in so many frames at most.
_FINE, _MOST = 4, 4096


def sharpen(
    queries: np.ndarray, a: Alignment, index: FingerprintIndex, spectrogram: Spectrogram
) -> Alignment:
    """Fit lag and speed of an alignment below the grid that was searched.

    Fingerprints tell them (:func:`index.match.align.refine`), and the signs, where they are sure,
    which of both speeds is right and the time to some milliseconds.
    """
    refined = refine(queries, index, a)
    if a.detail.strength < SURE:
        return refined
    best, most = refined, 0.0
    for tried in [a] if refined.speed == a.speed else [a, refined]:
        stretch = spectrogram.stretch(tried.first, tried.last)
        where = tried.recording, tried.lag, tried.speed, stretch, tried.detail.pitch
        move, agreement = _fine_move(spectrogram, index, *where)
        if agreement > most:
            best, most = dataclasses.replace(tried, lag=tried.lag + move), agreement
    return best


def _fine_move(
    query: Spectrogram,
    index: FingerprintIndex,
    recording: int,
    lag: float,
    speed: float,
    stretch: tuple[int, int],
    pitch: float,
) -> tuple[float, float]:
    """By how much the lag should grow, to a fraction of a frame.

    The agreement of signs, which change little by little, has its top between two frames (a
    parabola through the best one and its neighbours). What counts is where sound sets in: a room
    makes the rest of it late.

    Parameters
    ----------
    query, index, recording, lag, speed, stretch
        As for :func:`index.match.detail.compare`; the lag is right to three frames already.
    pitch : float
        At which they agree best.

    Returns
    -------
    move : float
        In query steps; 0 where nothing near is better than what is far.
    agreement : float
        Of the frame that is nearest to the top, in any unit; 0 where there is no top.
    """
    begin, end = stretch
    begin += max(0, (end - begin - _MOST) // 2)
    end = min(end, begin + _MOST)
    place = lag * query.per_step + speed * (query.first + begin + np.arange(end - begin))
    frames = np.round(place).astype(int)
    held, known = held_near(index, recording, frames, _FINE)
    differ = np.bitwise_count(held ^ query.at_pitch(pitch)[:, begin:end]).sum(axis=1)
    weights = np.where(query.heard, query.rises, 0.0)[begin:end]
    agree = (known * (n_signs(query.spec) - 2.0 * differ)) @ weights
    peak = int(np.argmax(agree))
    if not 0 < peak < len(agree) - 1:
        return 0.0, 0.0
    before, best, after = agree[peak - 1 : peak + 2]
    top = 0.5 * (before - after) / (before + after - 2 * best)
    move = float(peak - _FINE + top + np.mean(frames - place)) / query.per_step
    return move, float(best)
