"""Sounds that stay as they are resemble each other: none may be taken for another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLE_RATE
from ingest_helpers import run

from encoders.audio import load_audio
from encoders.degrade import add_noise
from index.identify import Identifier

DRONES = sorted((ROOT / "tests" / "data" / "drones").glob("*.opus"))


def clips_of(path: Path) -> Iterator[np.ndarray]:
    """Pieces of a drone, and all of it, each clean and through noise."""
    signal = load_audio(path, SAMPLE_RATE)
    rng = np.random.default_rng(0)
    for seconds in (1, 2, 3, len(signal) / SAMPLE_RATE):
        n = round(seconds * SAMPLE_RATE)
        for start in {0, (len(signal) - n) // 2}:
            clip = signal[start : start + n]
            yield clip
            yield add_noise(clip, rng.normal(0, 1, len(clip)).astype(np.float32), 5.0)


def accepted(identifier: Identifier, path: Path) -> set[str]:
    """Names of everything that some clip of a drone is found in."""
    clips = clips_of(path)
    matches = (m for clip in clips for m in identifier.identify(clip, SAMPLE_RATE, top=None))
    return {Path(match.reference or "").name for match in matches}


@pytest.mark.parametrize("drone", DRONES, ids=lambda path: path.stem)
def test_a_drone_is_no_music(demo_catalog: Path, drone: Path) -> None:
    assert accepted(Identifier(demo_catalog), drone) == set()


@pytest.mark.parametrize("first", [0, 1])
def test_a_drone_is_no_other_drone(tmp_path: Path, first: int) -> None:
    known = DRONES[first::2]
    run(known, tmp_path / "catalog", build_index=True, fingerprint="fingerprint")
    identifier = Identifier(tmp_path / "catalog")
    for drone in DRONES:
        found = accepted(identifier, drone)
        assert found == ({drone.name} if drone in known else set()), drone.name
