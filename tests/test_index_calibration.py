from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_helpers import FINGERPRINT, run

from encoders.bundle import Calibration, load_bundle
from encoders.corpus import read_corpus
from encoders.errors import EarmarkError
from index.calibration import Evidence, fit_calibration
from index.identify import Identifier
from pipelines.calibrate import calibrate
from pipelines.cli import main

# Not music; the calibration cuts no clips from it.
AMBIENCE = "restaurant.ogg"


def make_evidence(
    distance: float, seed: int = 0, n: int = 1000, wrong: float = 0.05
) -> list[Evidence]:
    """Clips whose similarities lie ``distance`` apart when present and absent, and 0.1 around."""
    rng = np.random.default_rng(seed)
    evidence = []
    for i in range(n):
        absent = i % 2 == 0
        right = not absent and bool(rng.random() >= wrong)
        similarity = rng.normal(0.4 + distance * right, 0.1)
        margin = rng.normal(0.05 + 0.7 * distance * right, 0.07)
        n_pairs = int(rng.integers(1, 20))
        evidence.append(Evidence(similarity, margin, n_pairs, right, absent))
    return evidence


def score(calibration: Calibration, evidence: Evidence, **changes: float) -> float:
    e = dataclasses.replace(evidence, **changes)
    return calibration.score(e.similarity, e.margin, e.n_pairs)


def accepted(calibration: Calibration, evidence: list[Evidence]) -> tuple[float, float]:
    """Share of the absent clips that pass, and of the right ones."""
    passed = [score(calibration, e) >= calibration.threshold for e in evidence]
    absent = np.mean([p for p, e in zip(passed, evidence, strict=True) if e.absent])
    right = np.mean([p for p, e in zip(passed, evidence, strict=True) if e.right])
    return float(absent), float(right)


@pytest.mark.parametrize("distance", [1.0, 0.4, 0.2], ids=["separable", "close", "overlapping"])
def test_more_evidence_is_a_better_score(distance: float) -> None:
    calibration = fit_calibration(make_evidence(distance))
    assert calibration.similarity > 0
    assert calibration.margin > 0
    for n_pairs in (1, 5, 40):
        e = Evidence(0.5, 0.1, n_pairs, right=True, absent=False)
        by_similarity = [score(calibration, e, similarity=s) for s in np.linspace(0, 1, 21)]
        by_margin = [score(calibration, e, margin=m) for m in np.linspace(-0.5, 1, 21)]
        for scores in (by_similarity, by_margin):
            assert scores == sorted(scores)
            assert scores[0] < scores[-1]
            assert all(0 <= s <= 1 for s in scores)


def test_separable_clips_are_separated() -> None:
    evidence = make_evidence(1.5, wrong=0.0)
    assert accepted(fit_calibration(evidence), evidence) == (0.0, 1.0)


def test_a_score_is_the_share_of_right_ones() -> None:
    # Both classes weigh the same, so this holds where there are as many of both.
    evidence = make_evidence(0.2, n=6000, wrong=0.0)
    calibration = fit_calibration(evidence)
    scores = np.array([score(calibration, e) for e in evidence])
    right = np.array([e.right for e in evidence])
    for low in (0.1, 0.3, 0.5, 0.7):
        chosen = (scores >= low) & (scores < low + 0.2)
        assert chosen.sum() > 50
        assert right[chosen].mean() == pytest.approx(scores[chosen].mean(), abs=0.1)


