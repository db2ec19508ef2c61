"""``earmark train detector``, from a corpus to what ``earmark events detect`` says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE_RATE
from sounds_helpers import SOUNDS

from encoders.bundle import SHIPPED
from encoders.clips import Clips
from encoders.corpus import Item
from encoders.cost import count_cost
from encoders.detector import Detector
from encoders.detector_network import DetectorConfig, build_detector
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.mixtures import MixtureRecipe, Mixtures
from encoders.recipes.detector import (
    DetectorRecipe,
    brought_together,
    start_from_encoder,
)
from encoders.warm_start import FLOAT_NETWORK, read_layers
from index.event_detector import EventDetector
from index.event_regions import RegionOptions
from index.event_thresholds import CANDIDATES, count_hits, merge_spans, try_thresholds
from pipelines.cli import main

pytest.importorskip("tensorflow", reason="needs the extra train")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    heard = capsys.readouterr()
    return int(ended.value.code or 0), heard.out, heard.err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Drums of five sources, three times each, over hiss."""
    path, hiss = tmp_path / "corpus.csv", tmp_path / "hiss.wav"
    soundfile.write(
        hiss, np.random.default_rng(0).normal(0, 0.01, 5 * SAMPLE_RATE), SAMPLE_RATE
    )  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "role", "split", "label", "source"])
        for split in ("train", "dev"):
            writer.writerow([hiss, "noise", split, "", ""])
            for kind in ("kick", "snare"):
                sounds = sorted((SOUNDS / kind).glob("*.flac"))[:5]
                for copy in range(3):
                    writer.writerows([s, "event", split, kind, f"{copy}"] for s in sounds)
            writer.writerow([SOUNDS / "bell" / "elec_ping.flac", "event", split, "bell", "x"])
    return path


def test_a_detector_is_trained_and_detects(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "encoders.recipes.DetectorRecipe",
        lambda *a, **more: DetectorRecipe(*a, **{"n_mixtures": 3} | more),
    )
    monkeypatch.setattr("index.event_thresholds.N_MIXTURES", 4)
    out = tmp_path / "run"
    command = ["train", "detector", "--corpus", corpus, "--out", out, "--width", 16]
    code, said, told = run(capsys, *command, "--channels", "8,12,16", "--steps", 2, "--special", 1)
    assert code == 0, told
    assert f"earmark events detect CLIP --model {out / 'bundle'}" in said
    meta = json.loads((out / "bundle" / "bundle.json").read_text())
    # What there is one of is not learned.
    assert meta["classes"] == ["kick", "snare"]
    assert meta["network"]["width"] == 16
    # Of as many recordings the first by name; of which two more networks are asked.
    assert meta["special"] == ["kick"]
    folders = [f.name for f in sorted(out.glob("*-[0-9]"))]
    assert folders == ["member-0", "specialist-0", "specialist-1"]
    detector = Detector(out / "bundle")
    assert ((detector.thresholds > 0) & (detector.thresholds < 1)).all()
    assert len(detector.bundle.meta["f1"]) == 2
    clip = SOUNDS / "kick" / "bd_haus.flac"
    code, said, told = run(
        capsys, "events", "detect", clip, "--model", out / "bundle", "--min-score", "0",
        "--format", "jsonl",
    )  # fmt: skip
    assert code == 0, told
    assert {json.loads(line)["label"] for line in said.splitlines()} == {"kick", "snare"}


def test_the_convolutions_are_those_of_the_event_encoder() -> None:
    network = SHIPPED / "event" / FLOAT_NETWORK
    config = DetectorConfig(width=8)
    model = build_detector(320, 128, 2, config)
    levels = np.random.default_rng(0).random((2, 320, 128)).astype(np.float32)
    start_from_encoder(model, network, levels)
    theirs = [kernel for kernel, _ in read_layers(network)][:5]
    for number, (kernel, channels) in enumerate(zip(theirs, config.channels, strict=True)):
        copy = model.get_layer(f"conv{number}").get_weights()[0]
        assert copy.shape[-1] == channels
        a, b = (k.reshape(-1, channels) for k in (kernel, copy))
        # Each filter is the same, but for how it is normalised after it.
        cosines = (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))
        assert np.median(cosines) > 0.99


