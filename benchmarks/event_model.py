"""Make the model of events that ships with the event encoder.

Learns all labels of a corpus from some recordings of each, keeps the classes that reach a precision
on recordings that were held back, and the best of the others until there are enough. Prints the
tables of the model card.
"""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from _common import cache_option
from sklearn.metrics import average_precision_score, f1_score

from encoders.corpus import read_corpus
from index.catalog import Catalog
from index.column_index import ColumnIndex
from index.event_learning import learn
from index.event_model import EventClass, EventModel, load_labels
from index.label_files import Labelled
from pipelines.evaluate_events.sounds import Bundles, prepare_catalog
from pipelines.ingest import IngestOptions, ingest

# Recordings of a label, and of it from one source, at most; how long they are, and how much
# ambience there is beside them, s.
MOST, MOST_OF_SOURCE = 40, 8
LONGEST_S, AMBIENCE_S = 8.0, 540.0
# A label with fewer recordings, or from fewer sources, is not learned.
LEAST, LEAST_SOURCES = 15, 3
_LEAST_JUDGED = 5


def choose(rows: Sequence[dict[str, str]], seed: int) -> list[tuple[str, str]]:
    """Path and label of what is learned from; ambience has none.

    Parameters
    ----------
    rows : sequence of dict
        Of the corpus.
    seed : int
    """
    train = [row for row in rows if row["split"] == "train"]
    order = np.random.default_rng(seed).permutation(len(train)).tolist()
    taken: Counter[tuple[str, str]] = Counter()
    chosen: list[tuple[str, str]] = []
    for row in (train[number] for number in order):
        label = row["label"]
        source = row.get("source") or Path(row["path"]).parts[0]
        usable = row["role"] == "event" and label and float(row["seconds"] or 0) < LONGEST_S
        if usable and taken[label, ""] < MOST and taken[label, source] < MOST_OF_SOURCE:
            taken[label, ""] += 1
            taken[label, source] += 1
            chosen.append((row["path"], label))
    n_sources = Counter(label for label, source in taken if source)
    enough = {k for k, n in n_sources.items() if n >= LEAST_SOURCES and taken[k, ""] >= LEAST}
    chosen = [(path, label) for path, label in chosen if label in enough]
    seconds = 0.0
    for row in (train[number] for number in order):
        length = float(row["seconds"] or 0)
        if row["role"] == "noise" and seconds + length <= AMBIENCE_S:
            seconds += length
            chosen.append((row["path"], ""))
    return chosen


def learn_all(corpus: Path, encoder: str, folder: Path, seed: int) -> tuple[EventModel, pa.Table]:
    """The model of all labels, in ``folder``, and what it was learned from.

    Parameters
    ----------
    corpus : Path
        A CSV as ``corpus.py`` writes it.
    encoder : str
        Bundle.
    folder : Path
    seed : int
    """
    with corpus.open(newline="", encoding="utf-8") as lines:
        chosen = choose(list(csv.DictReader(lines)), seed)
    labels = {str((corpus.parent / path).absolute()): label for path, label in chosen}
    manifest = folder / "recordings.csv"
    with manifest.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([["uri"], *([uri] for uri in labels)])
    options = IngestOptions(build_index=False, encoders=f"fingerprint,event={encoder}")
    ingest([str(manifest)], folder / "catalog", options)
    catalog = Catalog.open(folder / "catalog")
    index = ColumnIndex.open(catalog, "event")
    recordings = index.recordings.to_pylist()
    examples = [
        Labelled(number, 0.0, float(r["seconds"]), labels[r["uri"]], True)
        for number, r in enumerate(recordings)
        if labels[r["uri"]]
    ]
    model = learn(index, catalog.config.spec, examples, folder / "model", seed=seed)
    table = load_labels(folder / "model")
    short = [
        str(Path(uri).relative_to(corpus.parent.absolute())) for uri in table["uri"].to_pylist()
    ]
    return model, table.set_column(table.schema.get_field_index("uri"), "uri", pa.array(short))


def judge(model: EventModel, corpus: Path, encoder: str, cache: Path) -> dict[str, list[float]]:
    """Average precision and F1 of each class that dev has five recordings of or more.

    Every recording of dev is asked about, by its best window.
    """
    catalog = prepare_catalog(read_corpus(corpus), "dev", cache, Bundles(encoder))
    index = ColumnIndex.open(catalog, "event")
    labels = np.array(
        [dict(m)["label"] for m in catalog.indexed_recordings()["labels"].to_pylist()]
    )
    scores = np.maximum.reduceat(model.scores(index.vectors.astype(np.float32)), index.first_rows)
    figures = {}
    for number, (name, threshold) in enumerate(zip(model.names, model.thresholds, strict=True)):
        right, mine = labels == name, scores[:, number]
        if right.sum() >= _LEAST_JUDGED:
            f1 = f1_score(right, mine >= threshold)
            figures[name] = [float(average_precision_score(right, mine)), float(f1)]
    return figures


def good_enough(classes: Sequence[EventClass], precision: float, least: int) -> list[str]:
    """Names of the classes that reach a precision, and of the next best until there are enough."""
    ranked = sorted(classes, key=lambda c: (-(c.f1 or 0.0), c.name))
    good = [c.name for c in ranked if (c.precision or 0.0) >= precision]
    rest = [c.name for c in ranked if c.name not in good]
    return sorted([*good, *rest[: max(0, least - len(good))]])


@click.command(help=__doc__)
@click.option("--corpus", required=True, metavar="CSV",
              type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the model with the chosen classes.")  # fmt: skip
@click.option("--encoder", default="event", show_default=True, metavar="BUNDLE")
@click.option("--precision", default=0.45, show_default=True,
              help="Classes below it are left out.")  # fmt: skip
@click.option("--least", default=30, show_default=True, help="Classes that are kept anyhow.")
@click.option("--seed", default=0, show_default=True)
@cache_option
def main(
    corpus: Path, out: Path, encoder: str, precision: float, least: int, seed: int, cache: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        learned, labels = learn_all(corpus, encoder, Path(folder), seed)
    kept = good_enough(learned.classes, precision, least)
    chosen = learned.select(kept)
    chosen.save(out, labels.filter(pc.is_in(labels["label"], pa.array(kept))))
    click.echo(f"{labels.num_rows:,} recordings of {len(learned.classes)} labels")
    for title, wanted in (("Kept", True), ("Left out", False)):
        click.echo(f"\n{title}:\n\n| class | examples | threshold | precision | recall | F1 |")
        click.echo("|---|---:|---:|---:|---:|---:|")
        for c in learned.classes:
            if (c.name in kept) == wanted:
                figures = (c.threshold, c.precision or 0.0, c.recall or 0.0, c.f1 or 0.0)
                rounded = " | ".join(f"{value:.2f}" for value in figures)
                click.echo(f"| {c.name} | {c.n_examples} | {rounded} |")
    if judged := judge(chosen, corpus, encoder, cache):
        click.echo("\nRecordings of dev:\n\n| class | average precision | F1 |\n|---|---:|---:|")
        rows = {**judged, "mean": np.mean(list(judged.values()), axis=0).tolist()}
        for name, (average, f1) in rows.items():
            click.echo(f"| {name} | {average:.2f} | {f1:.2f} |")


if __name__ == "__main__":
    main()