@settings(max_examples=25, deadline=None)
@given(
    distance=st.sampled_from([0.1, 0.2, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 1000),
    n=st.sampled_from([40, 200, 1000]),
    rate=st.sampled_from([0.0, 1 / 500, 0.01, 0.1]),
)
def test_false_accepts_stay_below_the_rate(distance: float, seed: int, n: int, rate: float) -> None:
    evidence = make_evidence(distance, seed, n)
    calibration = fit_calibration(evidence, false_accept_rate=rate)
    assert accepted(calibration, evidence)[0] <= rate
    assert 0.5 <= calibration.threshold < 1


def test_the_threshold_is_no_higher_than_it_has_to_be() -> None:
    evidence = make_evidence(0.15, n=2000)
    strict, lax = (fit_calibration(evidence, rate) for rate in (0.002, 0.05))
    assert lax.threshold < strict.threshold
    assert 0.04 < accepted(lax, evidence)[0] <= 0.05
    assert accepted(lax, evidence)[1] > accepted(strict, evidence)[1] > 0.1


def test_it_holds_for_clips_that_it_has_not_seen() -> None:
    calibration = fit_calibration(make_evidence(0.4, seed=1, n=4000))
    false, true = accepted(calibration, make_evidence(0.4, seed=2, n=4000))
    assert false <= 0.006
    assert true > 0.8


@pytest.mark.parametrize("missing", ["right", "absent", "all"])
def test_both_kinds_of_clips_are_needed(missing: str) -> None:
    evidence = [e for e in make_evidence(0.4) if missing != "all" and not getattr(e, missing)]
    with pytest.raises(ValueError, match="in the catalog and clips that are not"):
        fit_calibration(evidence)


def test_the_score_of_the_extremes_is_finite() -> None:
    calibration = Calibration(similarity=1e4, margin=1e4)
    assert calibration.score(1.0, 1.0, 1) == pytest.approx(1.0)
    assert calibration.score(-1.0, -1.0, 1) == pytest.approx(0.0)
    assert not math.isnan(calibration.score(0.0, 0.0, 10**9))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> tuple[Path, Path, Path]:
    """A catalog of half of the demo tracks, a corpus of all, and a bundle that may be written."""
    folder = tmp_path_factory.mktemp("calibrate")
    tracks = sorted(p for p in demo_tracks.iterdir() if p.suffix not in (".csv", ".md"))
    music = [p for p in tracks if p.name != AMBIENCE]
    bundle = Path(shutil.copytree(FINGERPRINT, folder / "bundle"))
    run(list(music[::2]), folder / "catalog", build_index=True, fingerprint=str(bundle))
    corpus = folder / "corpus.csv"
    with corpus.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "role", "split"])
        for path in tracks:
            writer.writerow([path, "noise" if path.name == AMBIENCE else "music", "train"])
    return folder / "catalog", corpus, bundle


def test_calibrate_writes_the_bundle_and_keeps_its_hash(
    half: tuple[Path, Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To a tiny encoder much is alike that is not the same.
    monkeypatch.setattr("pipelines.calibrate._KNOWN_SIMILARITY", 0.98)
    catalog, corpus, bundle = half
    before, text = load_bundle(bundle), (bundle / "bundle.json").read_text()
    # As the command opens it: the candidates are ranked with the calibration that is there.
    opened = Identifier(catalog, bundle)
    command = ["calibrate", str(catalog), "--corpus", str(corpus), "--bundle", str(bundle)]
    with pytest.raises(SystemExit) as exited:
        main([*command, "--clips", "40", "--seed", "3", "--cache", str(tmp_path / "pcm")])
    assert exited.value.code == 0
    assert "20 clips that are not" in capsys.readouterr().out
    after = load_bundle(bundle)
    assert after.calibration != before.calibration
    assert after.sha256 == before.sha256
    old, new = json.loads(text), json.loads((bundle / "bundle.json").read_text())
    assert new.pop("calibration") == dataclasses.asdict(after.calibration)
    old.pop("calibration", None)
    assert new == old
    # The catalog is still that of the bundle, and its matches are scored anew.
    assert Identifier(catalog, bundle).bundle.calibration == after.calibration

    seen: list[tuple[int, int]] = []
    outcome = calibrate(
        opened,
        read_corpus(corpus),
        "train",
        tmp_path / "pcm",
        n_clips=40,
        seed=3,
        progress=lambda done, n: seen.append((done, n)),
    )
    assert outcome.calibration == after.calibration
    assert seen == [(i, 40) for i in range(1, 41)]
    assert (outcome.n_present, outcome.n_absent) == (20, 20)
    assert outcome.false_accepts == 0
    # A tiny encoder; by chance it would be one in six.
    assert outcome.top1 > 0.35
    assert outcome.accepted <= outcome.top1


def test_calibrate_needs_music_inside_and_outside(
    half: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    catalog, corpus, bundle = half
    identifier = Identifier(catalog, bundle)
    inside = [i for i in read_corpus(corpus) if str(i.path) in identifier.index.uris()]
    outside = [i for i in read_corpus(corpus) if str(i.path) not in identifier.index.uris()]
    assert inside
    for items in (inside, outside, []):
        with pytest.raises(EarmarkError, match="ingest about half of it"):
            calibrate(identifier, items, "train", tmp_path, n_clips=20)
