from __future__ import annotations

import csv
import http.server
import io
import json
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encoders.audio import load_audio
from encoders.audio.live import follow_file, open_live
from encoders.errors import AudioError
from index.schema import Match
from pipelines.cli import main
from pipelines.plots import plot_timeline

RATE = 16_000
TRACKS = ["palace.ogg", "musicbox.mp3", "hacienda.mp3"]


@pytest.fixture
def catalog(three_tracks: Path) -> Path:
    return three_tracks


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """Twelve seconds each of a known track, of a restaurant, and of another known track."""
    parts = [
        load_audio(demo_tracks / name, RATE)[start * RATE : (start + 12) * RATE]
        for name, start in (("palace.ogg", 3), ("restaurant.ogg", 1), ("musicbox.mp3", 5))
    ]
    path = tmp_path_factory.mktemp("broadcast") / "air,check.wav"
    soundfile.write(path, np.concatenate(parts), RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def server(broadcast: Path) -> Iterator[str]:
    """Serves the broadcast as a stream: no length, no ranges."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/live":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "audio/wav")
            self.end_headers()
            content = broadcast.read_bytes()
            for start in range(0, len(content), 65_536):
                self.wfile.write(content[start : start + 65_536])

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/live"
    httpd.shutdown()


def monitored(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as exited:
        main(["monitor", *map(str, args)])
    captured = capsys.readouterr()
    assert exited.value.code == code, captured.err
    return captured.out


def check(lines: list[dict[str, object]], query: str) -> None:
    found = [Path(str(x["reference"])).name if x["reference"] else None for x in lines]
    assert found == ["palace.ogg", None, "musicbox.mp3"]
    assert {x["query"] for x in lines} == {query}
    assert [x["rank"] for x in lines] == [1, 0, 1]
    for line, end in zip(lines, (12, 24, 36), strict=True):
        assert float(str(line["query_end_s"])) == pytest.approx(end, abs=1.1)


def test_a_file_a_url_and_standard_input_are_heard_alike(
    catalog: Path,
    broadcast: Path,
    server: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pipe(io.RawIOBase):
        """Like a pipe, it can only be read."""

        def __init__(self) -> None:
            self._content = io.BytesIO(broadcast.read_bytes())

        def readable(self) -> bool:
            return True

        def read(self, n: int = -1) -> bytes:
            return self._content.read(n)

        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": Pipe()})())
    for name in (str(broadcast), server, "-"):
        lines = [json.loads(line) for line in monitored(capsys, catalog, name).splitlines()]
        check(lines, name)


def test_every_format_tells_the_same(
    catalog: Path, broadcast: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, plot = tmp_path / "played.csv", tmp_path / "timeline.png"
    monitored(
        capsys, catalog, broadcast, "--format", "csv", "--out", out, "--plot", plot
    )  # fmt: skip
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    check([{**row, "rank": int(row["rank"])} for row in rows], str(broadcast))
    assert plot.read_bytes().startswith(b"\x89PNG")
    labels = monitored(capsys, catalog, broadcast, "--format", "audacity", "--no-gaps").splitlines()
    assert len(labels) == 2
    for label, row in zip(labels, (rows[0], rows[2]), strict=True):
        start, end, text = label.split("\t")
        assert float(start) == pytest.approx(float(row["query_start_s"]))
        assert float(end) == pytest.approx(float(row["query_end_s"]))
        assert row["reference"] in text
    table = monitored(capsys, catalog, broadcast, "--format", "table")
    assert "palace.ogg" in table
    assert "no match" in table


def test_a_growing_file_is_followed(tmp_path: Path, broadcast: Path) -> None:
    content = broadcast.read_bytes()
    path = tmp_path / "growing.wav"
    path.write_bytes(content[:100_000])

    def write() -> None:
        with path.open("ab") as file:
            for start in range(100_000, len(content), 300_000):
                time.sleep(0.05)
                file.write(content[start : start + 300_000])
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    with follow_file(path, RATE, idle_s=1.5) as audio:
        signal = np.concatenate(list(audio.blocks()))
    writer.join()
    np.testing.assert_allclose(signal, load_audio(broadcast, RATE), atol=1e-4)


def test_what_cannot_be_heard_is_told(
    catalog: Path, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    missing = server.replace("live", "nothing")
    for args in (
        [text],
        [tmp_path / "missing.wav"],
        [missing],
        [tmp_path / "missing.wav", "--follow"],
    ):
        assert monitored(capsys, catalog, *args, code=1) == ""
    with pytest.raises(AudioError):
        open_live(missing, RATE)


def test_ctrl_c_tells_what_was_heard_so_far(
    catalog: Path,
    broadcast: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # While it waits for more of a file that is followed for ever.
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("encoders.audio.live.time", types.SimpleNamespace(sleep=interrupt))
    out = monitored(capsys, catalog, broadcast, "--follow", code=130)
    check([json.loads(line) for line in out.splitlines()], str(broadcast))


def test_the_timeline_draws_several_signals(tmp_path: Path) -> None:
    segments = [
        Match("a", 1, "x.ogg", query_start_s=0.0, query_end_s=60.0),
        Match("a", 0, None, query_start_s=60.0, query_end_s=90.0),
        Match("b", 1, "y.ogg", query_start_s=0.0, query_end_s=30.0),
    ]
    plot_timeline(segments, tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 5000
