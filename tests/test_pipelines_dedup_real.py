"""Real music, the shipped encoders, and the commands of docs/deduplication.md in their order."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from encoders.audio import load_audio
from encoders.degrade import transcode
from pipelines.cli import main

DOCS = (ROOT / "docs" / "deduplication.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (earmark .*)$", DOCS, re.MULTILINE)
RATE = 16_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """A folder with music that has been ingested with labels."""
    home = tmp_path_factory.mktemp("home")
    music = home / "Music"
    music.mkdir()
    palace, icy = (
        load_audio(demo_tracks / name, RATE)[: 20 * RATE]
        for name in ("palace.ogg", "icy-lands.opus")
    )
    soundfile.write(music / "palace.flac", palace, RATE)
    shutil.copy(music / "palace.flac", music / "palace-copy.flac")
    soundfile.write(music / "palace-coded.wav", 0.3 * transcode(palace, RATE, "mp3-64k"), RATE)
    soundfile.write(music / "palace-part.wav", palace[6 * RATE : 14 * RATE], RATE)
    soundfile.write(music / "icy.flac", icy, RATE)
    soundfile.write(music / "silence.wav", np.zeros(3 * RATE), RATE)
    labels = [["uri", "label", "split"]]
    for number, path in enumerate(sorted(music.iterdir())):
        labels.append([str(path), path.name.split("-")[0], ("train", "test")[number % 2]])
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert earmark("ingest labels.csv --catalog my-catalog", home) == 0
    for number in (1, 2):
        shutil.copytree(home / "my-catalog", home / f"data-set-{number}")
    (home / "verdicts.csv").write_text("a,b,verdict\n")
    return home


def earmark(arguments: str, home: Path) -> int:
    words = [word.replace("~", str(home)) for word in shlex.split(arguments)]
    with pytest.raises(SystemExit) as exited:
        main(words)
    return int(exited.value.code or 0)


def test_copies_are_found_put_aside_and_brought_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    before = {p.name: p.read_bytes() for p in sorted(Path("Music").iterdir())}
    assert earmark("dedup my-catalog --out found --apply move:aside", home) == 0
    (cluster,) = map(json.loads, Path("found/clusters.jsonl").read_text().splitlines())
    names = [Path(uri).name for uri in cluster["members"]]
    assert names == ["palace-coded.wav", "palace-copy.flac", "palace.flac"]
    assert cluster["keep"].endswith("/palace.flac")
    pairs = [json.loads(line) for line in Path("found/pairs.jsonl").read_text().splitlines()]
    excerpts = [pair for pair in pairs if pair["kind"] == "excerpt"]
    assert excerpts
    for pair in excerpts:
        part, whole = ("a", "b") if "part" in pair["a"] else ("b", "a")
        assert pair[f"{whole}_start_s"] - pair[f"{part}_start_s"] == pytest.approx(6.0, abs=0.1)
    assert not any("icy" in pair[side] for pair in pairs for side in "ab")
    page = Path("found/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == len([p for p in pairs if p["kind"] != "identical"])
    assert set(before) - {p.name for p in Path("Music").iterdir()} == {*names} - {"palace.flac"}
    assert earmark("dedup --undo found", home) == 0
    assert {p.name: p.read_bytes() for p in sorted(Path("Music").iterdir())} == before


def test_the_documented_commands_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert earmark(command.removeprefix("earmark "), home) == 0, command
    with Path("splits.csv").open(newline="") as file:
        split = {Path(row["uri"]).name: row["split"] for row in csv.DictReader(file)}
    assert len(split) == 6
    assert len({split[name] for name in split if name.startswith("palace")}) == 1
    leakage = json.loads(Path("leakage/summary.json").read_text())["leakage"]
    assert leakage["groups"] == ["data-set-1", "data-set-2"]
    # Every file but silence is in both.
    assert leakage["leaks"][-1]["n_files_a"] >= 5
    (python,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    exec(compile(python, "deduplication.md", "exec"), {})
