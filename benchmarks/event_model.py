"""Choose the classes of the model of events that ships with the event encoder.

Takes a model that ``earmark events learn`` made of all labels, keeps the classes that reach a
precision on recordings that were held back, and the best of the others until there are enough.
Prints the tables of the model card.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc

from index.event_model import EventClass, EventModel, load_labels


def good_enough(classes: Sequence[EventClass], precision: float, least: int) -> list[str]:
    """Names of the classes that reach a precision, and of the next best until there are enough."""
    ranked = sorted(classes, key=lambda c: (-(c.f1 or 0.0), c.name))
    good = [c.name for c in ranked if (c.precision or 0.0) >= precision]
    rest = [c.name for c in ranked if c.name not in good]
    return sorted([*good, *rest[: max(0, least - len(good))]])


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the model with the chosen classes.")  # fmt: skip
@click.option("--precision", default=0.45, show_default=True,
              help="Classes below it are left out.")  # fmt: skip
@click.option("--least", default=30, show_default=True, help="Classes that are kept anyhow.")
def main(model: Path, out: Path, precision: float, least: int) -> None:
    """Keep the classes of the event model in the folder MODEL that are told well enough."""
    learned, labels = EventModel.load(model), load_labels(model)
    kept = good_enough(learned.classes, precision, least)
    learned.select(kept).save(out, labels.filter(pc.is_in(labels["label"], pa.array(kept))))
    for title, wanted in (("Kept", True), ("Left out", False)):
        click.echo(f"\n{title}:\n\n| class | examples | threshold | precision | recall | F1 |")
        click.echo("|---|---:|---:|---:|---:|---:|")
        for c in learned.classes:
            if (c.name in kept) == wanted:
                figures = (c.threshold, c.precision or 0.0, c.recall or 0.0, c.f1 or 0.0)
                rounded = " | ".join(f"{value:.2f}" for value in figures)
                click.echo(f"| {c.name} | {c.n_examples} | {rounded} |")


if __name__ == "__main__":
    main()
