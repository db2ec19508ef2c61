"""Make the model of events that ships with the event encoder, from the corpus.

Learns every class that the split train supports from mixtures of its sounds over its ambience, and
keeps those that are told well enough on sources that were held back. Prints the table of the
model card.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict
from pathlib import Path

import click
import pyarrow as pa

from encoders.bundle import load_bundle
from encoders.clips import Clips
from encoders.corpus import Item, PcmCache, read_corpus
from index.clips import ClipEncoder, content_id
from index.column_index import Scaling
from index.config import EncoderInfo
from index.event_mixtures import mixture_set
from index.event_model import LABELS, EventClass
from index.event_training import fit_events

_LEAST_RECORDINGS, _LEAST_SOURCES = 15, 3


def supported(items: list[Item]) -> list[str]:
    """Labels with 15 recordings or more, from three sources or more."""
    by_label: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.label:
            by_label[item.label].append(item)
    return sorted(
        label
        for label, mine in by_label.items()
        if len(mine) >= _LEAST_RECORDINGS and len({i.source for i in mine}) >= _LEAST_SOURCES
    )


def good_enough(classes: tuple[EventClass, ...], precision: float, least: int) -> list[str]:
    """Names of the classes that reach a precision, and of the next best until there are enough."""
    ranked = sorted(classes, key=lambda c: (-(c.f1 or 0.0), c.name))
    good = [c.name for c in ranked if (c.precision or 0.0) >= precision]
    rest = [c.name for c in ranked if c.name not in good]
    return sorted([*good, *rest[: max(0, least - len(good))]])


def labels_of(items: list[Item], classes: list[str], root: Path) -> pa.Table:
    """What the model was learned from."""
    mine = [item for item in items if item.label in classes]
    return pa.Table.from_pylist(
        [
            {
                "uri": str(item.path.relative_to(root)), "recording_id": content_id(item.path),
                "onset_s": 0.0, "offset_s": 0.0, "label": item.label, "whole": True,
                "positive": True,
            }
            for item in mine
        ],
        schema=LABELS,
    )  # fmt: skip


@click.command()
@click.option("--corpus", required=True, type=click.Path(path_type=Path), metavar="CSV")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the model.")  # fmt: skip
@click.option("--encoder", default="event", show_default=True, metavar="BUNDLE")
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR",
              help="Where decoded sounds are kept. [default: OUT.cache]")  # fmt: skip
@click.option("--mixtures", default=3000, show_default=True)
@click.option("--precision", "least_precision", default=0.5, show_default=True,
              help="Classes below it are left out.")  # fmt: skip
@click.option("--least", default=30, show_default=True, help="Classes that are kept anyhow.")
def main(
    corpus: Path, out: Path, encoder: str, cache: Path | None, mixtures: int,
    least_precision: float, least: int,
) -> None:  # fmt: skip
    """Make the model of events that ships with the event encoder."""
    items = [item for item in read_corpus(corpus) if item.split == "train"]
    bundle = load_bundle(encoder)
    info = EncoderInfo("event", bundle.sha256, bundle.precision, bundle.dim)
    clip_encoder, scaling = ClipEncoder(info, bundle.folder), Scaling.none(info.dim)

    def clips(role: str) -> Clips:
        mine = [item for item in items if item.role == role]
        pcm = PcmCache.build(mine, cache or out.with_suffix(".cache"), bundle.spec.sample_rate)
        return Clips.compute(pcm, mine, bundle.spec)

    sounds = clips("event")
    classes = supported(sounds.items)
    data = mixture_set(sounds, clips("noise"), classes, clip_encoder, scaling, mixtures)
    model = fit_events(data, bundle.spec, "event", info, scaling)
    kept = good_enough(model.classes, least_precision, least)
    model.select(kept).save(out, labels_of(sounds.items, kept, corpus.absolute().parent))
    for title, wanted in (("Kept", True), ("Left out", False)):
        click.echo(f"\n{title}:\n\n| class | segments | precision | recall | F1 |")
        click.echo("|---|---:|---:|---:|---:|")
        for c in model.classes:
            if (c.name in kept) == wanted:
                figures = (c.precision or 0.0, c.recall or 0.0, c.f1 or 0.0)
                click.echo(
                    f"| {c.name} | {c.n_examples} | "
                    + " | ".join(f"{value:.2f}" for value in figures)
                    + " |"
                )


if __name__ == "__main__":
    main()
