"""``earmark events detect``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.events.common import (
    is_model,
    model_option,
    model_path,
    one_thread,
    own_model,
)
from pipelines.commands.output import printable
from pipelines.commands.similar import bundle_option, print_events

if TYPE_CHECKING:
    from index.catalog import Catalog
    from index.event_detector import EventDetector
    from index.schema import Event

EXIT_SOME_FAILED = 1


@click.command(
    "detect",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [BEAM OPTIONS]",
)
@click.argument("arguments", metavar="[DIR] [CLIP...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--classes",
    metavar="NAME,NAME…",
    help="Only these kinds; a detector takes it that there are no others. [default: all]",
)
@click.option(
    "--min-score", type=click.FloatRange(0, 1), metavar="S",
    help="Only events from this score on. [default: the threshold of each class]",
)  # fmt: skip
@click.option(
    "--hop", "hop_s", type=click.FloatRange(0.03, 1.0), default=0.125, show_default=True,
    metavar="SECONDS", help="Between windows of a clip, with a model that was learned.",
)  # fmt: skip
@click.option("--median", "median_s", type=click.FloatRange(0, 10), metavar="SECONDS",
              help="Width of the median filter over scores. [default: of a detector 0.19, of a "
              "model that was learned 0]")  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=True, path_type=Path), metavar="FILE",
    help="Write the events here: .jsonl, .csv, .txt (Audacity label track; of several recordings "
    "a folder of them) or .rttm.",
)  # fmt: skip
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="PNG",
              help="Draw the events of a clip over its spectrogram.")  # fmt: skip
@model_option
@bundle_option
@click.option(
    "--format", "output_format", type=click.Choice(["table", "jsonl", "csv", "audacity", "rttm"]),
    help="What is printed, or written to a file whose suffix does not tell. [default: table]",
)  # fmt: skip
def command(
    arguments: tuple[str, ...],
    classes: str | None,
    min_score: float | None,
    hop_s: float,
    median_s: float | None,
    out: Path | None,
    plot: Path | None,
    model: str,
    bundle: Path | None,
    output_format: str | None,
) -> None:
    """Label whole recordings: which sounds they hold, and from when to when.

    With CLIPs, those are decoded, and labelled by the model of the catalog DIR; without DIR, or
    where it has learned none, by the detector that comes with earmark. --model names another: a
    model of 'earmark events learn', or the bundle of 'earmark train detector'.
    Without CLIPs, all recordings of the catalog DIR are labelled from their stored embeddings,
    without decoding; a run that is stopped goes on where it was. Different sounds may
    overlap; a sound that is of no class gets no label. Any other option goes to Beam as it is,
    such as --runner=FlinkRunner.

    \b
    Examples:
      earmark events detect my-catalog walk.flac --plot timeline.png
      earmark events detect my-catalog *.wav --format jsonl
      earmark events detect my-catalog walk.flac --out walk.txt
      earmark events detect walk.flac --model my-catalog/events/default
      earmark events detect my-catalog --out events.csv

    Exit codes: 0 all is well; 1 some clips could not be read; 2 wrong use or an error.
    """
    one_thread()
    from index.catalog import Catalog
    from index.event_model import EventModel

    inputs, beam_args = _split(arguments)
    catalog_dir = Path(inputs[0]) if Path(inputs[0]).is_dir() else None
    clips = inputs[1:] if catalog_dir else inputs
    names = [name for name in (classes or "").split(",") if name]
    if clips:
        if plot is not None and len(clips) > 1:
            raise click.UsageError("--plot draws one CLIP, and there are several")
        detector = _open_detector(catalog_dir, model, bundle, hop_s, names)
        failed = _detect_clips(
            clips, detector, min_score, median_s, out, plot, output_format
        )  # fmt: skip
        sys.exit(EXIT_SOME_FAILED if failed else 0)
    if plot is not None:
        raise click.UsageError("--plot draws one CLIP: name it")
    folder = model_path(catalog_dir, model)
    events = _of_catalog(Catalog.open(inputs[0]), folder, min_score, beam_args)
    if names:
        wanted = EventModel.load(folder).select(names).names
        events = [event for event in events if event.label in wanted]
    _hand_over(events, out, output_format, inputs[0])


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    inputs, beam_args = list(arguments), list[str]()
    if any(argument.startswith("--") for argument in arguments):
        from pipelines.beam_options import split_arguments

        inputs, beam_args = split_arguments(arguments)
    if not inputs:
        raise click.UsageError("name a catalog, or clips")
    return inputs, beam_args


def _open_detector(
    catalog_dir: Path | None, model: str, bundle: Path | None, hop_s: float, names: list[str]
) -> EventDetector:
    from encoders.detector import Detector
    from index.event_detector import NetworkDetector
    from index.event_model import EventModel
    from index.event_segment_detector import SegmentDetector

    own = own_model(catalog_dir, model) if catalog_dir else Path(model)
    if (own / "bundle.json").is_file():
        return NetworkDetector(Detector(own), names)
    if model == "default" and not is_model(own):
        return NetworkDetector(Detector(), names)
    learned = EventModel.load(own)
    return SegmentDetector(learned.select(names) if names else learned, bundle, hop_s)


def _detect_clips(
    clips: list[str],
    detector: EventDetector,
    min_score: float | None,
    median_s: float | None,
    out: Path | None,
    plot: Path | None,
    output_format: str | None,
) -> int:
    import dataclasses

    from encoders.errors import AudioError

    options = detector.options
    if median_s is not None:
        options = dataclasses.replace(options, median_s=median_s)
    failed = 0
    everything: list[Event] = []
    for clip in clips:
        source = sys.stdin.buffer.read() if clip == "-" else clip
        try:
            found = detector.detect(source, min_score, options, clip)
        except AudioError as error:
            failed += 1
            click.echo(f"{printable(clip)}: {error.reason}", err=True)
            continue
        if plot is not None:
            from pipelines.event_plots import plot_timeline

            plot_timeline(found.frames, found.events, detector.spec, plot, Path(clip).name)
        everything += found.events
        if out is None:
            _hand_over(found.events, None, output_format, clip)
    if out is not None:
        _hand_over(everything, out, output_format, "")
    return failed


def _of_catalog(
    catalog: Catalog, folder: Path, min_score: float | None, beam_args: list[str]
) -> list[Event]:
    from index.schema import Event
    from pipelines.detect_events import detect_catalog

    table = detect_catalog(catalog, folder.absolute(), min_score, beam_args)
    events = []
    for uri, rows in itertools.groupby(table.to_pylist(), key=lambda row: row["uri"]):
        best_first = sorted(rows, key=lambda row: -row["score"])
        events += [
            Event(
                uri, rank, uri, row["recording_id"], row["onset_s"], row["offset_s"],
                row["label"], round(row["score"], 4),
            )
            for rank, row in enumerate(best_first, 1)
        ]  # fmt: skip
    return events


def _hand_over(
    events: list[Event], out: Path | None, output_format: str | None, title: str
) -> None:
    from pipelines.event_outputs import format_of, in_time, to_text, write_events

    if out is not None:
        form = output_format if output_format not in (None, "table") else None
        for path in write_events(events, out, form or format_of(out)):
            click.echo(path)
    elif output_format in (None, "table"):
        print_events(in_time(events), "table", title)
    else:
        click.echo(to_text(events, output_format or ""), nl=False)
