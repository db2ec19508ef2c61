"""``earmark demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.identify import clock
from pipelines.commands.output import print_table

if TYPE_CHECKING:
    from pipelines.demo import Outcome

EXIT_NOT_FOUND = 1


@click.command("demo")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("earmark-demo"),
    show_default=True, metavar="DIR", help="Gets the catalog, the clips and the picture.",
)  # fmt: skip
def command(out: Path) -> None:
    """See it work on the tracks that come with earmark.

    Ingests them with Beam, builds the index, plays the part of the world on a few clips (a noisy
    restaurant, a room, a phone call), identifies them, and draws one match.

    \b
    Example:
      earmark demo --out /tmp/demo

    Exit codes: 0 every clip was told rightly, 1 not every one.
    """
    from encoders.features import FeatureSpec
    from pipelines.demo import ABSENT, draw, run_demo

    summary, outcomes = run_demo(out)
    if summary.n_todo:
        click.echo(
            f"Ingested {summary.n_todo} tracks, {summary.seconds / 60:.1f} min of audio, in "
            f"{summary.elapsed_s:.1f} s: {summary.windows:,} fingerprints."
        )
    else:
        click.echo(f"The catalog {out / 'catalog'} was there already; nothing to ingest.")
    columns = ["Clip", "What happened to it", "Truth", "Found", "Score", "Time", ""]
    print_table(columns, [_row(outcome, ABSENT) for outcome in outcomes])
    drawn = max(
        (o for o in outcomes if o.match and o.right), key=lambda o: o.clip.seconds, default=None
    )
    if drawn is not None:
        picture = out / "match.png"
        draw(drawn, FeatureSpec(), picture)
        click.echo(f"Picture of a match: {picture}")
    click.echo(f"Clips to listen to: {out}/clip-*.wav")
    click.echo(f"Next: earmark identify {out / 'catalog'} YOUR-CLIP, or earmark ingest --help")
    sys.exit(0 if all(outcome.right for outcome in outcomes) else EXIT_NOT_FOUND)


def _row(outcome: Outcome, absent: str) -> list[str]:
    clip, match = outcome.clip, outcome.match
    truth = "not there" if clip.track == absent else f"{clip.track} at {clock(clip.start_s)}"
    found, score = "no match", ""
    if match is not None and match.reference is not None:
        at = clip.start_s + outcome.error_s
        found, score = f"{Path(match.reference).name} at {clock(at)}", f"{match.score:.2f}"
    verdict = "✓" if outcome.right else "✗"
    time = f"{outcome.milliseconds:.0f} ms"
    return [outcome.path.name, clip.story, truth, found, score, time, verdict]
