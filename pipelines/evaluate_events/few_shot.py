"""Labels from a handful of examples: the nearest prototype, over many random choices of them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from index.metrics_retrieval import f1_by_label, nearest_prototype
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.sounds import Sounds

SHOTS = (1, 5, 20)
"""Examples of each label."""

N_DRAWS = 100
"""Random choices of the examples."""

MIN_ASKED = 5
"""Recordings of a label that have to be left to ask about."""


def evaluate_few_shot(context: Context) -> Part:
    """Macro F1 of the nearest prototype with 1, 5 and 20 examples of each label."""
    sounds = context.sounds(context.options.split)
    counts = Counter(sounds.labels.tolist())
    figures: dict[str, dict[str, object]] = {}
    rows = [[system] for system in sounds.vectors]
    columns = ["vectors"]
    for shots in SHOTS:
        labels = sorted(label for label, n in counts.items() if n >= shots + MIN_ASKED)
        if len(labels) < 2:
            continue
        columns.append(f"{shots} of {len(labels)} labels")
        figures[f"{shots}"] = {}
        for row, system in zip(rows, sounds.vectors, strict=True):
            scores = draw_scores(sounds, system, labels, shots, context.options.seed)
            means = np.array([np.mean(list(f1.values())) for f1 in scores])
            low, high = np.percentile(means, [2.5, 97.5])
            row.append(f"{means.mean():.3f} [{low:.3f}, {high:.3f}]")
            figures[f"{shots}"][system] = {
                "macro_f1": float(means.mean()),
                "interval": [float(low), float(high)],
                "f1_by_label": {
                    label: float(np.mean([f1[label] for f1 in scores])) for label in labels
                },
            }
    title = f"Few-shot: macro F1 over {N_DRAWS} draws of examples"
    return Part([Table(title, columns, rows)], figures)


def draw_scores(
    sounds: Sounds, system: str, labels: list[str], shots: int, seed: int
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
        predicted = nearest_prototype(unit[examples], sounds.labels[examples], unit[asked])
        scores.append(f1_by_label(sounds.labels[asked], predicted))
    return scores
