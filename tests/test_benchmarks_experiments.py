"""The comparison of trainings, two steps each on demo tracks. No figure is judged here."""

from __future__ import annotations

import csv
import functools
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

pytest.importorskip("tensorflow", reason="needs the train extra")
sys.path.insert(0, str(ROOT / "benchmarks"))

import experiments
import generalisation

from encoders.bundle import SHIPPED
from encoders.cost import count_cost
from encoders.degrade import shipped_rooms
from encoders.recipes import fingerprint
from encoders.siamese import SiameseConfig, build_siamese

TRACKS = {"palace.ogg": "train", "morning-coffee.mp3": "dev"}


@pytest.fixture
def corpus(demo_tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small = functools.partial(SiameseConfig, channels=(4, 6), hidden=8)
    monkeypatch.setattr(experiments, "SiameseConfig", small)
    monkeypatch.setattr(experiments, "_BASE", {})
    monkeypatch.setattr(experiments, "simulate_rooms", lambda *args, **settings: shipped_rooms())
    monkeypatch.setattr(fingerprint, "N_EXAMINED", 32)
    monkeypatch.setattr(fingerprint, "N_CALIBRATION", 8)
    path = tmp_path / "corpus.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "role", "split"])
        out.writerows([demo_tracks / name, "music", split] for name, split in TRACKS.items())
    return path


def test_runs_are_done_once_and_become_a_table(corpus: Path, tmp_path: Path) -> None:
    json_path = tmp_path / "table.json"
    command = [str(corpus), "--out", str(tmp_path / "out"), "--steps", "2", "--pairs", "16"]
    command += ["--json", str(json_path), "--run", "64-d"]
    done = CliRunner().invoke(experiments.main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    logs = list((tmp_path / "out").rglob("experiment.json"))
    assert len(logs) == 1

    # Again, with another run: the first one is left as it is.
    command += ["--run", "learned"]
    again = CliRunner().invoke(experiments.main, command, catch_exceptions=False)
    assert "among 32 windows" in again.output
    for name in ("64-d", "learned"):
        assert f"│ {name} " in again.output
    assert len(logs[0].read_text().splitlines()) == 1
    runs = json.loads(json_path.read_text())["runs"]
    assert list(runs) == ["64-d", "learned"]
    assert runs["64-d"]["settings"]["network"]["dim"] == 64
    assert runs["learned"]["settings"]["similarity"] == "learned"
    for result in runs.values():
        assert result["settings"]["steps"] == result["figures"]["steps_taken"] == 2
        assert 0.0 <= result["figures"]["top_1"] <= 1.0


def test_other_settings_are_other_runs(tmp_path: Path, corpus: Path) -> None:
    command = [str(corpus), "--out", str(tmp_path / "out"), "--run", "baseline", "--pairs", "16"]
    for steps in ("1", "2"):
        arguments = [*command, "--steps", steps]
        assert (
            CliRunner().invoke(experiments.main, arguments, catch_exceptions=False).exit_code == 0
        )
    assert len(list((tmp_path / "out").rglob("experiment.json"))) == 2


def test_a_resumed_run_has_gaps_in_its_row() -> None:
    result = {
        "figures": {"top_1": 0.5, "equal_error_rate": 0.0312},
        "cost": {"multiply_adds": 17_550_000, "parameters": 1_300_000},
    }
    assert experiments.row("x", result) == [
        "x", "50.0%", "–", "3.12%", "–", "–", "–", "17.6", "1.30",
    ]  # fmt: skip


@pytest.mark.parametrize("name", experiments.RUNS)
def test_all_networks_are_of_about_one_cost(name: str) -> None:
    recipe = experiments.recipe_of(experiments.RUNS[name], 128)
    n_bands = fingerprint.INPUTS[recipe.inputs].n_bands
    cost = count_cost(build_siamese(32, n_bands, recipe.network))
    assert cost.parameters <= 2_500_000
    assert cost.multiply_adds <= 20e6
    if recipe.inputs == "log-mel":
        assert cost.multiply_adds >= 15e6


def test_generalisation_is_a_table_of_both_splits(corpus: Path, tmp_path: Path) -> None:
    json_path = tmp_path / "table.json"
    command = [str(corpus), "--pcm", str(tmp_path / "pcm"), "--json", str(json_path)]
    command += ["--encoder", str(SHIPPED / "fingerprint"), "--batches", "1", "--pairs", "32"]
    done = CliRunner().invoke(generalisation.main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    shares = json.loads(json_path.read_text())["share"]
    assert list(shares) == ["music of train", "music of dev"]
    for row in shares.values():
        # 32 windows by chance: one in 32.
        assert all(0.3 < share <= 1.0 for share in row.values())
