"""Rooms: simulated, and heard."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import scipy.signal

ROOMS_FILE = Path(__file__).parent.parent / "data" / "rooms.npy"


def reverberate(signal: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """Play the signal in a room; the direct sound keeps its place in time.

    Parameters
    ----------
    impulse_response : np.ndarray [shape=(n_taps,)]
        Its strongest tap is taken for the direct sound.
    """
    direct = int(np.argmax(np.abs(impulse_response)))
    wet = scipy.signal.fftconvolve(signal, impulse_response)
    return wet[direct : direct + len(signal)].astype(np.float32)


def simulate_rooms(n_rooms: int, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Impulse responses of random shoebox rooms by the image-source method (pyroomacoustics).

    Needs the ``train`` extra.

    Returns
    -------
    responses : np.ndarray [shape=(n_rooms, n_taps), dtype=float32]
        1 s each; the direct sound has unit gain. RT60 is drawn from 0.2 to 1.2 s.
    """
    import pyroomacoustics

    rng = np.random.default_rng(seed)
    n_taps = sample_rate
    responses = np.zeros((n_rooms, n_taps), np.float32)
    for response in responses:
        size = rng.uniform([2.5, 2.5, 2.2], [9.0, 7.0, 4.0])
        # Sabine's formula has no solution for a short RT60 in a large room: draw within its reach.
        rt60 = rng.uniform(0.1 + 0.02 * size.max(), 1.15)
        absorption, _ = pyroomacoustics.inverse_sabine(rt60, size)
        room = pyroomacoustics.ShoeBox(
            size,
            fs=sample_rate,
            materials=pyroomacoustics.Material(min(absorption, 0.99)),
            # So many reflections carry the tail of the liveliest of these rooms.
            max_order=35,
        )
        source, listener = rng.uniform(0.15, 0.85, (2, 3)) * size
        room.add_source(source)
        room.add_microphone(listener)
        room.compute_rir()
        taps = np.asarray(room.rir[0][0], np.float32)
        taps = taps[int(np.argmax(np.abs(taps))) :][:n_taps]
        response[: len(taps)] = taps / np.abs(taps).max()
    return responses


@functools.lru_cache(maxsize=1)
def shipped_rooms() -> np.ndarray:
    """A few rooms that come with the package, at 16 kHz [shape=(n_rooms, n_taps)]."""
    return np.load(ROOMS_FILE, allow_pickle=False).astype(np.float32)
