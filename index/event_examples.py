"""Labels to windows: which rows of a column hold which sound, and which hold none."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from encoders.errors import LabelError
from encoders.features import FeatureSpec
from index.column_index import ColumnIndex
from index.label_files import BACKGROUND, Labelled

# Of a recording that is labelled as a whole, windows this far below its loudest are its pauses.
_QUIET_DB = 10.0
# A window holds a sound if this share of it, or of the sound, lies in it.
_ENOUGH = 0.5
# Of one labelled stretch, windows spread over it: the rest is more of the same.
_MOST_WINDOWS = 8
# Recordings without labels: windows taken from them, at random, as background.
_BACKGROUND_ROWS = 3000
# From so many folders on, what lies in one folder is held back together.
_ENOUGH_FOLDERS = 9


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Windows and what is known of them.

    Attributes
    ----------
    names : list of str
        The classes.
    vectors : np.ndarray [shape=(n, dim), dtype=float32]
    targets : np.ndarray [shape=(n, n_classes), dtype=int8]
        1 it holds the sound, 0 it does not, -1 unknown.
    examples : np.ndarray [shape=(n,)]
        Number of the labelled stretch that a window is from, -1 if from none.
    recordings : np.ndarray [shape=(n,)]
        Number of its recording.
    groups : np.ndarray [shape=(n,)]
        What has to be held back together.
    certain : np.ndarray of bool [shape=(n,)]
        Whether somebody has listened: not so of background from recordings without labels.
    segments : bool
        Whether there are segments among them without what sounds beside them.
    """

    names: list[str]
    vectors: np.ndarray
    targets: np.ndarray
    examples: np.ndarray
    recordings: np.ndarray
    groups: np.ndarray
    certain: np.ndarray
    segments: bool = False


def training_set(
    index: ColumnIndex,
    labels: Sequence[Labelled],
    spec: FeatureSpec,
    refuted: Sequence[Labelled] = (),
    seed: int = 0,
) -> TrainingSet:
    """Collect the windows to learn from.

    Background is what lies between labelled stretches, what is labelled so, and, at random, what
    is in recordings without any label.

    Parameters
    ----------
    index : ColumnIndex
    labels : sequence of Labelled
    spec : FeatureSpec
    refuted : sequence of Labelled
        Stretches of which somebody has said that they do not hold the sound.
    seed : int

    Raises
    ------
    LabelError
        If no label is left, or none of them has a sound in it.
    """
    names = sorted({label.label for label in labels} - {BACKGROUND})
    if not names:
        raise LabelError("no labels to learn from")
    column = {name: number for number, name in enumerate(names)}
    by_row: dict[int, np.ndarray] = {}
    example_of: dict[int, int] = {}
    of_recording: dict[int, list[Labelled]] = defaultdict(list)
    for number, label in enumerate(labels):
        of_recording[label.recording].append(label)
        for row in _rows_with(index, label, spec):
            target = by_row.setdefault(row, np.zeros(len(names), np.int8))
            if label.label != BACKGROUND:
                target[column[label.label]] = 1
                example_of.setdefault(row, number)
    for label in refuted:
        if label.label in column:
            for row in _rows_with(index, label, spec):
                target = by_row.setdefault(row, np.full(len(names), -1, np.int8))
                target[column[label.label]] = 0
    for recording, mine in of_recording.items():
        if not any(label.whole for label in mine):
            for row in _rows_between(index, recording, mine, spec):
                by_row.setdefault(row, np.zeros(len(names), np.int8))
    rows = np.array(sorted(by_row), np.int64)
    targets = np.stack([by_row[row] for row in rows]) if len(rows) else np.empty((0, len(names)))
    n_certain = len(rows)
    background = _unlabelled(index, set(of_recording), np.random.default_rng(seed))
    rows = np.concatenate([rows, background])
    targets = np.concatenate([targets, np.zeros((len(background), len(names)), np.int8)])
    vectors = index.vectors[rows].astype(np.float32)
    heard = vectors.any(axis=1)
    certain = np.arange(len(rows)) < n_certain
    rows, targets, vectors, certain = rows[heard], targets[heard], vectors[heard], certain[heard]
    empty = [name for name in names if not (targets[:, column[name]] == 1).any()]
    if empty:
        raise LabelError(f"what is labelled {empty[0]!r} is silent: there is nothing to learn from")
    recordings = index.recording_of(rows)
    return TrainingSet(
        names,
        vectors,
        targets.astype(np.int8),
        np.array([example_of.get(int(row), -1) for row in rows]),
        recordings,
        _groups(index.recordings, recordings),
        certain,
    )


def _rows_with(index: ColumnIndex, label: Labelled, spec: FeatureSpec) -> np.ndarray:
    first = int(index.first_rows[label.recording])
    n = int(index.n_rows[label.recording])
    if label.whole:
        peaks = index.peaks_db[first : first + n].astype(np.float32)
        return first + _spread(np.flatnonzero(peaks >= peaks.max() - _QUIET_DB))
    overlap = _overlap(n, label.onset_s, label.offset_s, spec)
    length = min(label.offset_s - label.onset_s, spec.window_length / spec.sample_rate)
    # Rounding must not lose the only window that there is.
    least = min(_ENOUGH * length, float(overlap.max())) - 1e-6
    return first + _spread(np.flatnonzero(overlap >= max(least, 1e-6)))


def _spread(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= _MOST_WINDOWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _MOST_WINDOWS).round().astype(int)]


def _rows_between(
    index: ColumnIndex, recording: int, labels: Sequence[Labelled], spec: FeatureSpec
) -> np.ndarray:
    n = int(index.n_rows[recording])
    free = np.ones(n, bool)
    for label in labels:
        free &= _overlap(n, label.onset_s, label.offset_s, spec) <= 0
    return int(index.first_rows[recording]) + np.flatnonzero(free)


def _overlap(n: int, onset_s: float, offset_s: float, spec: FeatureSpec) -> np.ndarray:
    # Seconds of a stretch in each window of a recording [shape=(n,)].
    starts = np.arange(n) * spec.window_hop / spec.sample_rate
    ends = starts + spec.window_length / spec.sample_rate
    return np.minimum(ends, offset_s) - np.maximum(starts, onset_s)


def _unlabelled(index: ColumnIndex, labelled: set[int], rng: np.random.Generator) -> np.ndarray:
    free = np.ones(len(index.n_rows), bool)
    free[list(labelled)] = False
    rows = np.flatnonzero(index.rows_of(free))
    if len(rows) > _BACKGROUND_ROWS:
        rows = np.sort(rng.choice(rows, _BACKGROUND_ROWS, replace=False))
    return rows


def _groups(table: pa.Table, recordings: np.ndarray) -> np.ndarray:
    # Takes of one sound tend to lie in one folder: held back one by one, they flatter.
    uris = table["uri"].take(pa.array(recordings)).to_pylist()
    folders = [str(PurePosixPath(uri).parent) for uri in uris]
    if len(set(folders)) < _ENOUGH_FOLDERS:
        return recordings
    return np.unique(folders, return_inverse=True)[1]
