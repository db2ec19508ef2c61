"""``earmark identify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.output import format_option, print_jsonl, print_table, printable

if TYPE_CHECKING:
    from index.schema import Match

EXIT_SOME_FAILED = 1

COLUMNS = ["Query", "Rank", "Reference", "Query from–to", "Reference from–to", "Speed", "Score"]


@click.command("identify")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("clips", metavar="CLIP...", nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="K",
    help="At most this many matches for each clip.",
)  # fmt: skip
@click.option("--all", "all_matches", is_flag=True, help="All matches of each clip.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="T",
    help="Report scores from T; 0 gives the best candidates whatever their score "
    "(silence has none). [default: the encoder's own]",
)  # fmt: skip
@click.option(
    "--encoder", metavar="BUNDLE",
    help="Folder of the fingerprint encoder, if it is not one that comes with earmark.",
)  # fmt: skip
@format_option
def command(
    catalog_dir: Path,
    clips: tuple[str, ...],
    top: int,
    all_matches: bool,
    threshold: float | None,
    encoder: str | None,
    output_format: str,
) -> None:
    """Find out which recording in the catalog DIR each CLIP is from, and where in it.

    A CLIP is an audio or video file in any format that ingest reads, or - for standard input. It
    may hold several recordings, after one another or at once, and each is a match of its own; the
    repeats of a loop are one match and its alternatives.

    \b
    Examples:
      earmark identify my-catalog clip.mp3
      earmark identify my-catalog *.wav --format jsonl | jq .reference
      ffmpeg -i clip.mkv -f wav - | earmark identify my-catalog -

    Exit codes: 0 every clip was looked up, found or not; 1 some clips could not be read; 2 wrong
    use or an error.
    """
    from encoders.errors import AudioError
    from index.identify import Identifier
    from index.schema import Match

    identifier = Identifier(catalog_dir, encoder)
    failed = 0
    shown: list[Match] = []
    for clip in clips:
        source = sys.stdin.buffer.read() if clip == "-" else clip
        try:
            matches = identifier.identify(
                source, top=None if all_matches else top, threshold=threshold, name=clip
            )
        except AudioError as error:
            failed += 1
            matches = []
            click.echo(f"{printable(clip)}: {error.reason}", err=True)
        matches = matches or [Match(query=clip, rank=0, reference=None)]
        if output_format == "jsonl":
            print_jsonl([match.to_dict() for match in matches])
        else:
            shown += matches
    if shown:
        print_table(COLUMNS, [table_row(match) for match in shown])
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def table_row(match: Match) -> Sequence[str]:
    """One match as the cells of :data:`COLUMNS`."""
    if match.reference is None:
        return [match.query, "–", "no match", "", "", "", ""]
    return [
        match.query,
        str(match.rank),
        match.reference,
        f"{clock(match.query_start_s)} – {clock(match.query_end_s)}",
        f"{clock(match.reference_start_s)} – {clock(match.reference_end_s)}"
        + (f" (+{len(match.alternatives)})" if match.alternatives else ""),
        f"{match.speed:.2f}",
        f"{match.score:.2f}",
    ]


def clock(seconds: float | None) -> str:
    """Seconds for a person: ``"1:02:03.4"``."""
    if seconds is None:
        return ""
    tenths = round(seconds * 10)
    sign, tenths = "-" if tenths < 0 else "", abs(tenths)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"
    return sign + (f"{hours}:{text}" if hours else text)
