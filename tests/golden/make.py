"""Make ``fingerprints.json``: ``python tests/golden/make.py``, when the shipped encoder changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
REPO = HERE.parent.parent
sys.path.insert(0, str(REPO))

from encoders.audio import load_audio  # noqa: E402
from encoders.bundle import load_bundle  # noqa: E402
from encoders.features import cut_windows, log_mel  # noqa: E402

TRACKS = ("palace.ogg", "eureka.m4a", "musicbox.mp3")
# Windows of every track, 5 s apart.
WINDOWS = (10, 20, 30)


def fingerprints(precision: str) -> dict[str, np.ndarray]:
    """Fingerprints of a few windows of each track [shape=(3, dim)], by the shipped encoder."""
    bundle = load_bundle("fingerprint", precision)
    found = {}
    for name in TRACKS:
        signal = load_audio(REPO / "pipelines" / "demo_tracks" / name, bundle.spec.sample_rate)
        windows = cut_windows(log_mel(signal, bundle.spec), bundle.spec)
        found[name] = bundle.encode(windows[list(WINDOWS)])
    return found


if __name__ == "__main__":
    bundle = load_bundle("fingerprint")
    content = {
        "sha256": bundle.sha256,
        "fingerprints": {k: v.round(3).tolist() for k, v in fingerprints("float32").items()},
    }
    (HERE / "fingerprints.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
