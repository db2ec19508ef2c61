"""The detector as a bundle: long and short recordings, and what is no detector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE_RATE
from sounds_helpers import load

from encoders.bundle import SHIPPED
from encoders.detector import Detector, condition
from encoders.errors import BundleError
from encoders.features import FLOOR_DB, log_mel


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def drums(seconds: float, starts: dict[str, float]) -> np.ndarray:
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.002, round(seconds * SAMPLE_RATE)).astype(np.float32)
    for sound, start in starts.items():
        heard, first = load(sound), round(start * SAMPLE_RATE)
        signal[first : first + len(heard)] += heard
    return signal


def test_the_shipped_detector_knows_thirty_classes(detector: Detector) -> None:
    assert len(detector.classes) == len(set(detector.classes)) >= 30
    assert detector.classes == sorted(detector.classes)
    assert set(detector.special) < set(detector.classes)
    assert ((detector.thresholds > 0) & (detector.thresholds < 1)).all()


def test_a_long_recording_is_heard_as_its_parts_are(detector: Detector) -> None:
    # Wherever in it a sound lies: windows of 10 s overlap.
    for start in (2.0, 9.4, 17.3, 24.0):
        frames = log_mel(drums(26.0, {"kick/bd_haus": start}), detector.spec)
        scores = detector.scores(frames)
        assert scores.shape == (len(frames), len(detector.classes))
        kick = scores[:, detector.classes.index("kick")]
        peak = int(kick.argmax()) * detector.spec.hop_length / detector.spec.sample_rate
        assert peak == pytest.approx(start + 0.1, abs=0.25)
        assert kick.max() > 0.2


def test_scores_of_nothing_and_of_silence(detector: Detector) -> None:
    n_mels = detector.spec.n_mels
    assert detector.scores(np.zeros((0, n_mels), np.float32)).shape == (0, len(detector.classes))
    silence = np.full((700, n_mels), FLOOR_DB, np.float32)
    assert (detector.scores(silence) < detector.thresholds).all()
    assert detector.scores(silence[:3]).shape == (3, len(detector.classes))


def test_an_encoder_is_no_detector(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is a siamese and no detector"):
        Detector("event")
    with pytest.raises(BundleError, match="no encoder bundle"):
        Detector(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(SHIPPED / "detector", broken)
    meta = json.loads((broken / "bundle.json").read_text())
    del meta["thresholds"]
    (broken / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(BundleError, match="does not describe a detector: 'thresholds'"):
        Detector(broken)


def test_where_others_cannot_be_what_they_would_take_is_shared_out() -> None:
    scores = np.array([[0.2, 0.1, 0.6], [0.0, 0.5, 0.0], [0.5, 0.5, 1.0]])
    given = condition(scores, [1, 0])
    np.testing.assert_allclose(given, [[0.25, 0.5], [0.5, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(condition(scores, [0, 1, 2]), scores)
