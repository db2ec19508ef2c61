"""Soundscapes with events whose times are known: real sounds over real ambience, by scaper.

Scaper: Salamon et al., "Scaper: a library for soundscape synthesis and augmentation", WASPAA 2017.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from encoders.audio import load_audio
from encoders.corpus import Item
from encoders.errors import AudioError, EarmarkError
from index.event_thresholds import Span, merge_spans

SECONDS = 10.0
MOST_EVENTS = 5
SNR_DB = (0.0, 20.0)

_RATE = 44_100
_LONGEST_S = 5.0
_SHORTEST_S = 0.05
# Level of the background, LUFS.
_REFERENCE_DB = -40
# What is further below the peak than this, at either end of a sound, is silence around it.
_TRIM_DB = 40.0

Truth = tuple[float, float, str]


@dataclasses.dataclass(frozen=True)
class Soundscape:
    """One made recording: its file, and onset (s), offset (s) and label of its events."""

    path: Path
    events: tuple[Truth, ...]


def make_soundscapes(
    items: Sequence[Item], split: str, classes: Sequence[str], n: int, folder: Path, seed: int
) -> list[Soundscape]:
    """Make soundscapes, or read those that an earlier run has made in the same way.

    Each lasts 10 s and has 1 to 5 events at random times, 0 to 20 dB above the ambience.

    Parameters
    ----------
    items : sequence of Item
        Events with labels, and noise, which is the ambience.
    split : str
        Whose sounds are used, and whose ambience.
    classes : sequence of str
        Of the events.
    n : int
    folder : Path
        Where the files go.
    seed : int

    Raises
    ------
    EarmarkError
        If the split has no ambience or a class no sounds.
    ImportError
        If scaper is not installed.
    """
    import scaper

    if not hasattr(np, "Inf"):
        # scaper 1.6 was written for numpy 1.
        setattr(np, "Inf", np.inf)  # noqa: B010
    # SoX is told of its output format, and warns all the same.
    logging.getLogger("sox").setLevel(logging.ERROR)
    settings = json.dumps([split, sorted(classes), n, seed])
    made = folder / "settings.json"
    if not made.exists() or made.read_text() != settings:
        foreground, background = folder / "foreground", folder / "background"
        _write_sounds(items, split, classes, foreground)
        _write_ambience(items, split, background / "ambience")
        (folder / "soundscapes").mkdir(exist_ok=True)
        rng = np.random.default_rng(seed)
        for number in range(n):
            maker = scaper.Scaper(
                SECONDS, str(foreground), str(background), random_state=seed * 100_003 + number
            )
            maker.sr, maker.n_channels, maker.ref_db = _RATE, 1, _REFERENCE_DB
            maker.add_background(
                label=("const", "ambience"),
                source_file=("choose", []),
                source_time=("uniform", 0, 50),
            )  # fmt: skip
            for _ in range(int(rng.integers(1, MOST_EVENTS + 1))):
                maker.add_event(
                    label=("choose", list(classes)), source_file=("choose", []),
                    source_time=("const", 0), event_time=("uniform", 0, SECONDS - 1),
                    event_duration=("const", _LONGEST_S), snr=("uniform", *SNR_DB),
                    pitch_shift=None, time_stretch=None,
                )  # fmt: skip
            stem = folder / "soundscapes" / f"{split}-{number:04d}"
            with warnings.catch_warnings():
                # It warns of every sound that is shorter than the longest, and cuts it.
                warnings.simplefilter("ignore")
                maker.generate(
                    f"{stem}.wav", f"{stem}.jams", txt_path=f"{stem}.txt", disable_sox_warnings=True
                )
        made.write_text(settings)
    return [
        Soundscape(path, tuple(_read_truth(path.with_suffix(".txt"))))
        for path in sorted((folder / "soundscapes").glob(f"{split}-*.wav"))[:n]
    ]


def merged(events: Sequence[Truth]) -> list[Truth]:
    """Events of which those of one label do not overlap."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for onset, offset, label in events:
        spans[label].append((onset, offset))
    return sorted(
        (*span, label) for label, of_label in spans.items() for span in merge_spans(of_label)
    )


def _write_sounds(items: Sequence[Item], split: str, classes: Sequence[str], folder: Path) -> None:
    counts = dict.fromkeys(classes, 0)
    for number, item in enumerate(items):
        if item.role != "event" or item.split != split or item.label not in counts:
            continue
        try:
            sound = _trim(load_audio(item.path, _RATE))
        except AudioError:
            continue
        if len(sound) >= _SHORTEST_S * _RATE:
            counts[item.label] += 1
            home = folder / item.label
            home.mkdir(parents=True, exist_ok=True)
            soundfile.write(home / f"{number:06d}.wav", sound[: int(_LONGEST_S * _RATE)], _RATE)
    if missing := [label for label, count in counts.items() if not count]:
        raise EarmarkError(f"no sounds of {', '.join(missing)} in split {split!r}")


def _write_ambience(items: Sequence[Item], split: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    n = 0
    for number, item in enumerate(items):
        if item.role == "noise" and item.split == split:
            try:
                sound = load_audio(item.path, _RATE)
            except AudioError:
                continue
            # Long enough for a place at random, and no impulse response.
            if len(sound) >= 2 * SECONDS * _RATE:
                soundfile.write(folder / f"{number:06d}.wav", sound, _RATE)
                n += 1
    if not n:
        raise EarmarkError(f"the corpus has no noise of 20 s or more in split {split!r}")


def _trim(sound: np.ndarray) -> np.ndarray:
    width = _RATE // 100
    n = len(sound) // width
    if n < 2:
        return sound
    levels = np.sqrt((sound[: n * width].reshape(n, width) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels > levels.max() * 10 ** (-_TRIM_DB / 20))
    return sound[loud[0] * width : (loud[-1] + 1) * width] if len(loud) else sound[:0]


def _read_truth(path: Path) -> list[Truth]:
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        onset, offset, label = line.split("\t")
        events.append((float(onset), float(offset), label))
    return events
