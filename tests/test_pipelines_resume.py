from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from ingest_helpers import (
    MAIN,
    assert_same_content,
    command_line,
    content,
    leftovers,
    rows,
    run,
    run_program,
    tone_bytes,
    write_folder,
    write_tone,
)

from encoders.errors import CatalogError
from index import storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


def test_a_full_disk_is_a_clear_error_and_nothing_is_half_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(CatalogError, match=r"disk full: free space .* run the same command again"):
        run([folder], tmp_path / "c", threads=1)
    assert list((tmp_path / "c").rglob("*.tmp")) == []
    monkeypatch.setattr(storage.os, "fsync", real)
    run([folder], tmp_path / "c")
    run([folder], tmp_path / "reference")
    assert_same_content(tmp_path / "c", tmp_path / "reference")


def test_a_file_size_limit_while_windows_are_written(folder: Path, tmp_path: Path) -> None:
    # The real system call fails here, in the middle of a write by Arrow.
    write_tone(folder / "long.wav", 100.0, 300)
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from pipelines.cli import main; main(sys.argv[1:])"
    )
    done = run_program(program, *command_line(tmp_path / "c", folder))
    assert done.returncode == 2
    assert "cannot write to" in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(tmp_path / "c") == []


KILL_IN_SYNC = """
import os, signal, sys
from index import storage
left, real = int(sys.argv[1]), os.fsync
def kill(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
storage.os.fsync = kill
from pipelines.cli import main
main(sys.argv[2:])
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for i in range(6):
        write_tone(tmp_path / "in" / f"{i}.wav", 1.0 + i, 200 + 50 * i)
    (tmp_path / "in" / "bad.wav").write_bytes(b"not audio")
    (tmp_path / "in" / "cut.wav").write_bytes(tone_bytes(4.0)[:50_000])
    return tmp_path / "in"


def test_killed_in_the_middle_of_writes_and_resumed(many: Path, tmp_path: Path) -> None:
    # Each part syncs windows, their folder, recordings, their folder: 2 (catalog.json), then 4 n.
    catalog = tmp_path / "c"
    for n in (1, 3, 4, 9):
        args = command_line(catalog, many)
        done = run_program(KILL_IN_SYNC, str(n), *args, "--threads=1")
        assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = run([many], catalog)
    assert 0 < resumed.n_todo < 8
    assert leftovers(catalog) == []
    run([many], tmp_path / "undisturbed")
    assert_same_content(catalog, tmp_path / "undisturbed")
    assert content(catalog)[0].num_rows == 8


def test_killed_at_random_moments_and_resumed(many: Path, tmp_path: Path) -> None:
    write_tone(many / "long.wav", 900.0, 220)
    catalog = tmp_path / "c"
    command = [sys.executable, "-c", MAIN, *command_line(catalog, many)]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(catalog.rglob("*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        process.kill()
        process.wait()
    run([many], catalog)
    assert leftovers(catalog) == []
    run([many], tmp_path / "undisturbed")
    assert_same_content(catalog, tmp_path / "undisturbed")


def test_interrupted_by_the_user(many: Path, tmp_path: Path) -> None:
    long = write_tone(many / "long.wav", 900.0, 220)
    for number in range(20):
        os.link(long, many / f"long-{number}.wav")
    catalog = tmp_path / "c"
    # A shell's background jobs, and so what they start, ignore the signal.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heed + MAIN, *command_line(catalog, many)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(catalog.glob("recordings/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert leftovers(catalog) == []
    assert 0 < len(rows(catalog)) < len(list(many.iterdir()))
