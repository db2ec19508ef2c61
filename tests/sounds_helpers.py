"""What the tests of real sounds share: the drums that ship with the tests, as an archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from conftest import ROOT, SAMPLE_RATE

SOUNDS = ROOT / "tests" / "data" / "sounds"

Placed = tuple[str, float]
"""A sound, as ``folder/name``, and where it begins (s)."""


def load(sound: str) -> np.ndarray:
    """A shipped sound, mono at 16 kHz, peak 0.5."""
    samples, rate = soundfile.read(SOUNDS / f"{sound}.flac", dtype="float32", always_2d=True)
    signal = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)
    return 0.5 * signal / np.abs(signal).max()


def write_recording(
    path: Path, placed: Sequence[Placed], ambience: np.ndarray, level: float = 0.02
) -> list[tuple[float, float, str]]:
    """Write sounds over ambience; gives their onset (s), offset (s) and folder."""
    signal = level * ambience / np.abs(ambience).max()
    truth = []
    for sound, start in placed:
        heard = load(sound)
        first = round(start * SAMPLE_RATE)
        signal[first : first + len(heard)] += heard[: len(signal) - first]
        truth.append((start, start + len(heard) / SAMPLE_RATE, sound.split("/")[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, SAMPLE_RATE)
    return truth


def write_archive(folder: Path, ambience: np.ndarray) -> dict[str, list[tuple[float, float, str]]]:
    """Five recordings of 20 s with kicks, snares and what is neither; gives what is in each.

    ``ambience`` is at 16 kHz, 100 s or more.
    """
    kicks = sorted(f"kick/{p.stem}" for p in (SOUNDS / "kick").glob("*.flac"))
    snares = sorted(f"snare/{p.stem}" for p in (SOUNDS / "snare").glob("*.flac"))
    others = sorted(f"{k}/{p.stem}" for k in ("other", "bell") for p in (SOUNDS / k).glob("*.flac"))
    truth = {}
    for number in range(5):
        rng = np.random.default_rng(number)
        chosen = [*rng.choice(kicks, 4), *rng.choice(snares, 3), *rng.choice(others, 2)]
        starts = 1.0 + 2.0 * rng.permutation(len(chosen)) + rng.uniform(0, 0.8, len(chosen))
        placed = [(str(c), float(s)) for c, s in zip(chosen, starts, strict=True)]
        stretch = ambience[20 * number * SAMPLE_RATE : 20 * (number + 1) * SAMPLE_RATE].copy()
        name = f"evening-{number + 1}.wav"
        truth[name] = sorted(write_recording(folder / name, placed, stretch))
    return truth
