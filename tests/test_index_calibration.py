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
from scipy.special import ndtri

from encoders.bundle import Calibration, load_bundle, probability
from encoders.corpus import read_corpus
from encoders.errors import EarmarkError
from index.calibration import Judged, fit_calibration, tail_quantile
from index.identify import Identifier
from index.match import Evidence
from pipelines.calibrate import calibrate
from pipelines.cli import main

# Not music; the calibration cuts no clips from it.
AMBIENCE = "restaurant.ogg"


def make_judged(distance: float, seed: int = 0, n: int = 1000, wrong: float = 0.05) -> list[Judged]:
    """Clips whose fields lie ``distance`` apart when present and absent, and 0.05 around."""
    rng = np.random.default_rng(seed)
    judged = []
    for i in range(n):
        absent = i % 2 == 0
        right = not absent and bool(rng.random() >= wrong)
        field = rng.normal(0.05 + distance * right, 0.05)
        focus = rng.normal(0.05 + 0.7 * distance * right, 0.05)
        length = math.log(rng.integers(1, 20))
        judged.append(Judged([([Evidence(0.6, field, field, focus, length)], right)], absent))
    return judged


def score(calibration: Calibration, judged: Judged) -> float:
    return probability(judged.best(calibration)[0])


def accepted(calibration: Calibration, judged: list[Judged]) -> tuple[float, float]:
    """Share of the absent clips that pass, and of the right ones."""
    passed = np.array([score(calibration, j) >= calibration.threshold for j in judged])
    absent = np.array([j.absent for j in judged])
    right = np.array([j.candidates[0][1] for j in judged])
    return float(passed[absent].mean()), float(passed[right].mean())


def test_more_evidence_is_a_higher_score() -> None:
    calibration = fit_calibration(make_judged(0.1))
    assert calibration.weights["field"] > 0
    assert calibration.weights["focus"] > 0
    evidence = Evidence(0.5, 0.1, 0.1, 0.1, 1.0)
    for name in ("field", "focus", "length", "share"):
        changed = (
            dataclasses.replace(evidence, **{name: x}) for x in np.linspace(-0.5, 0.5, 21).tolist()
        )
        scores = [calibration.score(e.features()) for e in changed]
        assert scores == sorted(scores)
        assert all(0 <= s <= 1 for s in scores)


def test_a_part_is_less_sure_than_a_whole_that_agrees_as_well() -> None:
    calibration = fit_calibration(make_judged(0.1))
    whole = Evidence(0.5, 0.1, 0.1, 0.1, math.log(10))
    part = dataclasses.replace(whole, share=math.log(1 / 8))
    fewer = calibration.logit(whole.features()) - calibration.logit(part.features())
    assert fewer == pytest.approx(4 * math.log(8))
    # But a part that agrees much better is the better explanation.
    poor = dataclasses.replace(whole, field=-0.5, focus=0.0)
    judged = Judged([([poor, part], True)], absent=False)
    assert judged.best(calibration) == (calibration.logit(part.features()), True)


def test_separable_clips_are_separated() -> None:
    judged = make_judged(0.4, wrong=0.0)
    assert accepted(fit_calibration(judged), judged) == (0.0, 1.0)


def test_a_score_is_the_share_of_right_ones() -> None:
    # Both classes weigh the same, so this holds where there are as many of both.
    judged = make_judged(0.08, n=6000, wrong=0.0)
    calibration = fit_calibration(judged)
    scores = np.array([score(calibration, j) for j in judged])
    right = np.array([j.candidates[0][1] for j in judged])
    for low in (0.1, 0.3, 0.5, 0.7):
        chosen = (scores >= low) & (scores < low + 0.2)
        assert chosen.sum() > 50
        assert right[chosen].mean() == pytest.approx(scores[chosen].mean(), abs=0.1)


