"""Whether the samples of two stretches agree: asked about pairs that nobody planted.

It has nothing in common with the way pairs are found. Pieces of the one waveform are looked for in
the other, each within 50 ms of where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.signal

from encoders.audio import load_audio
from encoders.errors import AudioError
from index.metrics import correlate

_RATE = 16_000
_SLACK = round(0.05 * _RATE)
_LONGEST_S = 10.0
# Another tempo is made by moving grains, so pieces are as short. Half of them must correlate so:
# in music at 0.94 and 1.06 of its tempo they do at 0.95 and more, in other music at 0.32 at most.
_PIECE = round(0.1 * _RATE)
_N_PIECES = 40
_SAME_PIECES = 0.75
# What is brief may be a hit of the same drum, and pieces of that are alike: both its halves are
# asked for, and may have gone through an equaliser of so many taps. Share of the power.
_BRIEF_S = 5.0
_TAPS = 16
_SAME_HALVES = 0.64
# Fewer samples say nothing.
_LEAST = 50 * _TAPS


def shares_waveform(row: Mapping[str, Any]) -> bool:
    """Whether the samples of a reported stretch agree, which no look-alike's do.

    Up to 10 s of it are compared, at the speed that is reported, with the pitch changed and not.
    """
    try:
        a, b = (load_audio(row[side], _RATE).astype(np.float64) for side in ("a", "b"))
    except AudioError:
        return False
    start, seconds = row["a_start_s"], min(_LONGEST_S, row["a_end_s"] - row["a_start_s"])
    speed = row.get("speed", 1.0)
    a = a[round(start * _RATE) :][: round(seconds * _RATE)]
    # From the slack before its place to the slack behind.
    b = np.pad(b, _SLACK)[round(row["b_start_s"] * _RATE) :]
    b = b[: round(seconds * speed * _RATE) + 2 * _SLACK]
    if seconds < _BRIEF_S:
        return _share_halves(a, b)
    stretched = scipy.signal.resample(b, round(len(b) / speed)) if speed != 1.0 else b
    return max(_likeness(a, b, speed), _likeness(a, stretched, 1.0)) > _SAME_PIECES


def _likeness(a: np.ndarray, b: np.ndarray, speed: float) -> float:
    # Median correlation of pieces of a with what is around their place in b.
    found = []
    for start in np.linspace(0, len(a) - _PIECE, _N_PIECES).astype(int):
        piece = a[start : start + _PIECE]
        around = b[round(start * speed) :][: _PIECE + 2 * _SLACK]
        if piece.any() and len(around) >= _PIECE:
            found.append(_place(piece, around)[1])
    return float(np.median(found)) if found else 0.0


def _share_halves(a: np.ndarray, b: np.ndarray) -> bool:
    middle = len(a) // 2
    if middle < _LEAST:
        return False
    halves = (a[:middle], b[: middle + 2 * _SLACK]), (a[middle:], b[middle:])
    return all(_explained(*half) > _SAME_HALVES for half in halves)


def _explained(piece: np.ndarray, around: np.ndarray) -> float:
    # Share of the power that a short filter makes of the piece; fitted to every other sample, and
    # measured on the rest.
    if not piece.any() or len(around) < len(piece):
        return 0.0
    place, _ = _place(piece, around)
    wanted = around[place : place + len(piece)]
    padded = np.pad(piece, (_TAPS // 2, _TAPS - _TAPS // 2 - 1))
    delayed = np.lib.stride_tricks.sliding_window_view(padded, _TAPS)
    taps = np.linalg.lstsq(delayed[::2], wanted[::2], rcond=1e-6)[0]
    left = wanted[1::2] - delayed[1::2] @ taps
    return float(1 - (left @ left) / max(1e-12, wanted[1::2] @ wanted[1::2]))


def _place(piece: np.ndarray, around: np.ndarray) -> tuple[int, float]:
    # Where a piece correlates best, and how well.
    correlation = np.abs(correlate(piece, around))
    best = int(np.argmax(correlation))
    return best, float(correlation[best])
