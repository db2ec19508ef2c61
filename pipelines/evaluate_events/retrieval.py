"""Every sound as a query over the sounds of all other sources."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import AudioError
from index.catalog import Catalog
from index.metrics_retrieval import bootstrap_interval, mean_by_label, rank_all, retrieve
from index.similar import SimilarSounds
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.sounds import BASELINE, Sounds

SIMILAR = "earmark similar"
"""The command itself: recordings ranked by the best window of each."""

_QUERIES_AT_ONCE = 256


def evaluate_retrieval(context: Context) -> Part:
    """Mean average precision and precision at 5, of the command and of every kind of vector."""
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    split, gallery = context.options.split, context.options.gallery
    for title, sounds, queries in _galleries(context):
        catalogs = [context.catalog(s) for s in (split, gallery) if s and s in title.split()]
        alike = np.concatenate(
            [similarities(catalogs[0], c, context.options.bundles.event) for c in catalogs], axis=1
        )
        rows_asked = np.flatnonzero(queries)
        found = {
            SIMILAR: rank_all(alike, sounds.labels, sounds.sources, rows_asked),
            **{
                system: retrieve(vectors, sounds.labels, sounds.sources, queries)
                for system, vectors in sounds.vectors.items()
            },
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


def similarities(
    asked: Catalog, catalog: Catalog, bundle: str | Path | None = None, column: str = "event"
) -> np.ndarray:
    """How near the recordings of one catalog are to those of another, as ``similar`` sees them.

    Parameters
    ----------
    asked : Catalog
        Its files are the clips.
    catalog : Catalog
        It is searched.
    bundle : str or Path, optional
        Of the column.
    column : str

    Returns
    -------
    cosines : np.ndarray [shape=(n_asked, n_recordings), dtype=float32]
        That of the best window of each recording; -1 for a clip that cannot be asked with.
    """
    sounds = SimilarSounds(catalog, column, bundle)
    clips = asked.indexed_recordings()["uri"].to_pylist()
    cosines = np.full((len(clips), len(sounds.index.n_rows)), -1.0, np.float32)
    stored = sounds.index.vectors.astype(np.float32)
    for first in range(0, len(clips), _QUERIES_AT_ONCE):
        vectors, owners = [], []
        for number, clip in enumerate(clips[first : first + _QUERIES_AT_ONCE], first):
            with contextlib.suppress(AudioError):
                vectors.append(sounds.query_vectors(sounds.encoder.load(clip)))
                owners.append(number)
        if not vectors:
            continue
        starts = np.cumsum([0, *map(len, vectors[:-1])])
        best = np.maximum.reduceat(np.concatenate(vectors) @ stored.T, starts, axis=0)
        cosines[owners] = np.maximum.reduceat(best, sounds.index.first_rows, axis=1)
    return cosines


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
