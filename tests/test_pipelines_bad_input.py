"""Every bad input gets a row with stage and reason, and the job goes on."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from audio_cases import BadFile, read_music, wav_header, write_bad_files, write_odd_names
from ingest_helpers import (
    MAIN,
    assert_same_content,
    command_line,
    leftovers,
    rows,
    run,
    run_program,
    tone_bytes,
    write_tone,
)

from encoders.errors import EarmarkError
from index.catalog import Catalog
from pipelines import shard
from pipelines.ingest import IngestSummary

# What write_bad_files writes, less what is no file.
# fmt: off
NAMES = [
    "empty.wav", "text.mp3", "noise.flac", "zeros.ogg", "tag-only.mp3", "header-only.wav",
    "header-only.ogg", "no-moov.m4a", "no-channels.wav", "1-hz.wav", "2-ghz.wav", "768-khz.wav",
    "one-sample.wav", "silence.wav", "8-channels.wav", "nan.wav", "cut.wav-16", "cut.aiff",
    "cut.flac", "cut.mp3", "cut.vorbis", "cut.opus", "cut.aac", "cut.wma", "cut.webm",
    "garbage.flac", "garbage.mp3", "garbage.vorbis", "garbage.opus", "garbage.aac", "garbage.wma",
    "garbage.webm", "broken-link.wav",
]
# fmt: on
# Where the row says something else than the decoder.
NOTES = {"silence.wav": "silent: nothing above -70 dB", "broken-link.wav": "broken symbolic link"}


class Ingested:
    """One run over all bad files and a good one."""

    def __init__(self, root: Path, music: Any) -> None:
        self.folder = root / "in"
        self.folder.mkdir()
        self.expected = {bad.path.name: bad for bad in write_bad_files(self.folder, music)}
        self.good = write_tone(self.folder / "zz-good.wav")
        self.catalog = root / "c"
        self.summary = run([self.folder], self.catalog, all_files=True)
        self.rows = rows(self.catalog)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Ingested:
    return Ingested(tmp_path_factory.mktemp("bad"), read_music(demo_tracks, 6.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_a_row(ingested: Ingested, name: str) -> None:
    expected: BadFile = ingested.expected[name]
    row = ingested.rows[str(ingested.folder / name)]
    assert row["status"] == expected.status
    if name in NOTES:
        assert row["error"] == NOTES[name]
    elif expected.status == "ok":
        assert row["error"] is None
    else:
        assert row["stage"] == (expected.stage or "decode")
        assert re.search(expected.reason, row["error"])
        assert "\n" not in row["error"]
    assert (row["n_windows"] > 0) == (expected.status != "failed")
    assert (row["recording_id"] is None) == (name == "broken-link.wav")


def test_every_bad_file_is_looked_at(ingested: Ingested) -> None:
    written = {p.name for p in ingested.folder.rglob("*") if not p.is_dir()}
    assert written - {"unreadable.wav"} == {*NAMES, "zz-good.wav"}
    assert {Path(uri).name for uri in ingested.rows} == written, "a folder x.wav is only a folder"


def test_the_job_goes_on_and_the_summary_tells(ingested: Ingested) -> None:
    summary: IngestSummary = ingested.summary
    states = [row["status"] for row in ingested.rows.values()]
    assert ingested.rows[str(ingested.good)]["status"] == "ok"
    assert summary.failed == states.count("failed") > 5
    assert summary.partial == states.count("partial") > 5
    assert summary.ok == states.count("ok")
    assert sum(n for _, n in summary.reasons) >= 5
    assert leftovers(ingested.catalog) == []


def test_a_partial_file_keeps_what_was_decoded(ingested: Ingested) -> None:
    row = ingested.rows[str(ingested.folder / "cut.flac")]
    assert 2.0 < row["seconds_decoded"] < 5.0
    assert row["seconds_expected"] == pytest.approx(6.0, abs=0.1)
    assert row["n_windows"] == pytest.approx(2 * row["seconds_decoded"] - 1, abs=1.5)


def test_one_sample_is_one_window(ingested: Ingested) -> None:
    assert ingested.rows[str(ingested.folder / "one-sample.wav")]["n_windows"] == 1


def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    paths = write_odd_names(tmp_path / "in", tone_bytes())
    monkeypatch.chdir(tmp_path / "in")
    # Named one by one, relative; and as a folder.
    summary = run([*(p.name for p in paths), str(tmp_path / "in")], tmp_path / "c", all_files=True)
    # The name that is not Unicode has one uri, however it was given.
    assert (summary.ok, summary.n_inputs) == (2 * len(paths) - 1, 2 * len(paths) - 1)
    uris = set(rows(tmp_path / "c"))
    assert {"with space.wav", "new\nline.wav", "emoji 🎵.wav", "-dash.wav", "-"} <= uris
    assert {uri for uri in uris if uri.startswith("file://")} == {
        f"file://{tmp_path}/in/not-utf8-%FF%E9.wav"
    }
    (by_uri,) = [uri for uri in uris if uri.startswith("file://")]
    assert run([by_uri], tmp_path / "c").n_todo == 0


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    write_tone(tmp_path / "in" / "good.wav")
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    (tmp_path / "in" / "self.wav").symlink_to("self.wav")
    summary = run([tmp_path / "in", "/dev/zero"], tmp_path / "c")
    assert (summary.ok, summary.failed) == (1, 3)
    found = rows(tmp_path / "c")
    pipe = found[str(tmp_path / "in" / "pipe.wav")]
    assert (pipe["stage"], pipe["error"]) == ("open", "not a regular file but a named pipe")
    assert "device" in found["/dev/zero"]["error"]
    assert found[str(tmp_path / "in" / "self.wav")]["stage"] == "open"


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that an ordinary user may write to, and the process as such a user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(folder)


def test_unreadable_files_and_folders(as_nobody: Path) -> None:
    good = write_tone(as_nobody / "in" / "good.wav")
    locked = write_tone(as_nobody / "in" / "locked.wav")
    locked.chmod(0)
    closed = write_tone(as_nobody / "in" / "closed" / "x.wav").parent
    closed.chmod(0)
    summary = run([as_nobody / "in"], as_nobody / "c")
    assert (summary.ok, summary.failed) == (1, 2)
    found = rows(as_nobody / "c")
    assert found[str(good)]["status"] == "ok"
    for path, stage in ((locked, "open"), (closed, "list")):
        assert found[str(path)]["stage"] == stage
        assert found[str(path)]["error"] == "Permission denied"


def test_a_missing_input_is_a_row_when_others_are_there(tmp_path: Path) -> None:
    good, missing = write_tone(tmp_path / "good.wav"), tmp_path / "missing.wav"
    summary = run([good, missing, tmp_path / "none*.wav"], tmp_path / "c")
    assert (summary.ok, summary.failed) == (1, 2)
    row = rows(tmp_path / "c")[str(missing)]
    assert (row["stage"], row["error"]) == ("list", "no such file or folder")
    again = run([good, missing], tmp_path / "c")
    assert (again.n_todo, again.n_missing) == (0, 1)


@pytest.mark.parametrize("given", [[], ["missing.wav"], ["*.wav", "gone/"], ["."]])
def test_nothing_at_all_is_an_error(
    tmp_path: Path, given: list[Path | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EarmarkError, match=r"nothing to ingest|no inputs"):
        run(given, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_file_that_disappears_during_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, gone = shard.open_input, write_tone(tmp_path / "in" / "gone.wav")
    write_tone(tmp_path / "in" / "stays.wav")

    def vanish(uri: str) -> BinaryIO:
        gone.unlink(missing_ok=True)
        return real(uri)

    monkeypatch.setattr(shard, "open_input", vanish)
    summary = run([tmp_path / "in"], tmp_path / "c")
    assert (summary.ok, summary.failed) == (1, 1)
    row = rows(tmp_path / "c")[str(gone)]
    assert (row["stage"], row["error"]) == ("open", "No such file or directory")


def test_a_file_that_grows_during_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = shard.open_audio, write_tone(tmp_path / "grows.wav", 3.0)
    listed = path.stat()

    def grow(*args: Any) -> Any:
        with path.open("ab") as file:
            file.write(bytes(1000))
        return real(*args)

    monkeypatch.setattr(shard, "open_audio", grow)
    assert run([path], tmp_path / "c").partial == 1
    row = rows(tmp_path / "c")[str(path)]
    assert row["error"].startswith(
        f"changed while it was being read: {listed.st_size} bytes when listed, "
        f"{listed.st_size + 1000} now"
    )
    assert (row["n_bytes"], row["modified_ns"]) == (listed.st_size, listed.st_mtime_ns)
    monkeypatch.setattr(shard, "open_audio", real)
    assert run([path], tmp_path / "c").n_todo == 1, "the next run sees the change"


def test_a_file_that_is_replaced_during_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = shard.open_audio, write_tone(tmp_path / "x.wav", 3.0, 300)

    def replace(*args: Any) -> Any:
        write_tone(tmp_path / "new.wav", 3.0, 900).replace(path)
        return real(*args)

    monkeypatch.setattr(shard, "open_audio", replace)
    assert run([path], tmp_path / "c").partial == 1
    assert "written to" in rows(tmp_path / "c")[str(path)]["error"]


def test_a_read_error_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path = shard.stream_windows, write_tone(tmp_path / "x.wav", 120.0)

    def break_off(*args: Any) -> Any:
        windows = real(*args)
        yield next(windows)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shard, "stream_windows", break_off)
    assert run([path], tmp_path / "c").partial == 1
    row = rows(tmp_path / "c")[str(path)]
    assert (row["stage"], row["error"], row["n_windows"]) == ("decode", "Input/output error", 64)
    catalog = Catalog.open(tmp_path / "c")
    assert sum(batch.num_rows for batch in catalog.iter_windows(["start_sample"])) == 64


def test_no_memory_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(shard, "open_audio", too_much)
    path = write_tone(tmp_path / "x.wav")
    with pytest.raises(BaseException) as error:  # noqa: PT011
        run([path], tmp_path / "c")
    assert "MemoryError" in repr(error.value)
    assert rows(tmp_path / "c") == {}


def test_bad_files_give_the_same_rows_every_time(ingested: Ingested, tmp_path: Path) -> None:
    run([ingested.folder], tmp_path / "c", all_files=True, threads=1, shard_files=7)
    assert_same_content(tmp_path / "c", ingested.catalog)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_ten_hours_of_two_tones_need_little_memory(tmp_path: Path) -> None:
    rate, seconds = 8000, 36_000
    second = [bytes(128 + (100 if i * p // rate % 2 else -100) for i in range(rate))
              for p in (300, 700)]  # fmt: skip
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(wav_header(rate * seconds, rate=rate, bits=8))
        for half in second:
            for _ in range(seconds // 2):
                file.write(half)
    program = (
        f"{MAIN.split('main(sys')[0]}\n"
        "try: main(sys.argv[1:])\n"
        # Not ru_maxrss: that begins with the size of the process that started this one.
        "finally: print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    done = run_program(program, *command_line(tmp_path / "c", path))
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split("VmHWM:")[1].split()[0]) * 1024
    assert peak < 700e6
    row = rows(tmp_path / "c")[str(path)]
    assert (row["status"], row["n_windows"]) == ("ok", 2 * seconds - 1)