@settings(max_examples=25, deadline=None)
@given(
    distance=st.sampled_from([0.05, 0.1, 0.2, 0.4]),
    seed=st.integers(0, 1000),
    n=st.sampled_from([200, 1000]),
    rate=st.sampled_from([1 / 500, 0.01, 0.1]),
)
def test_false_accepts_stay_near_the_rate(distance: float, seed: int, n: int, rate: float) -> None:
    judged = make_judged(distance, seed, n)
    calibration = fit_calibration(judged, false_accept_rate=rate)
    # By chance there are a few more or less in the sample.
    n_absent = n / 2
    assert accepted(calibration, judged)[0] * n_absent <= rate * n_absent * 1.5 + 3
    assert 0.5 <= calibration.threshold < 1


def test_no_false_accept_at_all_is_the_highest_absent_clip() -> None:
    judged = make_judged(0.1)
    assert accepted(fit_calibration(judged, false_accept_rate=0.0), judged)[0] == 0.0


def test_one_odd_clip_does_not_decide_the_threshold() -> None:
    # Music that is there after all under another name.
    judged = make_judged(0.2)
    odd = Judged([([Evidence(0.9, 0.5, 0.5, 0.5, 1.0)], False)], absent=True)
    clean, spoilt = fit_calibration(judged), fit_calibration([*judged, odd])
    true = [accepted(c, judged)[1] for c in (clean, spoilt)]
    assert true[1] > true[0] - 0.05


def test_the_threshold_is_no_higher_than_it_has_to_be() -> None:
    judged = make_judged(0.08, n=2000)
    strict, lax = (fit_calibration(judged, rate) for rate in (0.002, 0.05))
    assert lax.threshold < strict.threshold
    assert 0.04 < accepted(lax, judged)[0] <= 0.06
    assert accepted(lax, judged)[1] > accepted(strict, judged)[1] > 0.1


def test_it_holds_for_clips_that_it_has_not_seen() -> None:
    calibration = fit_calibration(make_judged(0.2, seed=1, n=4000))
    false, true = accepted(calibration, make_judged(0.2, seed=2, n=4000))
    assert false <= 0.006
    assert true > 0.8


@pytest.mark.parametrize("missing", ["right", "absent", "all"])
def test_both_kinds_of_clips_are_needed(missing: str) -> None:
    judged = [
        j
        for j in make_judged(0.2)
        if (missing != "absent" or not j.absent) and (missing != "right" or j.absent)
    ]
    with pytest.raises(ValueError, match="in the catalog and clips that are not"):
        fit_calibration([] if missing == "all" else judged)


@pytest.mark.parametrize("rate", [0.001, 0.002, 0.005])
def test_the_tail_is_extrapolated(rate: float) -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 4000)
    assert tail_quantile(values, rate) == pytest.approx(1.0 - 2.0 * ndtri(rate), rel=0.1)
    assert tail_quantile(np.append(values, 1e6), rate) == pytest.approx(
        tail_quantile(values, rate), rel=0.02
    )


def test_the_score_of_the_extremes_is_finite() -> None:
    calibration = Calibration(weights={"field": 1e4})
    assert calibration.score({"field": 1.0}) == pytest.approx(1.0)
    assert calibration.score({"field": -1.0}) == pytest.approx(0.0)
    assert not math.isnan(calibration.score({"field": 1e30}))


def test_a_calibration_of_the_first_version_is_read() -> None:
    old = {
        "intercept": -15.6, "similarity": 20.6, "margin": 24.1, "length": 1.2, "threshold": 0.9666
    }  # fmt: skip
    read = Calibration.from_dict(old)
    assert read.threshold == 0.9666
    features = Evidence(0.6, 0.2, 0.3, 0.1, math.log(5)).features()
    assert read.logit(features) == pytest.approx(
        -15.6 + 20.6 * 0.6 + 24.1 * 0.2 + 1.2 * math.log(5)
    )
    assert Calibration.from_dict(dataclasses.asdict(read)) == read
    assert Calibration.from_dict({}) == Calibration()


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
