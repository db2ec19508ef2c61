"""What the tests of ingest share: tiny bundles, small real audio, a catalog as plain rows."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from conftest import ROOT, SAMPLE_RATE

from encoders.features import FeatureSpec
from index.catalog import Catalog
from index.config import CatalogConfig, EncoderInfo
from pipelines.ingest import IngestOptions, IngestSummary, ingest

FINGERPRINT = str(ROOT / "tests" / "data" / "bundles" / "fingerprint")
VAE = str(ROOT / "tests" / "data" / "bundles" / "vae")


def run(inputs: list[Path | str], catalog: Path, **options: Any) -> IngestSummary:
    """Ingest with the tiny bundles; the index is built only when asked for."""
    settings = {"fingerprint": FINGERPRINT, "vae": VAE, "build_index": False, **options}
    return ingest([str(i) for i in inputs], catalog, IngestOptions(**settings), log=io.StringIO())


def write_tone(path: Path, seconds: float = 2.0, pitch: float = 440.0, **kwargs: Any) -> Path:
    """A tone with overtones and a little noise, different for every pitch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(tone_bytes(seconds, pitch, **kwargs))
    return path


def tone_bytes(seconds: float = 2.0, pitch: float = 440.0, audio_format: str = "WAV") -> bytes:
    """The bytes of a file with a tone."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(round(pitch)).normal(0, 0.01, len(t))
    signal = 0.3 * np.sin(2 * np.pi * pitch * t) + 0.1 * np.sin(6 * np.pi * pitch * t) + noise
    buffer = io.BytesIO()
    soundfile.write(buffer, signal, SAMPLE_RATE, format=audio_format)
    return buffer.getvalue()


def rows(catalog: Path) -> dict[str, dict[str, Any]]:
    """The current rows by uri."""
    table = Catalog.open(catalog).recordings()
    return {row["uri"]: row for row in table.to_pylist()}


def content(catalog: Path) -> tuple[pa.Table, pa.Table]:
    """All that a catalog says: current recordings, and the windows of each of them, sorted."""
    opened = Catalog.open(catalog)
    recordings = opened.recordings()
    windows = []
    for part in opened.parts():
        # Rows of the windows part belong to the recordings of its twin, one after the other.
        mine = pq.read_table(catalog / "recordings" / part)
        all_windows = pq.read_table(catalog / "windows" / part)
        assert all_windows.num_rows == sum(mine["n_windows"].to_pylist())
        first = 0
        for row in mine.to_pylist():
            table = all_windows.slice(first, row["n_windows"])
            first += row["n_windows"]
            windows.append(
                table.append_column("uri", pa.array([row["uri"]] * table.num_rows, pa.string()))
            )
    keys = [("recording_id", "ascending"), ("start_sample", "ascending"), ("uri", "ascending")]
    return recordings, pa.concat_tables(windows).combine_chunks().sort_by(keys)


def assert_same_content(a: Path, b: Path) -> None:
    """Two catalogs hold equal rows."""
    for mine, theirs in zip(content(a), content(b), strict=True):
        assert mine.equals(theirs)


def leftovers(catalog: Path) -> list[str]:
    """Unfinished files, and windows without recordings."""
    parts = set(Catalog.open(catalog).parts())
    found = [p.name for p in catalog.rglob("*.tmp")]
    return found + [p.name for p in (catalog / "windows").iterdir() if p.name not in parts]


def small_config(**changes: Any) -> CatalogConfig:
    """A configuration with vectors of two numbers, for tests without encoders."""
    settings = {
        "spec": FeatureSpec(n_mfcc=1),
        "fingerprint": EncoderInfo("f", "aa" * 32, "int8", 2),
        "latent": EncoderInfo("v", "bb" * 32, "int8", 2),
        **changes,
    }
    return CatalogConfig(**settings)


def command_line(catalog: Path, *inputs: Path | str) -> list[str]:
    """Arguments of ``earmark ingest`` with the tiny bundles and without the index."""
    settings = ["--encoder", FINGERPRINT, "--vae", VAE, "--no-index", "--format", "jsonl"]
    return ["ingest", *map(str, inputs), "--catalog", str(catalog), *settings]


MAIN = "import sys; from pipelines.cli import main; main(sys.argv[1:])"
"""The ``earmark`` command, for ``python -c``."""


def run_program(program: str, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own."""
    command = [sys.executable, "-c", program, *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)


def count_ok(summary: IngestSummary) -> int:
    """How many inputs a run took in, when none of them was bad."""
    assert (summary.partial, summary.failed) == (0, 0)
    return summary.ok


def write_folder(folder: Path) -> Path:
    """Three different tones of different lengths and formats."""
    write_tone(folder / "a.wav", 3.0, 300)
    write_tone(folder / "b.flac", 1.0, 400, audio_format="FLAC")
    write_tone(folder / "sub" / "c.ogg", 5.3, 500, audio_format="OGG")
    return folder
