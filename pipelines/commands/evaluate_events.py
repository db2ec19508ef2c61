"""``earmark evaluate events``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from pipelines.commands.output import print_table


@click.command("events")
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV", help="With the columns path, role (event), split and label, and perhaps source "
    "[default: the first folder of the path].",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets report.md and results.json.",
)  # fmt: skip
@click.option(
    "--encoder", "event", default="event", show_default=True, metavar="BUNDLE",
    help="Event encoder to measure: the name of a shipped bundle, or a folder.",
)  # fmt: skip
@click.option(
    "--detector", default="detector", show_default=True, metavar="BUNDLE",
    help="Detector to measure: the name of a shipped bundle, or a folder.",
)  # fmt: skip
@click.option("--fingerprint", default="fingerprint", show_default=True, metavar="BUNDLE")
@click.option("--vae", default="vae", show_default=True, metavar="BUNDLE")
@click.option(
    "--precision", type=click.Choice(["int8", "float32"]), default="int8", show_default=True,
    help="Arithmetic of the encoders.",
)  # fmt: skip
@click.option(
    "--parts",
    metavar="NAME,…",
    help="What to evaluate: retrieval, few-shot, detection. [default: all that is installed]",
)
@click.option("--split", default="dev", show_default=True, help="Sounds that are asked about.")
@click.option(
    "--gallery", metavar="SPLIT",
    help="A second split whose sounds may be found too, such as train. [default: none]",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Where catalogs are kept for the next run. [default: OUT/cache]",
)  # fmt: skip
def events(
    corpus: Path,
    out: Path,
    event: str,
    detector: str,
    fingerprint: str,
    vae: str,
    precision: str,
    parts: str | None,
    split: str,
    gallery: str | None,
    seed: int,
    cache: Path | None,
) -> None:
    """Measure how well kinds of sounds are found, beside a baseline of mean MFCCs.

    Ingests the labelled events of the corpus, and works on the stored columns. Retrieval: every
    event as a query over the events of all other sources. Few-shot: labels from 1, 5 and 20
    examples of each. Detection: onsets and offsets in made soundscapes, beside template matching.

    \b
    Examples:
      earmark evaluate events --corpus corpus.csv --out evaluation-events
      earmark evaluate events --corpus corpus.csv --out mine --encoder runs/event/bundle \\
          --parts retrieval --gallery train
    """
    # Each shard has its thread. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from pipelines.evaluate_events.parts import Options
    from pipelines.evaluate_events.run import PARTS, evaluate, parts_at_hand, write_report
    from pipelines.evaluate_events.sounds import Bundles

    chosen = tuple(part for part in parts.split(",") if part) if parts else tuple(parts_at_hand())
    if left_out := [part for part in PARTS if not parts and part not in chosen]:
        click.echo(
            f"Left out: {left_out[0]}, which needs pip install 'earmark[evaluate]' and SoX",
            err=True,
        )
    if unknown := [part for part in chosen if part not in PARTS]:
        raise click.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(PARTS)}", param_hint="--parts"
        )
    bundles = Bundles(event, fingerprint, vae, precision, detector)
    options = Options(
        corpus, out, (cache or out / "cache").absolute(), bundles, chosen, split, gallery, seed
    )
    found = evaluate(options)
    paths = write_report(found, options, shlex.join(["earmark", *sys.argv[1:]]))
    for part in found.values():
        for table in part.tables:
            print_table(table.columns, table.rows, table.title)
    for path in paths:
        click.echo(path)
