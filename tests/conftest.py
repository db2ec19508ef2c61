from __future__ import annotations

import os

# Before anything imports numpy: the tests run beside others on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from index.identify import Identifier

# Where every change is tested, neither a slow machine nor the luck of the draw may decide: the same
# examples each time.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
if os.environ.get("CI"):
    settings.load_profile("ci")

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


@pytest.fixture(scope="session")
def demo_catalog(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """All the music that ships with the package, by the encoder that ships with it; to read."""
    from ingest_helpers import run

    folder = tmp_path_factory.mktemp("demo") / "catalog"
    other = (".csv", ".md")
    # Ambience is for the background of clips.
    music = (
        p for p in demo_tracks.iterdir() if p.suffix not in other and "restaurant" not in p.name
    )
    run(sorted(music), folder, build_index=True, fingerprint="fingerprint")
    return folder


@pytest.fixture(scope="module")
def identifier(demo_catalog: Path) -> Identifier:
    """Of that catalog."""
    from index.identify import Identifier

    return Identifier(demo_catalog)


@pytest.fixture(scope="module")
def signal(demo_tracks: Path) -> np.ndarray:
    """palace.ogg, which is in that catalog, as encoders hear it [shape=(n_samples,)]; to read."""
    from encoders.audio import load_audio

    signal = load_audio(demo_tracks / "palace.ogg", SAMPLE_RATE)
    signal.setflags(write=False)
    return signal


@pytest.fixture(scope="session")
def three_tracks(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """A catalog of three demo tracks, as the command makes it; to read."""
    from ingest_helpers import run

    folder = tmp_path_factory.mktemp("three") / "catalog"
    tracks = [demo_tracks / name for name in ("palace.ogg", "musicbox.mp3", "hacienda.mp3")]
    run(tracks, folder, build_index=True, fingerprint="fingerprint", vae="vae")
    return folder
