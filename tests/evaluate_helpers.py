"""What the tests of the evaluation share: a small corpus, a data base in memory, a peer."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.peers import NOTHING, Answer

DEV = ("palace.ogg", "media-threat.ogg", "musicbox.mp3", "hacienda.mp3")
TRAIN = ("chaos-god.ogg", "eureka.m4a", "blackmoor-tides.opus", "icy-lands.opus")
NOISE = "restaurant.ogg"


def write_corpus(folder: Path, tracks: Path) -> Path:
    """A corpus of the demo tracks; its names are the same wherever it lies."""
    folder.mkdir(parents=True)
    rows = [(name, "music", "dev") for name in DEV]
    rows += [(name, "music", "train") for name in TRAIN]
    rows.append((NOISE, "noise", "dev"))
    for name, _, _ in rows:
        shutil.copy(tracks / name, folder / name)
    path = folder / "corpus.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "role", "split"), *rows])
    return path


@dataclasses.dataclass
class Recordings:
    """Stands in for :class:`~pipelines.evaluate.references.References`."""

    sounds: dict[str, np.ndarray]
    ids: dict[str, str] = dataclasses.field(default_factory=dict)

    def name(self, uri: str) -> str:
        return uri

    def recording_id(self, name: str) -> str:
        return self.ids.get(name, name)

    def n_samples(self, name: str) -> int:
        return len(self.sounds[name])

    def audio(self, name: str, first: int, n_samples: int) -> np.ndarray:
        sound, at = self.sounds[name], np.arange(first, first + n_samples)
        inside = (at >= 0) & (at < len(sound))
        return np.where(inside, sound[np.clip(at, 0, len(sound) - 1)], np.float32(0))


class FirstPeer:
    """Says of every clip that it is from 3 s into the first reference."""

    name = "first"
    version = "1.0"

    def __init__(self, patience: int = 10**6) -> None:
        self.patience = patience
        self.indexed: list[list[str]] = []
        self.clips: list[Path] = []

    def index(self, references: Sequence[Path], folder: Path, progress: Any = None) -> None:
        self.references = list(references)
        self.indexed.append(sorted(path.name for path in references))

    def query(self, clips: Sequence[Path], progress: Any = None) -> list[Answer]:
        if len(self.clips) + len(clips) > self.patience:
            raise KeyboardInterrupt
        self.clips += clips
        answer = Answer(str(self.references[0]), 3.0, 1.0, True)
        return [NOTHING if clip.stem.startswith("noise") else answer for clip in clips]
