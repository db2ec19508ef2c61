from __future__ import annotations

import os

# Before anything imports numpy: the tests run beside others on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 16_000


@pytest.fixture(scope="session")
def demo_tracks() -> Path:
    """The folder of real music and sound that ships with the package."""
    return ROOT / "pipelines" / "demo_tracks"


@pytest.fixture(scope="session")
def music(demo_tracks: Path) -> tuple[np.ndarray, int]:
    """40 s of real music: (signal [shape=(n_samples,), float32, mono], sample_rate in Hz)."""
    samples, rate = soundfile.read(demo_tracks / "palace.ogg", dtype="float32", always_2d=True)
    signal = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)
    signal.setflags(write=False)
    return signal, SAMPLE_RATE
