"""``earmark similar``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.identify import clock
from pipelines.commands.output import format_option, print_jsonl, print_table, printable

if TYPE_CHECKING:
    from index.schema import Event

EXIT_SOME_FAILED = 1
COLUMNS = ["Rank", "Recording", "From", "To", "Label", "Score"]


class KeyValue(click.ParamType):
    """``key=value``."""

    name = "key=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, found, wanted = str(value).partition("=")
        if not (key and found):
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, wanted


encoder_option = click.option(
    "--encoder", metavar="NAME",
    help="Column to search: event, vae, fingerprint or one of your own. [default: event where the "
    "catalog has it, else vae, else fingerprint]",
)  # fmt: skip
bundle_option = click.option(
    "--bundle", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
    help="Folder of that column's encoder, if it is not one that comes with earmark.",
)  # fmt: skip
where_option = click.option(
    "--where", multiple=True, type=KeyValue(), metavar="KEY=VALUE",
    help="Only recordings with this label; uri=TEXT for TEXT in the name. Can be repeated.",
)  # fmt: skip


@click.command("similar")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("clips", metavar="CLIP...", nargs=-1, required=True)
@click.option("--start", "start_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Where in the clip the sound begins. [default: at its start]")  # fmt: skip
@click.option("--end", "end_s", type=click.FloatRange(min=0), metavar="SECONDS",
              help="Where it ends. [default: at its end]")  # fmt: skip
@encoder_option
@bundle_option
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, metavar="K",
              help="At most this many regions for each clip.")  # fmt: skip
@click.option("--per-recording", type=click.IntRange(min=1), default=1, show_default=True,
              metavar="N", help="At most this many regions of one recording.")  # fmt: skip
@where_option
@click.option("--exclude-self", is_flag=True,
              help="Leave out the clip itself, if its recording is in the catalog.")  # fmt: skip
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              metavar="S", help="Only regions from this score on.")  # fmt: skip
@format_option
def command(
    catalog_dir: Path,
    clips: tuple[str, ...],
    start_s: float,
    end_s: float | None,
    encoder: str | None,
    bundle: Path | None,
    top: int,
    per_recording: int,
    where: tuple[tuple[str, str], ...],
    exclude_self: bool,
    min_score: float,
    output_format: str,
) -> None:
    """Find sounds of the same kind as CLIP in the catalog DIR.

    Not the same recording, which is what identify finds, but another dog that barks. A CLIP of
    0.2 s is enough; a long one is best cut to the sound that is meant, with --start and --end.
    The first search builds an index, which stays.

    \b
    Examples:
      earmark similar my-catalog bark.wav
      earmark similar my-catalog walk.flac --start 12.5 --end 13.1 --exclude-self
      earmark similar my-catalog bark.wav --where split=dev --per-recording 5 --format jsonl

    Exit codes: 0 every clip was looked up; 1 some clips could not be read; 2 wrong use or an error.
    """
    from encoders.errors import AudioError
    from index.similar import SimilarSounds
    from pipelines.progress import task_display

    with task_display("Indexing windows") as show:
        sounds = SimilarSounds(catalog_dir, encoder, bundle, lambda done, n: show(done, n, {}))
    failed = 0
    for clip in clips:
        source = sys.stdin.buffer.read() if clip == "-" else clip
        try:
            events = sounds.find(
                source, start_s, end_s, top=top, per_recording=per_recording, where=dict(where),
                exclude_self=exclude_self, min_score=min_score, name=clip,
            )  # fmt: skip
        except AudioError as error:
            failed += 1
            click.echo(f"{printable(clip)}: {error.reason}", err=True)
            continue
        print_events(events, output_format, clip)
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def print_events(events: list[Event], output_format: str, title: str = "") -> None:
    """Events as JSON lines, or as a table."""
    if output_format == "jsonl":
        print_jsonl([event.to_dict() for event in events])
    elif not events:
        click.echo(f"{printable(title)}: nothing found")
    else:
        rows = [
            [
                str(event.rank), event.reference, clock(event.onset_s), clock(event.offset_s),
                event.label or "", f"{event.score:.2f}",
            ]
            for event in events
        ]  # fmt: skip
        print_table(COLUMNS, rows, printable(title))
