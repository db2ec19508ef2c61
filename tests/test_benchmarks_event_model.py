"""The model of events that ships: what it is learned from, and which classes are kept."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import event_model

from index.event_model import EventModel, load_labels

SOUNDS = ROOT / "tests" / "data" / "sounds"


def row(path: str, label: str, **changed: str) -> dict[str, str]:
    about = {"path": path, "role": "event", "split": "train", "seconds": "1.0", "label": label}
    return about | changed


def test_some_recordings_of_each_label_and_source_are_chosen() -> None:
    rows = [row(f"p{n % 9}/{n}.wav", "dog") for n in range(200)]
    rows += [row(f"p{n % 3}/cat{n}.wav", "cat") for n in range(15)]
    # From too few sources, too few, of another split, too long, and of no label.
    rows += [row(f"p{n % 2}/cow{n}.wav", "cow") for n in range(40)]
    rows += [row(f"p{n}/pig{n}.wav", "pig") for n in range(14)]
    rows += [row("p/dev.wav", "dog", split="dev"), row("p/long.wav", "cat", seconds="8.0")]
    rows += [row("p/unknown.wav", ""), row("p/wind.wav", "", role="noise", seconds="300")]
    rows += [row("p/rain.wav", "", role="noise", seconds="301")]
    chosen = event_model.choose(rows, seed=0)
    assert Counter(label for _, label in chosen) == {"dog": 40, "cat": 15, "": 1}
    of_source = Counter(path.split("/")[0] for path, label in chosen if label == "dog")
    assert max(of_source.values()) <= 8
    assert event_model.choose(rows, seed=0) == chosen
    assert event_model.choose(rows, seed=1) != chosen


def test_a_model_is_learned_from_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_model, "LEAST", 3)
    monkeypatch.setattr(event_model, "LEAST_SOURCES", 1)
    monkeypatch.setattr(event_model, "MOST_OF_SOURCE", 20)
    corpus = tmp_path / "corpus.csv"
    (tmp_path / "sounds").symlink_to(SOUNDS)
    rows = [
        row(f"sounds/{path.relative_to(SOUNDS)}", path.parent.name)
        for label in ("kick", "snare")
        for path in sorted((SOUNDS / label).iterdir())
    ]
    rows += [r | {"split": "dev"} for r in rows]
    with corpus.open("w", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    command = ["--corpus", corpus, "--out", tmp_path / "model", "--precision", 2, "--least", 1]
    command += ["--cache", tmp_path / "cache"]
    done = CliRunner().invoke(event_model.main, [str(part) for part in command])
    assert done.exit_code == 0, done.output
    (kept,) = EventModel.load(tmp_path / "model").names
    (left_out,) = {"kick", "snare"} - {kept}
    without, judged = done.output.split("Left out")[1].split("Recordings of dev")
    assert f"| {left_out} | " in without
    # What it has learned from it knows.
    assert float(judged.split(f"| {kept} | ")[1].split(" |")[0]) > 0.9
    labels = load_labels(tmp_path / "model").to_pylist()
    assert {r["label"] for r in labels} == {kept}
    assert {r["uri"] for r in labels} == {r["path"] for r in rows if r["label"] == kept}
