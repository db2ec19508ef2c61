from __future__ import annotations

import dataclasses
import io
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SAMPLE_RATE
from ingest_helpers import FINGERPRINT, run

from encoders.bundle import Calibration, write_calibration
from pipelines.cli import COMMANDS, main
from pipelines.commands.identify import clock

TRACKS = ("palace.ogg", "musicbox.mp3", "eureka.m4a")
START, SECONDS = 12.3, 4.0

SPREAD = Calibration(-14.0, {"similarity": 14.0, "lead": 10.0})

KEYS = [
    "query", "rank", "reference", "recording_id", "query_start_s", "query_end_s",
    "reference_start_s", "reference_end_s", "score", "speed", "alternatives",
]  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "catalog"
    run([demo_tracks / name for name in TRACKS], folder, build_index=True)
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The tiny encoder, with scores that are far from 0 and 1."""
    folder = Path(shutil.copytree(FINGERPRINT, tmp_path / "bundle"))
    write_calibration(folder, SPREAD)
    return folder


@pytest.fixture
def clip(music: tuple[np.ndarray, int], tmp_path: Path) -> Path:
    """Four seconds of palace.ogg."""
    return write_clip(music[0], tmp_path / "a clip.wav")


def write_clip(signal: np.ndarray, path: Path) -> Path:
    first = round(START * SAMPLE_RATE)
    soundfile.write(path, signal[first : first + round(SECONDS * SAMPLE_RATE)], SAMPLE_RATE)
    return path


def earmark(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command line here: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = exited.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def identify(
    capsys: pytest.CaptureFixture[str], catalog: Path, *arguments: str | Path
) -> tuple[int, list[dict[str, Any]], str]:
    """As JSON lines, with the tiny encoder: exit code, lines, standard error."""
    code, out, err = earmark(
        capsys, "identify", catalog, "--encoder", FINGERPRINT, "--format", "jsonl", *arguments
    )
    return code, [json.loads(line) for line in out.splitlines()], err


def is_the_clip(line: dict[str, Any]) -> bool:
    """Whether a match says the truth about the clip."""
    offset = line["reference_start_s"] - line["query_start_s"] * line["speed"]
    return Path(line["reference"]).name == "palace.ogg" and abs(offset - START) < 0.1


def test_json_lines(
    capsys: pytest.CaptureFixture[str], catalog: Path, clip: Path, demo_tracks: Path
) -> None:
    code, lines, _ = identify(capsys, catalog, "--threshold", "0", clip)
    assert code == 0
    assert [line["rank"] for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert list(line) == KEYS
        kinds = [type(value) for value in line.values()]
        assert kinds == [str, int, str, str, float, float, float, float, float, float, list]
        assert line["query"] == str(clip)
        assert 0 <= line["score"] <= 1
    assert lines[0]["reference"] == str(demo_tracks / "palace.ogg")
    assert is_the_clip(lines[0])


def test_no_match_is_one_line(
    capsys: pytest.CaptureFixture[str], catalog: Path, tmp_path: Path
) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    code, lines, _ = identify(capsys, catalog, silence)
    assert code == 0
    nothing = dict.fromkeys(KEYS) | {"query": str(silence), "rank": 0, "alternatives": []}
    assert lines == [nothing]
    assert list(lines[0]) == KEYS


def test_top_and_threshold(
    capsys: pytest.CaptureFixture[str], catalog: Path, encoder: Path, clip: Path
) -> None:
    all_of_them = ["--encoder", encoder, "--top", "99"]
    _, everything, _ = identify(capsys, catalog, *all_of_them, "--threshold", "0", clip)
    assert len(everything) > 1
    _, best, _ = identify(
        capsys, catalog, "--encoder", encoder, "--threshold", "0", "--top", "1", clip
    )
    assert best == everything[:1]
    between = (everything[0]["score"] + everything[-1]["score"]) / 2
    _, some, _ = identify(capsys, catalog, *all_of_them, "--threshold", f"{between}", clip)
    # Alternatives, too, are those from the threshold on.
    shown = [line["reference_start_s"] for line in some]
    assert shown == [x["reference_start_s"] for x in everything if x["score"] >= between]
    for line, before in zip(some, everything, strict=False):
        assert set(line["alternatives"]) <= set(before["alternatives"])
    assert 0 < len(some) < len(everything)
    # Without --threshold, that of the encoder.
    write_calibration(encoder, dataclasses.replace(SPREAD, threshold=between))
    assert identify(capsys, catalog, *all_of_them, clip)[1] == some
    for wrong in (["--top", "0"], ["--threshold", "1.5"], ["--threshold", "x"]):
        assert identify(capsys, catalog, *wrong, clip)[0] == 2


def test_a_table(capsys: pytest.CaptureFixture[str], catalog: Path, clip: Path) -> None:
    options = ["--encoder", FINGERPRINT, "--threshold", "0", "--top", "1"]
    code, out, _ = earmark(capsys, "identify", catalog, *options, clip)
    assert code == 0
    for word in ("Query", "Reference", "Score", "Speed", "a clip.wav", "palace.ogg", "1.00"):
        assert word in out
    # Where the match begins in the reference, for people.
    assert "0:12." in out


def test_a_table_says_so_when_nothing_is_found(
    capsys: pytest.CaptureFixture[str], catalog: Path, tmp_path: Path
) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    code, out, _ = earmark(capsys, "identify", catalog, "--encoder", FINGERPRINT, silence)
    assert code == 0
    assert "silence.wav" in out
    assert "no match" in out


def test_one_bad_clip_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], catalog: Path, clip: Path, tmp_path: Path
) -> None:
    text, missing, empty = tmp_path / "text.mp3", tmp_path / "missing.wav", tmp_path / "empty.wav"
    text.write_text("not a sound\n" * 99)
    empty.write_bytes(b"")
    arguments = ["--threshold", "0", "--top", "1", text, missing, empty, tmp_path, clip]
    code, lines, err = identify(capsys, catalog, *arguments)
    assert code == 1
    assert [line["rank"] for line in lines] == [0, 0, 0, 0, 1]
    assert [line["query"] for line in lines] == [str(argument) for argument in arguments[4:]]
    assert is_the_clip(lines[-1])
    messages = [line for line in err.splitlines() if str(tmp_path) in line]
    assert len(messages) == 4
    for message, path in zip(messages, (text, missing, empty, tmp_path), strict=True):
        reason = message.removeprefix(f"{path}: ")
        assert len(reason) > 10
        assert reason != message
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_clips_of_any_name(
    capsys: pytest.CaptureFixture[str], catalog: Path, clip: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = ["new\nline.wav", "música 🎵.wav", os.fsdecode(b"\xff\xfe.wav"), "-dash.wav"]
    for name in names:
        (tmp_path / name).write_bytes(clip.read_bytes())
    options = ["--threshold", "0", "--top", "1"]
    code, lines, _ = identify(capsys, catalog, *options, "--", *names)
    assert code == 0
    assert [line["query"] for line in lines] == names
    assert all(is_the_clip(line) for line in lines)
    code, out, _ = earmark(
        capsys, "identify", catalog, "--encoder", FINGERPRINT, *options, "--", *names[:2]
    )
    assert code == 0
    assert "new\\nline.wav" in out


def test_a_clip_from_standard_input(
    capsys: pytest.CaptureFixture[str],
    catalog: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--threshold", "0", "--top", "1"]
    _, expected, _ = identify(capsys, catalog, *options, clip)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(clip.read_bytes())))
    code, lines, _ = identify(capsys, catalog, *options, "-")
    assert code == 0
    assert lines == [expected[0] | {"query": "-"}]


def test_without_index_or_catalog_it_says_what_to_do(
    capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path, demo_tracks: Path
) -> None:
    code, lines, err = identify(capsys, tmp_path / "nothing", clip)
    assert (code, lines) == (2, [])
    assert "earmark ingest" in err
    catalog = tmp_path / "catalog"
    run([demo_tracks / "palace.ogg"], catalog, build_index=False)
    code, lines, err = identify(capsys, catalog, clip)
    assert (code, lines) == (2, [])
    assert f"earmark index {catalog}" in err
    assert "Traceback" not in err
    # What it says helps.
    code, out, _ = earmark(capsys, "index", catalog)
    assert code == 0
    assert "Flat" in out
    code, lines, _ = identify(capsys, catalog, "--threshold", "0", clip)
    assert code == 0
    assert is_the_clip(lines[0])


def test_index_without_catalog_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = earmark(capsys, "index", tmp_path / "nothing")
    assert code == 2
    assert "earmark ingest" in err


def test_a_clip_is_needed(capsys: pytest.CaptureFixture[str], catalog: Path) -> None:
    code, _, err = earmark(capsys, "identify", catalog)
    assert code == 2
    assert "CLIP" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for flag in ("--help", "-h"):
        code, out, _ = earmark(capsys, command, flag)
        assert code == 0
    assert f"Usage: earmark {command}" in out
    assert "Example" in out
    _, example = out.split("Example", 1)
    assert f"earmark {command}" in example


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = earmark(capsys, "--help")
    assert code == 0
    for name, purpose in COMMANDS.items():
        assert name in out
        assert purpose.split()[0] in out
    modules = {m.name for m in pkgutil.iter_modules([str(ROOT / "pipelines" / "commands")])}
    # A subcommand stands beside its command: dedup_judge.
    parts = {name for name in modules if "_" in name and name.partition("_")[0] in COMMANDS}
    assert set(COMMANDS) == modules - parts - {"output"}
    assert earmark(capsys, "no-such-command")[0] == 2


def test_heavy_packages_are_not_imported_to_identify(catalog: Path, clip: Path) -> None:
    program = (
        "import json, sys\n"
        "from pipelines.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    arguments = ["identify", catalog, clip, "--encoder", FINGERPRINT, "--threshold", "0"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments), "--format", "jsonl"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *matches, modules = [json.loads(line) for line in done.stdout.splitlines()]
    assert is_the_clip(matches[0])
    # Not pandas: pyarrow imports it by itself where it is installed.
    heavy = {"tensorflow", "keras", "librosa", "apache_beam", "matplotlib", "torch"}
    assert {"faiss", "numpy"} <= set(modules)
    assert heavy & set(modules) == set()


def test_the_command_works_from_elsewhere(catalog: Path, clip: Path, tmp_path: Path) -> None:
    # As a pipe gives it: a WAV file whose length was not known when its header was written.
    with wave.open(str(clip), "rb") as file:
        frames = file.readframes(file.getnframes())
    header = clip.read_bytes()[:44]
    endless = header[:40] + b"\xff\xff\xff\xff" + frames
    options = ["--encoder", FINGERPRINT, "--threshold", "0", "--format", "jsonl"]
    arguments = ["identify", str(catalog), "-", *options]
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *arguments],
        cwd=tmp_path, input=endless, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert is_the_clip(lines[0])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00.0"),
        (9.96, "0:10.0"),
        (59.96, "1:00.0"),
        (754.32, "12:34.3"),
        (3600.0, "1:00:00.0"),
        (3723.45, "1:02:03.4"),
        (86_399.0, "23:59:59.0"),
        (-0.14, "-0:00.1"),
        (-61.0, "-1:01.0"),
        (None, ""),
    ],
)
def test_times_for_people(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text
