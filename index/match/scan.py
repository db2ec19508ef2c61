"""Every place of every recording: the last resort for a clip that its fingerprints do not find.

Noise and rooms can turn a fingerprint so far that no neighbour of it is the right one, while signs
(:mod:`encoders.signs`) still agree where the sound is the same. To compare some of them with all
that an index holds takes about eight milliseconds for an hour of it, so it is done only where
nothing else was found, and not in an index of more than 70 hours.
"""

from __future__ import annotations

import numpy as np

from index.match.detail import Spectrogram, strengths
from index.search import FingerprintIndex

MAX_ROWS = 1 << 19
"""Windows of an index that are looked through; in a larger one nothing is."""

# Frames of the query that are compared with all others, at most: every other one, as neighbours say
# much the same.
_FRAMES, _STRIDE = 32, 2
# Frames of the index that are compared at a time, so that what is tabulated stays in the cache.
_AT_ONCE = 1 << 13
# Places kept of them, and of all, to be compared in all frames of so many seconds.
_BEST, _SHORTLIST, _ALL_FRAMES = 16, 1024, 96
# Differing signs of so many frames fit into a byte.
_IN_A_BYTE = 7


def scan(query: Spectrogram, index: FingerprintIndex, n_best: int) -> list[tuple[int, float]]:
    """Places where the signs of a query agree best, whatever its fingerprints are.

    Parameters
    ----------
    query : Spectrogram
    index : FingerprintIndex
    n_best : int

    Returns
    -------
    places : list of (recording, lag)
        Most alike first; neighbouring places are not told apart.
    """
    heard = np.flatnonzero(query.heard)
    held = index.signs.reshape(-1, index.signs.shape[2])
    frames = heard[heard % _STRIDE == 0]
    if not len(frames) or heard[-1] >= len(held) or index.info.n_rows > MAX_ROWS:
        return []
    frames = frames[np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)]
    mine = query.signs[:, frames].T
    places = np.concatenate(
        [
            _STRIDE * _shortlist(mine, frames // _STRIDE, held[first::_STRIDE]) + first
            for first in range(_STRIDE)
        ]
    )
    per_row = index.signs.shape[1]
    recordings = index.recording_of(places // per_row)
    # The first frame of a recording has no signs.
    numbers = places - index.first_rows[recordings] * per_row + 1
    lags = (numbers - query.first) / query.per_step
    near = np.round(lags).astype(int)
    middle = np.full(len(places), len(query.heard) // (2 * query.per_step))
    strength = strengths(query, index, recordings, near, middle, _ALL_FRAMES)
    best = np.argsort(-strength, kind="stable")[:n_best]
    return list(zip(recordings[best].tolist(), lags[best].tolist(), strict=True))


def _shortlist(mine: np.ndarray, frames: np.ndarray, held: np.ndarray) -> np.ndarray:
    # Where some frames of a query [shape=(n, n_words)] differ least from frames that are as far
    # apart, of all that are held [shape=(n_frames, n_words)].
    n_words = mine.shape[1]
    last = len(held) - int(frames[-1])
    tiled = [np.tile(words, _AT_ONCE) for words in mine]
    changed = np.empty(n_words * _AT_ONCE, np.uint32)
    counted, differ = (np.empty(n_words * _AT_ONCE, np.uint8) for _ in range(2))
    places, totals = [], []
    for start in range(0, last, _AT_ONCE):
        n = min(_AT_ONCE, last - start)
        total = np.zeros(n, np.uint16)
        part = np.ascontiguousarray(held[start : start + n + int(frames[-1])]).reshape(-1)
        for first in range(0, len(frames), _IN_A_BYTE):
            differ[:] = 0
            some = slice(first, first + _IN_A_BYTE)
            for words, frame in zip(tiled[some], frames[some].tolist(), strict=True):
                size = n_words * n
                there = part[n_words * frame :][:size]
                np.bitwise_xor(there, words[:size], out=changed[:size])
                differ[:size] += np.bitwise_count(changed[:size], out=counted[:size])
            for word in range(n_words):
                total += differ[word : n_words * n : n_words]
        best = np.argpartition(total, min(_BEST, n) - 1)[:_BEST]
        places.append(start + best)
        totals.append(total[best])
    order = np.argsort(np.concatenate(totals), kind="stable")
    return np.concatenate(places)[order[:_SHORTLIST]]
