"""``earmark events learn``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.events.common import model_option, one_thread, open_column, own_model
from pipelines.commands.output import format_option, print_jsonl, print_table
from pipelines.commands.similar import encoder_option

if TYPE_CHECKING:
    from index.event_model import EventModel

COLUMNS = ["Class", "Examples", "Recordings", "Method", "Threshold", "Precision", "Recall", "F1"]


@click.command("learn")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--labels", "sources", multiple=True, required=True, metavar="SOURCE",
    help="A CSV (uri, onset, offset, label), an Audacity label track, a folder of such tracks, "
    "'folders' (a recording's folder is its label), or 'manifest', perhaps 'manifest:COLUMN'. Can "
    "be repeated.",
)  # fmt: skip
@click.option("--classes", metavar="NAME,NAME…",
              help="The labels that may occur; others are an error. [default: any]")  # fmt: skip
@click.option("--exclusive", is_flag=True,
              help="Different sounds must not overlap: if they do, it is an error.")  # fmt: skip
@encoder_option
@model_option
@click.option("--seed", default=0, show_default=True, help="Of the choice of background.")
@format_option
def command(
    catalog_dir: Path,
    sources: tuple[str, ...],
    classes: str | None,
    exclusive: bool,
    encoder: str | None,
    model: str,
    seed: int,
    output_format: str,
) -> None:
    """Teach the catalog DIR kinds of sound, from labels of some of its recordings.

    Takes seconds, as nothing is decoded: the classifier works on the embeddings that ingest
    stored. A class with few examples is what is near to them; from 5 on it gets a linear head.
    What lies between labelled stretches, what is labelled 'background', and recordings without
    labels stand for everything else. The figures are of recordings that were held back.

    \b
    Examples:
      earmark events learn my-catalog --labels barks.csv
      earmark events learn my-catalog --labels tracks/ --classes dog_bark,door
      earmark events learn my-catalog --labels manifest:species --model birds
    """
    one_thread()
    from index.catalog import Catalog
    from index.event_learning import learn
    from index.label_files import read_labels, resolve_labels

    catalog = Catalog.open(catalog_dir)
    index = open_column(catalog, encoder)
    labels = [label for source in sources for label in read_labels(source, index.recordings)]
    known = [name for name in (classes or "").split(",") if name] or None
    begin = time.monotonic()
    resolved = resolve_labels(labels, index.recordings, known, exclusive)
    fitted = learn(index, catalog.config.spec, resolved, own_model(catalog_dir, model), seed=seed)
    if output_format == "jsonl":
        print_jsonl(class_facts(fitted))
    else:
        print_table(COLUMNS, class_rows(fitted))
        click.echo(
            f"Learned {len(fitted.classes)} classes from {len(resolved):,} labels in "
            f"{time.monotonic() - begin:.1f} s: {own_model(catalog_dir, model)}"
        )
        click.echo(
            f"Next: earmark events find {catalog_dir} --label {fitted.names[0]}"
            + ("" if model == "default" else f" --model {model}")
        )


def class_facts(model: EventModel) -> list[dict[str, object]]:
    """What there is to say of each class, ready for JSON."""
    keys = ("name", "n_examples", "n_recordings", "method", "threshold", "precision", "recall")
    return [{**{key: getattr(c, key) for key in keys}, "f1": c.f1} for c in model.classes]


def class_rows(model: EventModel) -> list[list[str]]:
    """The same as cells of :data:`COLUMNS`."""
    return [
        [
            c.name, str(c.n_examples), str(c.n_recordings), c.method, f"{c.threshold:.2f}",
            *("–" if value is None else f"{value:.2f}" for value in (c.precision, c.recall, c.f1)),
        ]
        for c in model.classes
    ]  # fmt: skip
