"""Labels from a handful of examples, over many random choices of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from index.catalog import Catalog
from index.column_index import ColumnIndex
from index.event_examples import training_set
from index.event_training import fit_events
from index.label_files import Labelled
from index.metrics_retrieval import f1_by_label, nearest_discriminant, nearest_prototype
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.sounds import Sounds, near_loudest

SHOTS = (1, 5, 20)
"""Examples of each label."""

N_DRAWS = 50
"""Random choices of the examples."""

MIN_ASKED = 5
"""Recordings of a label that have to be left to ask about."""

LEARNED = "earmark events learn"
"""The command itself."""

# What is this far below the loudest window of a recording is not what it is called after.
_QUIET_DB = 10.0

Classify = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers of the examples and of the recordings that are asked about, to the labels of these."""


def evaluate_few_shot(context: Context) -> Part:
    """Macro F1 with 1, 5 and 20 examples of each label.

    By the command, by prototypes, and by discriminants, which need two examples.
    """
    split = context.options.split
    sounds = context.sounds(split)
    counts = Counter(sounds.labels.tolist())
    systems: dict[str, dict[str, Classify]] = {
        LEARNED: {"": Learned(context.catalog(split), sounds)},
        **{name: _methods(vectors, sounds.labels) for name, vectors in sounds.vectors.items()},
    }
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    rows = {
        f"{system}, {method}" if method else system: list[str]()
        for system, methods in systems.items()
        for method in methods
    }
    columns = ["vectors"]
    for shots in SHOTS:
        labels = sorted(label for label, n in counts.items() if n >= shots + MIN_ASKED)
        if len(labels) < 2:
            continue
        columns.append(f"{shots} of {len(labels)} labels")
        figures[f"{shots}"] = mine = {}
        for name, row in rows.items():
            system, _, method = name.partition(", ")
            if method == "discriminant" and shots == 1:
                row.append("")
                continue
            classify = systems[system][method]
            found = _measure(draw_scores(sounds, labels, shots, context.options.seed, classify))
            mine[name] = found
            low, high = found["interval"]
            row.append(f"{found['macro_f1']:.3f} [{low:.3f}, {high:.3f}]")
    title = f"Few-shot: macro F1 over {N_DRAWS} draws of examples"
    return Part([Table(title, columns, [[name, *row] for name, row in rows.items()])], figures)


class Learned:
    """What ``earmark events learn`` makes of examples, and the likest label of recordings.

    All other recordings of the catalog stand for everything else, those that are asked about too.

    Parameters
    ----------
    catalog : Catalog
    sounds : Sounds
        Of its recordings, in their order.
    """

    def __init__(self, catalog: Catalog, sounds: Sounds) -> None:
        self._index = ColumnIndex.open(catalog, "event")
        self._spec = catalog.config.spec
        self._labels = sounds.labels
        self._vectors = self._index.vectors.astype(np.float32)
        peaks = self._index.peaks_db.astype(np.float32)
        self._loud = near_loudest(peaks, self._index.n_rows, _QUIET_DB)

    def __call__(self, examples: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Learn, and label."""
        index = self._index
        seconds = index.recordings["seconds"].to_numpy()
        labels = [
            Labelled(number, 0.0, float(seconds[number]), str(self._labels[number]), True)
            for number in examples.tolist()
        ]
        data = training_set(index, labels, self._spec)
        info = index.info
        model = fit_events(data, self._spec, info.column, info.encoder, info.scaling)
        scores = np.where(self._loud[:, None], model.scores(self._vectors), 0.0)
        best = np.maximum.reduceat(scores, index.first_rows, axis=0)
        labelled: np.ndarray = np.array(model.names)[np.argmax(best[asked], axis=1)]
        return labelled


def _methods(vectors: np.ndarray, labels: np.ndarray) -> dict[str, Classify]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return {
        "prototype": lambda shown, asked: nearest_prototype(
            unit[shown], labels[shown], unit[asked]
        ),
        "discriminant": lambda shown, asked: nearest_discriminant(
            unit[shown], labels[shown], unit[asked]
        ),
    }


def _measure(scores: list[dict[str, float]]) -> dict[str, Any]:
    means = np.array([np.mean(list(f1.values())) for f1 in scores])
    return {
        "macro_f1": float(means.mean()),
        "interval": [float(v) for v in np.percentile(means, [2.5, 97.5])],
        "f1_by_label": {label: float(np.mean([f1[label] for f1 in scores])) for label in scores[0]},
    }


def draw_scores(
    sounds: Sounds, labels: list[str], shots: int, seed: int, classify: Classify
) -> list[dict[str, float]]:
    """F1 of every label, for each draw of the examples; all other recordings are asked about."""
    members = [np.flatnonzero(sounds.labels == label) for label in labels]
    everything = np.concatenate(members)
    scores = []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng([seed, shots, draw])
        examples = np.concatenate([rng.choice(m, shots, replace=False) for m in members])
        asked = np.setdiff1d(everything, examples)
        scores.append(f1_by_label(sounds.labels[asked], classify(examples, asked)))
    return scores
