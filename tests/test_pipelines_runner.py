"""Through a runner of another process, over Beam's portable interface, everything is the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from ingest_helpers import assert_same_content, run

from pipelines.match import MatchOptions, match_corpus

SERVICE = "apache_beam.runners.portability.local_job_service_main"


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Options of a job service that runs beside the tests."""
    folder = tmp_path_factory.mktemp("service")
    port = folder / "port"
    command = [sys.executable, "-m", SERVICE, "--port", "0", "--port_file", str(port)]
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not port.exists() and time.monotonic() < deadline and service.poll() is None:
        time.sleep(0.1)
    assert port.exists(), (folder / "log").read_text()
    endpoint = f"--job_endpoint=localhost:{port.read_text()}"
    yield "--runner=PortableRunner", endpoint, "--environment_type=LOOPBACK"
    service.terminate()
    service.wait(60)


@pytest.mark.slow
def test_ingest_and_match_through_a_job_service(
    portable: tuple[str, ...], demo_tracks: Path, tmp_path: Path
) -> None:
    tracks: list[Path | str] = [demo_tracks / n for n in ("palace.ogg", "musicbox.mp3")]
    embedded, served = tmp_path / "embedded", tmp_path / "served"
    for folder, arguments in ((embedded, ()), (served, portable)):
        run(
            tracks, folder, build_index=True, shard_files=1, fingerprint="fingerprint",
            beam_args=arguments,
        )  # fmt: skip
    assert_same_content(embedded, served)
    found = []
    for folder, arguments in ((embedded, ()), (served, portable)):
        out = folder.with_suffix(".parquet")
        match_corpus([str(tracks[0])], folder, out, MatchOptions(beam_args=arguments))
        found.append(pq.read_table(out))
    assert found[0].equals(found[1])
    assert found[0]["reference"].to_pylist()[0] == str(tracks[0])
