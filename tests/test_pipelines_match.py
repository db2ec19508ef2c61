from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from encoders.audio import load_audio
from encoders.errors import EarmarkError
from index.identify import Identifier
from index.schema import MATCHES
from index.storage import write_atomically
from pipelines.cli import main
from pipelines.match import MatchOptions, match_corpus

RATE = 16_000
TRACKS = ["palace.ogg", "musicbox.mp3", "hacienda.mp3"]


@pytest.fixture
def catalog(three_tracks: Path) -> Path:
    return three_tracks


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """Clips of known tracks, one of another, a broken one, and one that goes on for long."""
    folder = tmp_path_factory.mktemp("clips")
    tracks = {name: load_audio(demo_tracks / name, RATE) for name in [*TRACKS, "restaurant.ogg"]}
    for number in range(4):
        for name in ("palace.ogg", "hacienda.mp3"):
            start = (3 + 2 * number) * RATE
            path = folder / f"{Path(name).stem}-{number}.wav"
            soundfile.write(path, tracks[name][start : start + 4 * RATE], RATE)
    soundfile.write(folder / "unknown.wav", tracks["restaurant.ogg"][: 4 * RATE], RATE)
    (folder / "broken.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    long = [tracks[name][: 15 * RATE] for name in TRACKS]
    soundfile.write(folder / "long.wav", np.concatenate(long), RATE)
    return folder


def read(path: Path) -> list[dict[str, object]]:
    table = pq.read_table(path)
    assert table.schema.equals(MATCHES)
    return table.to_pylist()


def test_every_query_gets_its_rows(catalog: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "matches.parquet"
    summary = match_corpus([str(clips)], catalog, out, MatchOptions(long_s=30.0, shard_files=4))
    assert (summary.n_queries, summary.n_done_before) == (11, 0)
    assert (summary.found, summary.unknown, summary.failed) == (9, 1, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["matches.parquet"]
    rows = read(out)
    assert len({row["query"] for row in rows}) == 11
    by_name: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_name.setdefault(Path(str(row["query"])).stem, []).append(row)
    # The same as identify says.
    identifier = Identifier(catalog)
    for name in ("palace-2", "hacienda-0"):
        expected = identifier.identify(clips / f"{name}.wav")
        found = [
            (r["rank"], r["reference"], r["reference_start_s"], r["score"]) for r in by_name[name]
        ]
        assert found == [(m.rank, m.reference, m.reference_start_s, m.score) for m in expected]
        assert by_name[name][0]["query_seconds"] == pytest.approx(4.0)
    (unknown,), (broken,) = by_name["unknown"], by_name["broken"]
    assert (unknown["rank"], unknown["reference"], unknown["status"]) == (0, None, "ok")
    assert (broken["rank"], broken["status"]) == (0, "failed")
    assert broken["stage"]
    assert broken["error"]
    # Piece by piece: each of three recordings, where it is.
    assert sorted(row["rank"] for row in by_name["long"]) == [1, 2, 3]
    starts = {Path(str(r["reference"])).name: r["query_start_s"] for r in by_name["long"]}
    for number, name in enumerate(TRACKS):
        assert starts[name] == pytest.approx(15 * number, abs=1.1)


def test_a_run_that_was_killed_is_resumed(
    catalog: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "matches.parquet"
    options = MatchOptions(shard_files=2, threads=1)
    written, lock = [], threading.Lock()

    def write(path: Path) -> Any:
        with lock:
            if len(written) == 2:
                raise RuntimeError("killed")
            written.append(path)
        return write_atomically(path)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.match.write_atomically", write)
        with pytest.raises(RuntimeError, match="killed"):
            match_corpus([str(clips)], catalog, out, options)
    assert not out.exists()
    summary = match_corpus([str(clips)], catalog, out, options)
    assert summary.n_done_before == len(written)
    resumed = read(out)
    again = match_corpus([str(clips)], catalog, tmp_path / "again.parquet", options)
    assert again.n_done_before == 0
    assert resumed == read(tmp_path / "again.parquet")


def test_the_command_says_what_it_did(
    catalog: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "matches.parquet"
    args = ["match", str(catalog), str(clips / "palace-0.wav"), "--out", str(out)]
    with pytest.raises(SystemExit) as exited:
        main([*args, "--all", "--threshold", "0", "--format", "jsonl"])
    assert exited.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_queries"], said["found"]) == (1, 1)
    assert said["n_matches"] == len(read(out)) > 1
    with pytest.raises(SystemExit) as exited:
        main(["match", str(catalog), str(clips / "broken.wav"), "--out", str(out)])
    assert exited.value.code == 1
    assert "Failed" in capsys.readouterr().out


def test_nothing_to_identify_is_an_error(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EarmarkError, match="nothing to identify"):
        match_corpus([str(tmp_path / "empty")], catalog, tmp_path / "out.parquet")
