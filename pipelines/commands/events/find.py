"""``earmark events find``."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.commands.events.common import model_option, model_path, one_thread, open_column
from pipelines.commands.output import format_option
from pipelines.commands.similar import print_events, where_option


@click.command("find")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--label", "labels", multiple=True, required=True, metavar="NAME",
              help="The kind of sound. Can be repeated.")  # fmt: skip
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S",
    help="Only events from this score on. [default: the threshold of the class]",
)  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), metavar="K",
              help="At most this many of each kind. [default: all]")  # fmt: skip
@where_option
@model_option
@format_option
def command(
    catalog_dir: Path,
    labels: tuple[str, ...],
    min_score: float | None,
    top: int | None,
    where: tuple[tuple[str, str], ...],
    model: str,
    output_format: str,
) -> None:
    """List all events of one kind in the catalog DIR, the surest first.

    \b
    Examples:
      earmark events find my-catalog --label dog_bark
      earmark events find my-catalog --label dog_bark --min-score 0.9 --format jsonl
      earmark events find my-catalog --label dog_bark --where site=north --top 20
    """
    one_thread()
    from index.catalog import Catalog
    from index.event_model import EventModel
    from index.event_search import find_events
    from index.filters import chosen_rows

    catalog = Catalog.open(catalog_dir)
    learned = EventModel.load(model_path(catalog_dir, model))
    learned.select(list(labels))
    index = open_column(catalog, learned.column)
    rows = chosen_rows(index, dict(where))
    for label in dict.fromkeys(labels):
        events = find_events(
            index, learned, label, catalog.config.spec, top=top, min_score=min_score, rows=rows
        )
        print_events(events, output_format, label)
