"""``earmark evaluate events`` from a corpus to its report, with tiny encoders."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from conftest import ROOT
from ingest_helpers import FINGERPRINT, VAE

from encoders.bundle import write_likeness
from encoders.corpus import read_corpus
from encoders.decision import fit_likeness
from encoders.errors import EarmarkError
from index.similar import SimilarSounds
from pipelines.commands.evaluate import command
from pipelines.evaluate_events.few_shot import LEARNED
from pipelines.evaluate_events.parts import Context, Options
from pipelines.evaluate_events.retrieval import SIMILAR, similarities
from pipelines.evaluate_events.sounds import BASELINE, Bundles, pool, prepare_catalog

sys.path.insert(0, str(ROOT / "benchmarks"))
from likeness import calibration_error, found_pairs

EVENT = str(ROOT / "tests" / "data" / "bundles" / "event")
# Detection has tests of its own, and needs more than this corpus has.
PARTS = ["--parts", "retrieval,few-shot"]
BUNDLES = ["--encoder", EVENT, "--fingerprint", FINGERPRINT, "--vae", VAE]


def sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """0.5 s of a hum, a hiss or clicks."""
    t = np.arange(8000) / 16_000
    if kind == "hum":
        pitch = rng.uniform(100, 140)
        return 0.3 * np.sign(np.sin(2 * np.pi * pitch * t))
    noise = rng.normal(0, 0.1, len(t))
    return noise if kind == "hiss" else noise * (np.arange(len(t)) % 2000 < 60)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of sounds from two sources, in two splits; a twin, and a stranger."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    with (root / "corpus.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "role", "split", "label"])
        for split, n in (("dev", 4), ("train", 1)):
            for source in "ab":
                for kind in ("hum", "hiss", "clicks"):
                    for number in range(n):
                        name = f"{split}-{source}/{kind}{number}.wav"
                        (root / name).parent.mkdir(exist_ok=True)
                        soundfile.write(root / name, sound(kind, rng), 16_000)
                        rows.writerow([name, "event", split, kind])
        (root / "dev-a" / "twin.wav").write_bytes((root / "dev-b" / "hum0.wav").read_bytes())
        rows.writerow(["dev-a/twin.wav", "event", "dev", "hum"])
        rows.writerow(["dev-a/hum1.wav", "event", "dev", ""])
    return root / "corpus.csv"


def test_the_report_has_what_was_measured(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["events", "--corpus", str(corpus), "--out", str(out), *BUNDLES]
    result = CliRunner().invoke(command, [*arguments, *PARTS, "--gallery", "train"])
    assert result.exit_code == 0, result.output
    figures = json.loads((out / "results.json").read_text())
    assert set(figures) == {"command", "machine", "encoder", "retrieval", "few-shot"}
    inside, more = (figures["retrieval"][t] for t in ("in dev", "in dev and train"))
    for system in (SIMILAR, "event", "fingerprint", "vae", BASELINE):
        # 24 recordings: the twin counts once, and each finds the same kind from elsewhere.
        assert inside[system]["n_queries"] == more[system]["n_queries"] == 24
        assert inside[system]["n_labels"] == 3
        assert 0.3 < inside[system]["map"] <= 1.0
    # Hums, hisses and clicks are far apart for anything that hears.
    assert inside[BASELINE]["map"] > 0.7
    few = figures["few-shot"]["1"]
    assert set(few) == {
        LEARNED, *(f"{s}, prototype" for s in ("event", "fingerprint", "vae", BASELINE))
    }  # fmt: skip
    assert few[LEARNED]["macro_f1"] > 0.5
    assert few[f"{BASELINE}, prototype"]["macro_f1"] > 0.5
    # Too few of each for 5 examples and 5 more, or for 20.
    assert list(figures["few-shot"]) == ["1"]
    report = (out / "report.md").read_text()
    assert "## Retrieval in dev: 24 queries of 3 labels" in report
    assert "| hiss | 8 | 2 |" in report
    assert str(out / "report.md") in result.output


def test_a_catalog_is_used_again(corpus: Path, tmp_path: Path) -> None:
    options = Options(
        corpus, tmp_path, tmp_path / "cache", Bundles(EVENT, FINGERPRINT, VAE), ("retrieval",)
    )
    first = Context(options, read_corpus(corpus))
    sounds = first.sounds("train")
    assert first.sounds("train") is sounds
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.parquet")}
    again = Context(options, read_corpus(corpus)).sounds("train")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.parquet")} == before
    assert again.uris.tolist() == sounds.uris.tolist()
    assert set(sounds.sources.tolist()) == {"train-a", "train-b"}


def test_similarities_are_those_of_the_command(corpus: Path, tmp_path: Path) -> None:
    bundles = Bundles(EVENT, FINGERPRINT, VAE)
    catalog = prepare_catalog(read_corpus(corpus), "dev", tmp_path, bundles)
    cosines = similarities(catalog, catalog, EVENT)
    sounds = SimilarSounds(catalog, "event", EVENT)
    uris = catalog.indexed_recordings()["uri"].to_pylist()
    for number in (0, 7):
        events = sounds.find(uris[number], top=len(uris))
        assert len(events) > 10
        # Negative ones are not listed.
        expected = {uri: c for uri, c in zip(uris, cosines[number], strict=True) if c > 0.01}
        found = {event.reference: event.score for event in events}
        assert {uri: found[uri] for uri in expected} == pytest.approx(expected, abs=2e-3)


def test_scores_are_probabilities_if_the_encoder_is_calibrated(
    corpus: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(EVENT, tmp_path / "event")
    items = read_corpus(corpus)
    catalog = prepare_catalog(items, "dev", tmp_path, Bundles(str(bundle), FINGERPRINT, VAE))
    clip = catalog.indexed_recordings()["uri"][0].as_py()
    cosines = SimilarSounds(catalog, "event", bundle).find(clip)
    found, same = found_pairs(catalog, str(bundle))
    assert len(found) == len(same)
    # Hums, hisses and clicks from two sources: four of each in the other one.
    assert len(found) == 24 * 10
    likeness = fit_likeness(found[same], found[~same])
    write_likeness(bundle, likeness)
    scores = SimilarSounds(catalog, "event", bundle).find(clip)
    assert [e.reference for e in scores] == [e.reference for e in cosines]
    for calibrated, plain in zip(scores, cosines, strict=True):
        assert calibrated.score == pytest.approx(likeness(plain.score), abs=2e-3)
    chances = np.array([likeness(float(cosine)) for cosine in found])
    assert chances.mean() == pytest.approx(same.mean(), abs=0.05)
    assert calibration_error(chances, same) < 0.2


def test_silence_does_not_count_in_the_mean() -> None:
    rows = np.array([[1.0], [3.0], [100.0], [7.0]])
    peaks = np.array([-10.0, -30.0, -31.0, -90.0])
    assert pool(rows, peaks, np.array([3, 1])).tolist() == [[2.0], [7.0]]


def test_wrong_use_is_told(corpus: Path, tmp_path: Path) -> None:
    arguments = ["events", "--corpus", str(corpus), "--out", str(tmp_path), *BUNDLES]
    result = CliRunner().invoke(command, [*arguments, "--parts", "retrieval,all"])
    assert result.exit_code == 2
    assert "'all' is none of retrieval, few-shot, detection" in result.output
    result = CliRunner().invoke(command, [*arguments, "--split", "test"])
    assert isinstance(result.exception, EarmarkError)
    assert "no events with labels in split 'test'" in str(result.exception)
