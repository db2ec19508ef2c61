from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ingest_helpers import FINGERPRINT, MAIN, VAE, command_line, rows, run, run_program, write_tone

from encoders.errors import EarmarkError
from pipelines.beam_options import split_arguments
from pipelines.cli import main
from pipelines.inputs import AUDIO_SUFFIXES
from pipelines.progress import Counts, RunState, live_display


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tone(Path("in/a.wav"), 2.0, 300)
    write_tone(Path("in/b.wav"), 3.0, 400)
    Path("in/notes.txt").write_text("no audio")
    return tmp_path


def earmark(*args: Path | str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(arg) for arg in args])
    return int(exit_.value.code or 0)


def ingest(*args: str) -> int:
    settings = ["--encoder", FINGERPRINT, "--vae", VAE, "--no-index"]
    return earmark("ingest", "--catalog", "c", *settings, *args)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ingest_info_and_failures(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("in/bad.wav").write_bytes(b"not audio at all")
    assert ingest("in") == 1
    said = capfd.readouterr().out
    for words in (
        "OK           2",
        "Failed       1",
        "1 files that are not audio by name",
        "1 × probe",
    ):
        assert words in said
    assert "earmark failures c" in said
    assert ingest("in", "--format", "jsonl") == 0
    (summary,) = lines(capfd.readouterr().out)
    assert (summary["n_done_before"], summary["n_todo"]) == (3, 0)

    assert earmark("failures", "c", "--format", "jsonl") == 0
    (failure,) = lines(capfd.readouterr().out)
    assert (failure["uri"], failure["status"], failure["stage"]) == (
        "in/bad.wav",
        "failed",
        "probe",
    )
    assert earmark("failures", "c") == 0
    assert "in/bad.wav" in capfd.readouterr().out

    assert earmark("info", "c", "--format", "jsonl") == 0
    (info,) = lines(capfd.readouterr().out)
    assert (info["inputs"], info["ok"], info["partial"], info["failed"]) == (3, 2, 0, 1)
    assert (info["recordings"], info["windows"], info["seconds"]) == (2, 3 + 5, 5.0)
    assert info["bytes"] == sum(p.stat().st_size for p in Path("c").rglob("*") if p.is_file())
    assert info["index"] is None
    assert info["encoders"]["fingerprint"]["precision"] == "int8"
    assert info["spec"]["sample_rate"] == 16_000
    assert earmark("info", "c") == 0
    assert "2 ok, 0 partial, 1 failed" in capfd.readouterr().out


def test_the_index_is_built_and_brought_up_to_date(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def index() -> Any:
        capfd.readouterr()
        assert earmark("info", "c", "--format", "jsonl") == 0
        return lines(capfd.readouterr().out)[0]["index"]

    bundles = ["--catalog", "c", "--encoder", FINGERPRINT, "--vae", VAE]
    assert earmark("ingest", "in/a.wav", *bundles) == 0
    first = index()
    assert (first["n_rows"], first["up_to_date"]) == (3, True)
    assert earmark("ingest", "in/a.wav", *bundles) == 0
    assert index() == first
    assert ingest("in") == 0
    assert not index()["up_to_date"]
    assert earmark("ingest", "in", *bundles) == 0, "nothing to ingest, but to index"
    assert (index()["n_rows"], index()["up_to_date"]) == (8, True)


def test_exit_codes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ingest("in") == 0
    assert ingest("missing.wav") == 2
    assert "no such file" in capfd.readouterr().err
    assert ingest("in", "missing.wav") == 1
    assert ingest("in", "missing.wav") == 1, "still missing"
    for i in range(3):
        Path(f"in/bad{i}.wav").write_bytes(b"not audio")
    assert ingest("in", "--max-failures", "1", "--threads", "1") == 3
    assert "more than 1 inputs failed" in capfd.readouterr().err
    assert ingest("in", "--precision", "float32") == 2
    assert "made with other settings" in capfd.readouterr().err
    assert earmark("info", "nowhere") == 2
    assert "no catalog at nowhere" in capfd.readouterr().err
    assert earmark("ingest", "in") == 2
    assert earmark("nonsense") == 2


def test_a_cut_file_is_no_failure(folder: Path) -> None:
    data = Path("in/b.wav").read_bytes()
    Path("in/b.wav").write_bytes(data[: len(data) // 2])
    assert ingest("in") == 0
    assert rows(Path("c"))["in/b.wav"]["status"] == "partial"


def test_names_with_a_leading_dash(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_tone(Path("-x.wav"))
    write_tone(Path("--runner=y.wav"))
    assert ingest("-x.wav") == 2
    assert "./-x.wav" in capfd.readouterr().err
    assert ingest("./-x.wav") == 0
    assert ingest("in", "--", "-x.wav", "--runner=y.wav") == 0
    assert set(rows(Path("c"))) == {
        "./-x.wav", "-x.wav", "--runner=y.wav", "in/a.wav", "in/b.wav",
    }  # fmt: skip


def test_a_dry_run_says_what_would_be_done(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ingest("in", "--dry-run") == 0
    said = capfd.readouterr().out
    assert "nothing was written" in said
    assert "2 in 2 shards" in said
    assert not Path("c").exists()


@pytest.mark.parametrize(
    ("tokens", "inputs", "beam_args"),
    [
        (["a", "b"], ["a", "b"], []),
        (["--runner=X", "a"], ["a"], ["--runner=X"]),
        (["--runner", "X", "a"], ["a"], ["--runner", "X"]),
        (["a", "--streaming", "b"], ["a", "b"], ["--streaming"]),
        (["a", "--runner", "a", "a"], ["a", "a"], ["--runner", "a"]),
        (["--runner=X", "--of_the_runner=1", "a"], ["a"], ["--runner=X", "--of_the_runner=1"]),
    ],
)
def test_options_of_beam_are_told_from_inputs(
    tokens: list[str], inputs: list[str], beam_args: list[str]
) -> None:
    assert split_arguments(tokens) == (inputs, beam_args)


@pytest.mark.parametrize("token", ["--max-failure=3", "-x", "--runner"])
def test_a_mistyped_option_is_an_error(token: str) -> None:
    with pytest.raises(EarmarkError):
        split_arguments(["a", token])


def test_an_option_reaches_beam(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ingest("in", "--runner=DaskRunner") == 2
    assert "DaskRunner loses records" in capfd.readouterr().err


def test_progress_without_a_terminal_is_plain(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav")
    done = run_program(MAIN, *command_line(tmp_path / "c", tmp_path / "a.wav"))
    assert done.returncode == 0
    assert len(lines(done.stdout)) == 1
    assert "\x1b" not in done.stderr
    assert "WARNING" not in done.stderr


class Terminal:
    """Standard error as a terminal would be."""

    encoding = "utf-8"

    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_display_shows_the_counters(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.progress._PLAIN_INTERVAL", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    stream: Any = Terminal(is_terminal)
    with live_display(7, lambda: Counts(files=3, failed=1, seconds=3600.0), stream):
        time.sleep(0.3)
    for words in ("3", "7", "1 failed", "1.00 h audio", "× real time"):
        assert words in stream.text
    assert ("\x1b" in stream.text) == is_terminal


def test_failures_beyond_the_limit_stop_a_run() -> None:
    state = RunState(max_failures=1)
    for status in ("failed", "ok", "partial"):
        state.add_file(status)
    assert not state.stopped
    state.add_file("failed")
    assert state.stopped
    assert state.counts() == Counts(files=4, failed=2, seconds=0.0)


def test_help_starts_without_heavy_imports() -> None:
    program = (
        "import sys\nfrom pipelines.cli import main\ntry: main(sys.argv[1:])\n"
        "finally: print(*{'numpy', 'apache_beam', 'pyarrow', 'rich'} & set(sys.modules))"
    )
    for args in (["--help"], ["ingest", "--help"], ["info", "--help"], ["failures", "--help"]):
        done = run_program(program, *args)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1] == ""
        assert done.stdout.startswith("Usage: earmark")


def test_names_of_audio_files_are_lower_case_suffixes() -> None:
    assert {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".wma", ".webm"} <= AUDIO_SUFFIXES
    assert all(s == s.lower() and s.startswith(".") for s in AUDIO_SUFFIXES)


def test_upper_case_names_are_audio_too(folder: Path) -> None:
    write_tone(Path("in/LOUD.WAV"))
    assert run(["in"], folder / "c").ok == 3
