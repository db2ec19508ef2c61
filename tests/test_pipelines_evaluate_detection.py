from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE_RATE
from sounds_helpers import SOUNDS, load

from encoders.corpus import Item
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec, log_mel
from index.event_activity import activity, sharpen
from pipelines.evaluate_events.confusion_plot import plot_confusion
from pipelines.evaluate_events.detection import best_covered, confusion
from pipelines.evaluate_events.soundscapes import merged
from pipelines.evaluate_events.templates import TemplateDetector

SPEC = FeatureSpec()
CLASSES = ["dog", "cat"]
TRUTH = {"a": [(1.0, 2.0, "dog"), (1.5, 3.0, "cat")], "b": [(4.0, 4.5, "cat")]}


@pytest.fixture(scope="module")
def drums() -> np.ndarray:
    """4 s of noise with a kick at 1 s and a snare at 2.5 s."""
    signal = np.random.default_rng(0).normal(0, 0.002, 4 * SAMPLE_RATE).astype(np.float32)
    for sound, start in (("kick/bd_haus", 1.0), ("snare/sn_dub", 2.5)):
        heard = load(sound)
        first = int(start * SAMPLE_RATE)
        signal[first : first + len(heard)] += heard
    return signal


def test_activity_tells_when_something_sounds(drums: np.ndarray) -> None:
    frames = log_mel(drums, SPEC)
    active = activity(frames, SPEC) > 0.5
    times = np.flatnonzero(active) * SPEC.hop_length / SPEC.sample_rate
    assert len(activity(frames[:0], SPEC)) == 0
    assert times.min() == pytest.approx(1.0, abs=0.1)
    assert not ((times > 1.4) & (times < 2.35)).any()
    assert times.max() < 3.0
    assert ((times > 2.5) & (times < 2.7)).sum() >= 4


def test_scores_of_windows_become_exact_where_something_sounds(drums: np.ndarray) -> None:
    frames = log_mel(drums, SPEC)
    scores = np.zeros((1 + len(frames) // 4, 1))
    scores[4:13] = 0.9  # windows around 0.5 to 1.5 s
    fine = sharpen(scores, 4, frames, SPEC, 0.25)[:, 0]
    times = np.flatnonzero(fine > 0.5) * SPEC.hop_length / SPEC.sample_rate
    assert times.min() == pytest.approx(1.0, abs=0.1)
    assert times.max() < 1.5


def test_a_template_finds_itself_and_no_silence(drums: np.ndarray) -> None:
    detector = TemplateDetector([(load("kick/bd_haus"), 0), (load("snare/sn_dub"), 1)], 2, SPEC)
    scores = detector.scores(log_mel(drums, SPEC))
    step = SPEC.hop_length / SPEC.sample_rate
    assert scores.min() >= 0
    assert scores.max() <= 1 + 1e-6
    assert np.argmax(scores[:, 0]) * step == pytest.approx(1.1, abs=0.2)
    assert np.argmax(scores[:, 1]) * step == pytest.approx(2.6, abs=0.2)


def test_confusion_counts_what_was_said_while_something_sounded(tmp_path: Path) -> None:
    found = {"a": [(1.1, 1.9, "dog"), (1.6, 2.9, "dog"), (8.0, 9.0, "cat")]}
    counts = confusion(TRUTH, found, CLASSES)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    plot_confusion(counts, CLASSES, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_the_classes_are_those_of_the_scarcer_split() -> None:
    def items(label: str, n_train: int, n_dev: int) -> list[Item]:
        return [Item(Path("x"), "event", "train", label)] * n_train + [
            Item(Path("x"), "event", "dev", label)
        ] * n_dev

    corpus = [*items("many", 90, 1), *items("even", 5, 5), *items("less", 3, 9), *items("no", 9, 0)]
    assert best_covered(corpus, "dev", 2) == ["even", "less"]
    assert best_covered(corpus, "dev", 9) == ["even", "less", "many"]
    with pytest.raises(EarmarkError, match="in both splits"):
        best_covered(items("no", 9, 0), "dev")


def test_sounds_of_one_kind_that_overlap_become_one() -> None:
    events = [(0.0, 1.0, "dog"), (0.5, 2.0, "dog"), (0.5, 0.7, "cat"), (3.0, 4.0, "dog")]
    assert merged(events) == [(0.0, 2.0, "dog"), (0.5, 0.7, "cat"), (3.0, 4.0, "dog")]


def test_event_f1_and_psds_of_known_answers() -> None:
    pytest.importorskip("sed_eval", reason="needs the extra evaluate")
    pytest.importorskip("sed_scores_eval", reason="needs the extra evaluate")
    from pipelines.evaluate_events.detection_metrics import measure_detection

    step = 0.05
    scores = {}
    for name, events in TRUTH.items():
        values = np.zeros((200, 2))
        for onset, offset, label in events:
            values[round(onset / step) : round(offset / step), CLASSES.index(label)] = 0.9
        scores[name] = values
    perfect = measure_detection(TRUTH, TRUTH, scores, step, CLASSES)
    assert perfect.f1[0] == 1.0
    assert perfect.psds1[0] > 0.95
    assert perfect.precision == perfect.recall == 1.0
    late = {n: [(a + 0.3, b + 0.3, label) for a, b, label in e] for n, e in TRUTH.items()}
    wrong = measure_detection(TRUTH, late, {n: 0 * v for n, v in scores.items()}, step, CLASSES)
    assert wrong.f1[0] == 0.0
    assert wrong.psds1[0] < 0.05


@pytest.mark.slow
def test_soundscapes_hold_what_they_say(tmp_path: Path, demo_tracks: Path) -> None:
    pytest.importorskip("scaper", reason="needs the extra evaluate")
    if shutil.which("sox") is None:
        pytest.skip("scaper needs SoX")
    from pipelines.evaluate_events.soundscapes import SECONDS, make_soundscapes, write_labels

    items = [
        Item(path, "event", "train", path.parent.name)
        for kind in ("kick", "snare")
        for path in sorted((SOUNDS / kind).glob("*.flac"))
    ]
    items.append(Item(demo_tracks / "restaurant.ogg", "noise", "train"))
    made = make_soundscapes(items, "train", ["kick", "snare"], 3, tmp_path / "made", seed=1)
    assert len(made) == 3
    for soundscape in made:
        assert 1 <= len(soundscape.events) <= 5
        for onset, offset, label in soundscape.events:
            assert 0 <= onset < offset <= SECONDS
            assert label in ("kick", "snare")
    write_labels(made, tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text().startswith("uri,onset,offset,label\n")
    # The same settings give the same soundscapes, without making them again.
    before = made[0].path.stat().st_mtime_ns
    again = make_soundscapes(items, "train", ["kick", "snare"], 3, tmp_path / "made", seed=1)
    assert again == made
    assert made[0].path.stat().st_mtime_ns == before
    with pytest.raises(EarmarkError, match="no sounds of dog"):
        make_soundscapes(items, "train", ["dog"], 1, tmp_path / "none", seed=1)
