"""Every sound as a query over the sounds of all other sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from index.metrics_retrieval import bootstrap_interval, mean_by_label, retrieve
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.sounds import BASELINE, Sounds


def evaluate_retrieval(context: Context) -> Part:
    """Mean average precision and precision at 5 of every kind of vector."""
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    for title, sounds, queries in _galleries(context):
        found = {
            system: retrieve(vectors, sounds.labels, sounds.sources, queries)
            for system, vectors in sounds.vectors.items()
        }
        rows = []
        mine: dict[str, dict[str, Any]] = {}
        by_label: dict[str, dict[str, float]] = {}
        for system, result in found.items():
            labels, sources = sounds.labels[result.queries], sounds.sources[result.queries]
            by_label[system] = mean_by_label(result.average_precision, labels)
            low, high = bootstrap_interval(result.average_precision, sources)
            mine[system] = {
                "map": float(result.average_precision.mean()),
                "map_interval": [low, high],
                "map_over_labels": float(np.mean(list(by_label[system].values()))),
                "precision_at_5": float(result.precision_at_5.mean()),
                "n_queries": len(result.queries),
                "n_labels": len(by_label[system]),
                "map_by_label": by_label[system],
            }
        baseline = mine[BASELINE]["map"]
        for system, f in mine.items():
            low, high = f["map_interval"]
            rows.append([
                system, f"{f['map']:.3f} [{low:.3f}, {high:.3f}]", f"{f['map'] / baseline:.2f}",
                f"{f['map_over_labels']:.3f}", f"{f['precision_at_5']:.3f}",
            ])  # fmt: skip
        n_queries, n_labels = (mine[BASELINE][name] for name in ("n_queries", "n_labels"))
        tables.append(
            Table(
                f"Retrieval {title}: {n_queries:,} queries of {n_labels} labels",
                ["vectors", "mAP", "× baseline", "mAP over labels", "precision at 5"],
                rows,
            )
        )
        tables.append(_label_table(title, sounds, by_label))
        figures[title] = mine
    return Part(tables, figures)


def _galleries(context: Context) -> list[tuple[str, Sounds, np.ndarray]]:
    sounds = context.sounds(context.options.split)
    found = [(f"in {context.options.split}", sounds, np.ones(len(sounds), bool))]
    if context.options.gallery is not None:
        more = context.sounds(context.options.gallery)
        both = Sounds(
            np.concatenate([sounds.uris, more.uris]),
            np.concatenate([sounds.labels, more.labels]),
            np.concatenate([sounds.sources, more.sources]),
            {s: np.concatenate([v, more.vectors[s]]) for s, v in sounds.vectors.items()},
        )
        queries = np.arange(len(both)) < len(sounds)
        title = f"in {context.options.split} and {context.options.gallery}"
        found.append((title, both, queries))
    return found


def _label_table(title: str, sounds: Sounds, by_label: dict[str, dict[str, float]]) -> Table:
    rows = []
    for label in by_label[BASELINE]:
        of = sounds.labels == label
        n_sources = len(np.unique(sounds.sources[of]))
        scores = [f"{scores[label]:.3f}" for scores in by_label.values()]
        rows.append([label, f"{of.sum():,}", f"{n_sources}", *scores])
    columns = ["label", "recordings", "sources", *by_label]
    return Table(f"mAP by label {title}", columns, rows)
