"""The shipped fingerprint encoder answers as it did when its figures were taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden.make import fingerprints

from encoders.bundle import load_bundle

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fingerprints.json").read_text())


def test_the_golden_file_is_of_the_shipped_encoder() -> None:
    assert GOLDEN["sha256"] == load_bundle("fingerprint").sha256, "run tests/golden/make.py"


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999), ("int8", 0.97)])
def test_fingerprints_are_what_they_were(precision: str, least: float) -> None:
    for name, found in fingerprints(precision).items():
        wanted = np.array(GOLDEN["fingerprints"][name])
        assert np.sum(found * wanted, axis=1).min() > least
