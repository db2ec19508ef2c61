"""Bundles of other similarities and inputs: what bundle.json says of them is what runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from encoders.bundle import (
    Bundle,
    Calibration,
    Network,
    unit_vectors,
    write_calibration,
    write_decision,
)
from encoders.decision import Decision
from encoders.errors import BundleError
from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import MfccInput

TINY = ROOT / "tests" / "data" / "bundles"
SPEC = FeatureSpec()


@pytest.fixture(scope="module")
def windows(music: tuple[np.ndarray, int]) -> np.ndarray:
    return np.ascontiguousarray(cut_windows(log_mel(music[0], SPEC), SPEC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny fingerprint encoder, older than decisions and kinds of input."""
    return Path(shutil.copytree(TINY / "fingerprint", tmp_path / "fingerprint"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_decision_about_pairs(folder: Path, windows: np.ndarray) -> None:
    before = Bundle(folder)
    vectors = before.encode(windows[::8])
    shifted = np.roll(vectors, 1, axis=0)
    assert before.decision is None
    with pytest.raises(BundleError, match="fingerprint has no threshold for pairs of windows"):
        before.same(vectors, vectors)
    write_calibration(folder, Calibration(threshold=0.25))
    decision = Decision("cosine", 20.0, -10.0, 0.999, 0.02, 1.1, 0.1)
    write_decision(folder, decision)
    after = Bundle(folder)
    assert after.decision == decision
    assert after.calibration.threshold == 0.25
    assert after.sha256 == before.sha256
    assert after.same(vectors, vectors).all()
    assert not after.same(vectors, shifted).any()
    assert not after.same(vectors, vectors, strict=True).any()  # Nothing reaches 1.1.


@pytest.mark.parametrize(
    "decision", [{}, {"similarity": "cosine"}, "cosine", {"similarity": "none", "scale": 1.0}]
)
def test_a_broken_decision_is_told(decision: Any, folder: Path) -> None:
    edit(folder, decision=decision)
    with pytest.raises(BundleError, match="does not describe a bundle"):
        Bundle(folder)


def test_the_kind_of_input_is_the_bundles(folder: Path, windows: np.ndarray) -> None:
    levels = Bundle(folder).inputs
    assert levels.kind == "log-mel"  # This bundle is older than the kinds.
    edit(folder, inputs=levels.to_dict())
    assert Bundle(folder).inputs == levels
    # 96 coefficients of 96 bands: what the network was not trained on, but of its shape.
    edit(folder, inputs=MfccInput(levels.low, levels.high, n_mfcc=levels.n_bands).to_dict())
    cepstral = Bundle(folder)
    assert isinstance(cepstral.inputs, MfccInput)
    network = Network(folder / "int8.tflite")
    expected = unit_vectors(network(cepstral.inputs(windows)))
    np.testing.assert_allclose(cepstral.encode(windows), expected, atol=1e-6)
    edit(folder, inputs={"kind": "chroma", "low": 0, "high": 12})
    with pytest.raises(BundleError, match="unknown kind of input 'chroma'"):
        Bundle(folder)
