from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE_RATE
from sounds_helpers import SOUNDS, load

from encoders.bundle import load_bundle
from encoders.clips import Clips
from encoders.corpus import Item, best_covered
from encoders.errors import EarmarkError
from encoders.features import FLOOR_DB, FeatureSpec, log_mel
from index.clips import ClipEncoder
from index.config import EncoderInfo
from index.event_mixtures import mixture_set
from index.event_regions import find_regions
from index.event_segment_detector import SegmentDetector
from index.event_segments import Segment, find_segments, segment_windows
from index.event_training import fit_events
from index.scaling import Scaling
from pipelines.evaluate_events.confusion_plot import plot_confusion
from pipelines.evaluate_events.detection import confusion
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


def test_segments_begin_and_end_with_the_sounds(drums: np.ndarray) -> None:
    frames = log_mel(drums, SPEC)
    segments = find_segments(frames, SPEC)
    step = SPEC.hop_length / SPEC.sample_rate
    onsets = [s.first * step for s in segments]
    assert any(onset == pytest.approx(1.0, abs=0.08) for onset in onsets)
    assert any(onset == pytest.approx(2.5, abs=0.08) for onset in onsets)
    kick = min(segments, key=lambda s: abs(s.first * step - 1.0))
    assert 1.1 < kick.end * step < 1.6
    # What is between them is looked at too, and everything lies in the recording.
    assert onsets[0] == 0
    assert all(0 <= s.first < s.end <= len(frames) for s in segments)
    assert [find_segments(frames[:n], SPEC) for n in (0, 2)] == [[], [Segment(0, 2)]]


def test_a_segment_is_embedded_without_what_is_beside_it(drums: np.ndarray) -> None:
    frames = log_mel(drums, SPEC)
    frames[30:40] = FLOOR_DB
    (window,) = segment_windows(frames, Segment(40, 50), SPEC)
    np.testing.assert_allclose(window[8:18], frames[40:50], atol=1e-3)
    assert (window[:8] == FLOOR_DB).all()
    assert (window[18:] == FLOOR_DB).all()
    assert len(segment_windows(frames, Segment(0, 110), SPEC)) == 2


def test_what_sounded_before_a_segment_is_taken_off() -> None:
    frames = np.full((64, SPEC.n_mels), -50.0, np.float32)
    frames[40:50, 20:30] = -20.0
    frames[40:50, 60:70] = -49.0
    (window,) = segment_windows(frames, Segment(40, 50), SPEC)
    np.testing.assert_allclose(window[8:18, 20:30], -20.0, atol=0.01)
    # Of what goes on as before, a tenth is left.
    np.testing.assert_allclose(window[8:18, :20], -60.0, atol=0.01)
    np.testing.assert_allclose(window[8:18, 60:70], -59.0, atol=0.01)
    # Nothing is known of what came before the very first moment.
    (window,) = segment_windows(frames, Segment(0, 20), SPEC)
    np.testing.assert_array_equal(window[8:28], frames[:20])


def test_the_truth_passes_the_metrics_unharmed() -> None:
    # Times, frames, hysteresis, collar: whatever is wrong between them shows here.
    pytest.importorskip("sed_eval", reason="needs the extra evaluate")
    from pipelines.evaluate_events.detection_metrics import count_events

    step = SPEC.hop_length / SPEC.sample_rate
    found = {}
    for name, events in TRUTH.items():
        scores = np.zeros((320, 2))
        for onset, offset, label in events:
            scores[round(onset / step) : round(offset / step) + 1, CLASSES.index(label)] = 0.9
        regions = find_regions(scores, np.array([0.5, 0.5]), step, SegmentDetector.options)
        found[name] = [
            (r.first * step, r.last * step, label)
            for label, mine in zip(CLASSES, regions, strict=True)
            for r in mine
        ]
    counts = count_events(TRUTH, found, CLASSES)
    assert counts.sum(axis=0).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_model_of_mixtures_knows_what_was_put_in(drums: np.ndarray) -> None:
    kinds = {"kick": 0, "snare": 1}
    paths = [p for kind in kinds for p in sorted((SOUNDS / kind).glob("*.flac"))]
    # Each sound is a source of its own, so that it can be held back.
    items = [Item(p, "event", "train", p.parent.name, source=p.stem) for p in paths]
    sounds = Clips(
        [log_mel(load(f"{p.parent.name}/{p.stem}"), SPEC).astype(np.float16) for p in paths], items
    )
    hiss = np.random.default_rng(1).normal(0, 0.01, 6 * SAMPLE_RATE).astype(np.float32)
    ambience = Clips([log_mel(hiss, SPEC).astype(np.float16)], [Item(Path("x"), "noise", "train")])
    bundle = load_bundle("event")
    info = EncoderInfo("event", bundle.sha256, "int8", bundle.dim)
    encoder, scaling = ClipEncoder(info), Scaling.none(bundle.dim)
    data = mixture_set(sounds, ambience, list(kinds), encoder, scaling, 30)
    assert (data.targets.sum(axis=0) > 10).all()
    assert data.targets.sum(axis=1).max() == 1
    assert (data.targets.sum(axis=1) == 0).any()
    again = mixture_set(sounds, ambience, list(kinds), encoder, scaling, 30)
    assert np.array_equal(data.vectors, again.vectors)
    model = fit_events(data, SPEC, "event", info, scaling)
    detector = SegmentDetector(model)
    frames = log_mel(drums, SPEC)
    scores = detector.frame_scores(frames)
    step = SPEC.hop_length / SPEC.sample_rate
    heard = {c: np.flatnonzero(scores[:, k] >= 0.9 * scores[:, k].max()) for c, k in kinds.items()}
    assert heard["kick"].min() * step == pytest.approx(1.0, abs=0.1)
    assert heard["snare"].min() * step == pytest.approx(2.5, abs=0.1)


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
    assert best_covered(items("no", 9, 0), "dev", 9) == []


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
    from pipelines.evaluate_events.soundscapes import SECONDS, make_soundscapes

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
    # The same settings give the same soundscapes, without making them again.
    before = made[0].path.stat().st_mtime_ns
    again = make_soundscapes(items, "train", ["kick", "snare"], 3, tmp_path / "made", seed=1)
    assert again == made
    assert made[0].path.stat().st_mtime_ns == before
    with pytest.raises(EarmarkError, match="no sounds of dog"):
        make_soundscapes(items, "train", ["dog"], 1, tmp_path / "none", seed=1)
