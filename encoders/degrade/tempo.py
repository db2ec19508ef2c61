"""Speed, tempo and pitch."""

from __future__ import annotations

import contextlib

import numpy as np
import soxr


def change_speed(signal: np.ndarray, speed: float) -> np.ndarray:
    """Play faster (``speed > 1``) or slower: pitch and tempo change together."""
    return soxr.resample(signal, speed, 1.0, quality="QQ" if abs(speed - 1) < 0.1 else "HQ")


def change_tempo(signal: np.ndarray, sample_rate: int, tempo: float) -> np.ndarray:
    """Play faster (``tempo > 1``) or slower at the same pitch, by FFmpeg's ``atempo``.

    Sample ``n`` of the result is ``n * tempo`` of the input, to about 20 ms: it is made of pieces.
    """
    import av

    # Pieces run ahead of a slower tempo, and lag behind a faster one, by 10 to 20 ms.
    ahead = round(0.014 * sample_rate) * int(np.sign(1 - tempo))
    lead = sample_rate // 4
    padded = np.pad(signal.astype(np.float32), (lead + ahead, lead), mode="symmetric")
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")
    graph.link_nodes(source, graph.add("atempo", f"{tempo:.6f}"), graph.add("abuffersink"))
    graph.configure()
    frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
    frame.sample_rate = sample_rate
    graph.push(frame)
    graph.push(None)
    pieces = []
    with contextlib.suppress(av.EOFError):
        while True:
            pieces.append(graph.pull().to_ndarray()[0])
    first = round(lead / tempo)
    return np.concatenate(pieces)[first : first + round(len(signal) / tempo)]


def change_pitch(signal: np.ndarray, sample_rate: int, cents: float) -> np.ndarray:
    """Play higher (``cents > 0``) or lower at the same tempo; the length may differ by a sample."""
    ratio = 2.0 ** (cents / 1200)
    return change_tempo(change_speed(signal, ratio), sample_rate, 1 / ratio)
