"""``earmark monitor``."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from encoders.errors import EarmarkError
from index.schema import Match
from pipelines.cli import EXIT_INTERRUPTED
from pipelines.commands.identify import COLUMNS, EXIT_SOME_FAILED, clock, table_row
from pipelines.commands.output import print_table, printable

if TYPE_CHECKING:
    import numpy as np

    from encoders.audio import AudioStream
    from encoders.audio.live import LiveStream

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


@click.command("monitor")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("recordings", metavar="RECORDING...", nargs=-1, required=True)
@click.option(
    "--format", "output_format", type=click.Choice(["table", "jsonl", "csv", "audacity"]),
    default="jsonl", show_default=True,
    help="JSON lines or CSV, a line for every segment as soon as it ends; a label file for "
    "Audacity; or a table at the end.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write there. [default: standard output]",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
    help="Draw a timeline at the end.",
)  # fmt: skip
@click.option(
    "--follow", is_flag=True,
    help="The RECORDING is still being written: wait for more at its end, until Ctrl-C.",
)  # fmt: skip
@click.option(
    "--idle", type=click.FloatRange(min=0), metavar="SECONDS",
    help="With --follow: stop when the file has not grown for so long.",
)  # fmt: skip
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="T",
    help="Score from which a recording is taken to be there. [default: the encoder's own]",
)  # fmt: skip
@click.option(
    "--merge", "merge_s", type=click.FloatRange(min=8), default=10.0, show_default=True,
    metavar="SECONDS", help="A recording that goes on after so long is one segment.",
)  # fmt: skip
@click.option(
    "--least", "least_s", type=click.FloatRange(min=0), default=1.5, show_default=True,
    metavar="SECONDS", help="Leave out segments and gaps shorter than that.",
)  # fmt: skip
@click.option(
    "--gaps/--no-gaps", default=True, show_default=True, help="Tell where nothing was found."
)
@click.option(
    "--encoder", metavar="BUNDLE",
    help="Folder of the fingerprint encoder, if it is not one that comes with earmark.",
)  # fmt: skip
def command(
    catalog_dir: Path,
    recordings: tuple[str, ...],
    output_format: str,
    out: Path | None,
    plot: Path | None,
    follow: bool,
    idle: float | None,
    threshold: float | None,
    merge_s: float,
    least_s: float,
    gaps: bool,
    encoder: str | None,
) -> None:
    """Tell which recordings of the catalog DIR are played when in each RECORDING.

    A RECORDING is a file of any length, - for standard input, or the URL of a stream. Memory does
    not grow with its length. Segments overlap where one recording fades into the next; a stretch
    where nothing is found has rank 0 and no reference.

    \b
    Examples:
      earmark monitor my-catalog broadcast.mp3 --plot timeline.png
      earmark monitor my-catalog http://radio.example/stream.mp3
      earmark monitor my-catalog recording.wav --follow --format csv --out played.csv
      ffmpeg -i rtsp://camera -f wav - | earmark monitor my-catalog -

    Exit codes: 0 everything was heard to its end; 1 some recordings could not be read; 2 wrong use
    or an error; 130 interrupted, after everything heard so far was told.
    """
    from encoders.errors import AudioError
    from index.identify import Identifier
    from index.monitor import Monitor

    monitor = Monitor(Identifier(catalog_dir, encoder), threshold, merge_s, least_s)
    told: list[Match] = []
    failed, interrupted = 0, _Interrupted()
    with _destination(out) as stream:
        tell = _teller(output_format, stream)
        for name in recordings:
            try:
                with _open(name, monitor.sample_rate, follow, idle) as audio:
                    blocks = interrupted.unless(audio.blocks())
                    for segment in monitor.segments(name, blocks):
                        if gaps or segment.reference is not None:
                            tell(segment)
                            if plot is not None or output_format == "table":
                                told.append(segment)
                    if audio.problem is not None:
                        click.echo(f"{printable(name)}: {audio.problem}", err=True)
            except AudioError as error:
                failed += 1
                click.echo(f"{printable(name)}: {error.reason}", err=True)
            if interrupted:
                break
    if output_format == "table":
        print_table(COLUMNS, [table_row(segment) for segment in told])
    if plot is not None and told:
        from pipelines.plots import plot_timeline

        plot_timeline(told, plot)
    if interrupted:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_SOME_FAILED if failed else 0)


class _Interrupted:
    """Ends a signal where Ctrl-C comes, so that what was heard until then is told."""

    def __init__(self) -> None:
        self._happened = False

    def __bool__(self) -> bool:
        return self._happened

    def unless(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            yield from blocks
        except KeyboardInterrupt:
            self._happened = True


def _open(
    name: str, sample_rate: int, follow: bool, idle: float | None
) -> AudioStream | LiveStream:
    from encoders.audio import open_audio
    from encoders.audio.live import follow_file, open_live

    if name == "-":
        return open_live(sys.stdin.buffer, sample_rate)
    if _URL.match(name):
        return open_live(name, sample_rate)
    if follow:
        return follow_file(name, sample_rate, idle)
    return open_audio(name, sample_rate)


@contextlib.contextmanager
def _destination(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as stream:
            yield stream
    except OSError as error:
        raise EarmarkError(f"cannot write to {out}: {error.strerror or error}") from None


def _teller(output_format: str, stream: TextIO) -> Callable[[Match], None]:
    # Every line is out at once: somebody may be waiting for it.
    if output_format == "table":
        return lambda segment: None
    if output_format == "jsonl":
        return lambda segment: print(json.dumps(segment.to_dict()), file=stream, flush=True)
    if output_format == "audacity":
        return lambda segment: print(_label(segment), file=stream, flush=True)
    names = [field.name for field in dataclasses.fields(Match)]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()

    def tell(segment: Match) -> None:
        places = " ".join(map(str, segment.alternatives))
        writer.writerow(segment.to_dict() | {"alternatives": places})
        stream.flush()

    return tell


def _label(segment: Match) -> str:
    what = printable(segment.reference) if segment.reference is not None else "–"
    if segment.reference is not None:
        what += f" @ {clock(segment.reference_start_s)} ({segment.score:.2f})"
    return f"{segment.query_start_s:.6f}\t{segment.query_end_s:.6f}\t{what}"
