"""Instruments of SoundFonts beside a corpus: what is played, what it is called. No FluidSynth."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import soundfonts

from encoders.corpus import read_corpus


class Tones:
    """A kit of drums and a piano; keys are tones, and soft ones as loud as loud ones."""

    def __init__(self, font: Path) -> None:
        assert font.exists()

    def presets(self) -> Iterator[tuple[int, int]]:
        yield from [(128, 0), (0, 0), (0, 99)]

    def play(self, bank: int, number: int, key: int, velocity: int) -> np.ndarray:
        t = np.arange(0 if key == 57 else 2000, dtype=np.float32) / soundfonts.RATE
        return np.sin(2 * np.pi * 20 * (key + bank) * t).astype(np.float32)

    def close(self) -> None:
        pass


def test_every_number_has_one_label_and_every_label_is_one_of_the_corpus() -> None:
    kinds = soundfonts.read_kinds()
    with soundfonts.KINDS.open() as lines:
        assert len(kinds) == sum(len(row["numbers"].split()) for row in csv.DictReader(lines))
    with (ROOT / "benchmarks" / "event_classes.csv").open() as lines:
        assert set(kinds.values()) <= {row[0] for row in csv.reader(lines)}


def test_the_sounds_are_events_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "font.sf2").touch()
    monkeypatch.setattr(soundfonts, "Player", Tones)
    monkeypatch.setattr(soundfonts, "fetch", lambda home: {"p": [tmp_path / "font.sf2"]})
    corpus, out = tmp_path / "corpus.csv", tmp_path / "more.csv"
    corpus.write_text("path,role,split,seconds,label\nz/dog.wav,event,dev,1.0,dog\n")
    done = CliRunner().invoke(soundfonts.main, ["--corpus", str(corpus), "--out", str(out)])
    assert done.exit_code == 0, done.output
    first, *items = read_corpus(out)
    assert (first.path, first.split, first.source) == (tmp_path / "z" / "dog.wav", "dev", "z")
    drums = sum(kind == "drums" for kind, _ in soundfonts.read_kinds())
    # Each key once, for a soft one sounds the same, and none of what is silent.
    assert len(items) == drums - 1 + len(soundfonts._KEYS)
    assert {i.path.exists() for i in items} == {True}
    assert {(i.role, i.split, i.source) for i in items} == {("event", "train", "p-font")}
    assert sum(i.label == "kick" for i in items) == 2
    assert sum(i.label == "piano" for i in items) == len(soundfonts._KEYS)
    again = CliRunner().invoke(soundfonts.main, ["--corpus", str(corpus), "--out", str(corpus)])
    assert again.exit_code == 2
