"""Labels from a handful of examples, over many random choices of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from index.metrics_retrieval import f1_by_label, nearest_discriminant, nearest_prototype
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.sounds import Sounds

SHOTS = (1, 5, 20)
"""Examples of each label."""

N_DRAWS = 100
"""Random choices of the examples."""

MIN_ASKED = 5
"""Recordings of a label that have to be left to ask about."""


Classify = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

METHODS: dict[str, Classify] = {
    "prototype": nearest_prototype,
    "discriminant": nearest_discriminant,
}
"""How examples become labels; a discriminant needs two examples."""


def evaluate_few_shot(context: Context) -> Part:
    """Macro F1 with 1, 5 and 20 examples of each label, by prototypes and by discriminants."""
    sounds = context.sounds(context.options.split)
    counts = Counter(sounds.labels.tolist())
    figures: dict[str, dict[str, dict[str, object]]] = {}
    rows = [[system] for system in sounds.vectors]
    columns = ["vectors"]
    for shots in SHOTS:
        labels = sorted(label for label, n in counts.items() if n >= shots + MIN_ASKED)
        if len(labels) < 2:
            continue
        figures[f"{shots}"] = {system: {} for system in sounds.vectors}
        for method, classify in METHODS.items():
            if method == "discriminant" and shots == 1:
                continue
            columns.append(f"{shots} of {len(labels)} labels, {method}")
            for row, system in zip(rows, sounds.vectors, strict=True):
                found = _measure(
                    draw_scores(sounds, system, labels, shots, context.options.seed, classify)
                )
                low, high = found["interval"]
                row.append(f"{found['macro_f1']:.3f} [{low:.3f}, {high:.3f}]")
                mine = figures[f"{shots}"][system]
                mine.update(found if method == "prototype" else {method: found})
    title = f"Few-shot: macro F1 over {N_DRAWS} draws of examples"
    return Part([Table(title, columns, rows)], figures)


def _measure(scores: list[dict[str, float]]) -> dict[str, Any]:
    means = np.array([np.mean(list(f1.values())) for f1 in scores])
    return {
        "macro_f1": float(means.mean()),
        "interval": [float(v) for v in np.percentile(means, [2.5, 97.5])],
        "f1_by_label": {label: float(np.mean([f1[label] for f1 in scores])) for label in scores[0]},
    }


def draw_scores(
    sounds: Sounds,
    system: str,
    labels: list[str],
    shots: int,
    seed: int,
    classify: Classify = nearest_prototype,
) -> list[dict[str, float]]:
    """F1 of every label, for each draw of the examples; all other recordings are asked about."""
    vectors = sounds.vectors[system]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    members = [np.flatnonzero(sounds.labels == label) for label in labels]
    everything = np.concatenate(members)
    scores = []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng([seed, shots, draw])
        examples = np.concatenate([rng.choice(m, shots, replace=False) for m in members])
        asked = np.setdiff1d(everything, examples)
        predicted = classify(unit[examples], sounds.labels[examples], unit[asked])
        scores.append(f1_by_label(sounds.labels[asked], predicted))
    return scores
