"""When exactly, and how fast: an alignment below the grid that was searched."""

from __future__ import annotations

import dataclasses

import numpy as np

from encoders.signs import n_signs
from index.match.align import Alignment, refine, vertex
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
        move, agreement = _fine_move(tried, index, spectrogram)
        if agreement > most:
            best, most = dataclasses.replace(tried, lag=tried.lag + move), agreement
    return best


def _fine_move(
    a: Alignment, index: FingerprintIndex, spectrogram: Spectrogram
) -> tuple[float, float]:
    # By how many query steps the lag, which is right to three frames, should grow, to a fraction of
    # a frame; and the agreement there, in any unit. Both are 0 where nothing near is better than
    # what is far. Agreement, which changes little by little, has its top between two frames. What
    # counts is where sound sets in: a room makes the rest of it late.
    begin, end = spectrogram.stretch(a.first, a.last)
    begin += max(0, (end - begin - _MOST) // 2)
    end = min(end, begin + _MOST)
    places = spectrogram.places(a.lag, a.speed, begin, end)
    frames = np.round(places).astype(int)
    held, known = held_near(index, a.recording, frames, _FINE)
    mine = spectrogram.at_pitch(a.detail.pitch)[:, begin:end]
    differ = np.bitwise_count(held ^ mine).sum(axis=1)
    weights = np.where(spectrogram.heard, spectrogram.rises, 0.0)[begin:end]
    agree = (known * (n_signs(spectrogram.spec) - 2.0 * differ)) @ weights
    peak = int(np.argmax(agree))
    if not 0 < peak < len(agree) - 1:
        return 0.0, 0.0
    move = peak - _FINE + vertex(agree, peak) + float(np.mean(frames - places))
    return move / spectrogram.per_step, float(agree[peak])