def test_what_networks_say_is_the_mean_of_both_kinds() -> None:
    config = DetectorConfig(channels=(4, 4), width=4)
    members = [build_detector(32, 128, 3, config) for _ in range(2)]
    specialist = build_detector(32, 128, 1, config)
    levels = np.random.default_rng(0).random((2, 32, 128)).astype(np.float32)
    a, b, special = (n.predict_on_batch(levels) for n in (*members, specialist))
    assert not np.allclose(a, b, atol=1e-3)
    both = brought_together(members, [], [])
    np.testing.assert_allclose(both.predict_on_batch(levels), (a + b) / 2, atol=1e-5)
    assert count_cost(both).multiply_adds == 2 * count_cost(members[0]).multiply_adds
    # Of the last class, a specialist says that it is heard (column 2), and that it begins (5).
    expected = (a + b) / 2
    expected[..., [2, 5]] = (expected[..., [2, 5]] + special) / 2
    together = brought_together(members, [specialist], [2])
    np.testing.assert_allclose(together.predict_on_batch(levels), expected, atol=1e-5)


def test_a_corpus_without_labels_is_told(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text(corpus.read_text().replace(",kick,", ",,").replace(",snare,", ",,"))
    command = ["train", "detector", "--corpus", bare, "--out", tmp_path / "run", "--steps", 1]
    code, _, told = run(capsys, *command)
    assert code == 2
    assert "no label has 15 recordings of 3 sources" in told


class Loudness(EventDetector):
    """Hears the two bands that the sounds below are in, and gives them unlike scores."""

    options = RegionOptions(low=1.0)
    onset_frames, offset_frames = 0.0, 1.0

    def frame_scores(self, frames: np.ndarray, every_class: bool = False) -> np.ndarray:
        heard = frames[:, [20, 90]] > -40
        # Of the second, something is always heard a little.
        return np.where(heard, [0.75, 0.9], [0.0, 0.6])


def test_the_threshold_is_that_of_the_best_mean_f1() -> None:
    spec = FeatureSpec(window_length=160_000, window_hop=80_000)
    sounds = []
    for band in (20, 90):
        frames = np.full((64, spec.n_mels), -90.0, np.float16)
        frames[16:48, band] = 0.0
        sounds.append(frames)
    items = [Item(Path(k), "event", "dev", k) for k in ("low", "high")]
    hiss = Clips([np.full((99, spec.n_mels), -70.0, np.float16)], [items[0]])
    recipe = MixtureRecipe(
        most=2, snr_db=(30, 30), filter_db=0, speed=0, bands=0, p_noise=0, p_two=0
    )  # fmt: skip
    mixtures = Mixtures(
        Clips(sounds, items), hiss, Clips([], []), ["low", "high"], spec, LevelInput(0, 128), 2,
        recipe=recipe,
    )  # fmt: skip
    detector = Loudness(["low", "high"], np.array([0.5, 0.5]), spec)
    tried = try_thresholds(detector, mixtures, 40)
    # Above 0.75 the first is lost; below 0.6 the second is found all the time.
    assert 0.6 < CANDIDATES[tried.choose()] < 0.76
    assert (tried.f1[tried.choose()] > 0.8).all()
    assert tried.f1[0, 0] > 0.8 > 0.3 > tried.f1[0, 1]
    assert (tried.n_true > 10).all()


def test_hits_are_counted_once_and_spans_that_touch_are_one() -> None:
    assert merge_spans([(3, 4), (0, 1), (0.5, 2)]) == [(0, 2), (3, 4)]
    assert count_hits([(1.0, 2.0)], [(1.1, 2.1), (0.9, 2.0)]) == 1
    assert count_hits([(1.0, 2.0)], [(1.3, 2.0), (1.0, 2.3)]) == 0
    # A fifth of a long one.
    assert count_hits([(1.0, 5.0)], [(1.0, 5.7)]) == 1


def test_mixtures_need_a_sound() -> None:
    spec = FeatureSpec(window_length=160_000, window_hop=80_000)
    nothing = Clips([], [])
    with pytest.raises(EarmarkError, match="no sound of any class"):
        Mixtures(nothing, nothing, nothing, ["dog"], spec, LevelInput(0, 128), 2)
