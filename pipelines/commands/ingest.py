"""``earmark ingest``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.output import (
    format_bytes,
    format_option,
    print_facts,
    print_jsonl,
    printable,
)

if TYPE_CHECKING:
    from pipelines.ingest import IngestSummary

EXIT_SOME_FAILED = 1
EXIT_TOO_MANY_FAILED = 3
EXIT_INTERRUPTED = 130

# Recordings named in the summary, at most.
_SHOWN = 5

_AFTER_DASHES = "earmark.after_dashes"


class _Ingest(click.Command):
    """Keeps what follows a lone ``--`` apart: those are inputs, whatever they look like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    "ingest",
    cls=_Ingest,
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [BEAM OPTIONS]",
)
@click.argument("arguments", metavar="INPUT...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--catalog", "catalog_dir", required=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Folder of the catalog; made if it is not there.",
)  # fmt: skip
@click.option(
    "--encoder", default="fingerprint", show_default=True, metavar="BUNDLE",
    help="Fingerprint encoder: the name of a shipped bundle, or a folder.",
)  # fmt: skip
@click.option(
    "--vae", metavar="BUNDLE",
    help="Autoencoder for the latents: the name of a shipped bundle, or a folder. [default: vae]",
)  # fmt: skip
@click.option(
    "--encoders", metavar="NAME[=BUNDLE],…",
    help="Embeddings to store: fingerprint, which every catalog has, vae, event and further ones. "
    "A new one is added to what the catalog holds. [default: those it has; fingerprint,vae for a "
    "new one]",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["int8", "float32"]),
    help="Arithmetic of the encoders. [default: that of the catalog; int8 for a new one]",
)  # fmt: skip
@click.option(
    "--keep-mfcc", type=click.Choice(["summary", "full"]),
    help="Mean and deviation of each window's MFCCs, or every frame as well. "
    "[default: that of the catalog; summary for a new one]",
)  # fmt: skip
@click.option(
    "--max-failures", type=click.IntRange(min=0), metavar="N",
    help="Stop when more than N inputs have failed; what is done stays.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try inputs again that failed before.")
@click.option("--all-files", is_flag=True, help="Try every file in a folder, whatever its name.")
@click.option(
    "--shard-files", type=click.IntRange(min=1), default=32, show_default=True, metavar="N",
    help="Inputs in one part of the catalog, at most.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Shards at a time in one worker. [default: one per core; 1 with another --runner]",
)  # fmt: skip
@click.option("--no-index", is_flag=True, help="Do not bring the index up to date afterwards.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    arguments: tuple[str, ...],
    catalog_dir: Path,
    no_index: bool,
    encoder: str,
    output_format: str,
    **settings: Any,
) -> None:
    """Ingest audio into a catalog.

    INPUT is a file, a folder, a quoted glob, a URI of any file system that Beam knows (file, gs,
    s3, hdfs), or a manifest: a .csv, .jsonl or .parquet file with a column "uri"; its other
    columns become labels. A file whose name begins with a dash is written ./-name, or put after a
    lone --.

    Inputs that the catalog knows already are passed over: run the same command again to resume,
    to take in what is new, and to see what has changed.

    Any other option goes to Beam as it is, such as --runner=FlinkRunner; the form --x=value is
    always understood.

    \b
    Examples:
      earmark ingest ~/Music --catalog my-catalog
      earmark ingest 'takes/*.wav' labels.csv --catalog my-catalog --keep-mfcc full
      earmark ingest sounds --catalog my-catalog --encoders fingerprint,vae,event
      earmark ingest --catalog my-catalog --encoders event
      earmark ingest gs://bucket/audio --catalog /mnt/catalog --runner=FlinkRunner

    Exit codes: 0 every input gave audio (some of it perhaps incomplete), 1 some inputs failed,
    2 wrong use or an error, 3 stopped by --max-failures, 130 interrupted.
    """
    # The threads are ours; numpy's own would only be in their way. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from pipelines.beam_options import split_arguments
    from pipelines.ingest import IngestOptions, ingest

    inputs, beam_args = split_arguments(arguments)
    inputs += ctx.meta.get(_AFTER_DASHES, [])
    options = IngestOptions(
        fingerprint=encoder, build_index=not no_index, beam_args=tuple(beam_args), **settings
    )
    try:
        summary = ingest(inputs, catalog_dir, options)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if output_format == "jsonl":
        print_jsonl([summary.to_dict()])
    else:
        _print_summary(summary, catalog_dir, options.dry_run)
    if summary.stopped:
        click.echo(f"Stopped: more than {options.max_failures} inputs failed.", err=True)
        sys.exit(EXIT_TOO_MANY_FAILED)
    sys.exit(EXIT_SOME_FAILED if summary.failed or summary.n_missing or summary.unread else 0)


def _print_summary(summary: IngestSummary, catalog_dir: Path, dry_run: bool) -> None:
    from pipelines.progress import format_hours

    facts = {
        "Inputs": f"{summary.n_inputs:,}",
        "Done before": f"{summary.n_done_before:,}",
    }
    if summary.n_failed_before:
        facts["Done before"] += f", of which {summary.n_failed_before:,} failed (--retry-failed)"
    if summary.n_duplicates:
        facts["Given twice"] = f"{summary.n_duplicates:,} (counted once)"
    if summary.n_not_audio:
        facts["Skipped"] = f"{summary.n_not_audio:,} files that are not audio by name"
        facts["Skipped"] += " (--all-files to try them)"
    if dry_run:
        facts["To do"] = f"{summary.n_todo:,} in {summary.n_shards:,} shards"
        if summary.n_gaps:
            facts["To do"] += f"; columns of {summary.n_gaps:,} parts"
        print_facts(facts, "Dry run: nothing was written")
        return
    facts["OK"] = f"{summary.ok:,}"
    facts["Partial"] = f"{summary.partial:,}"
    facts["Failed"] = f"{summary.failed:,}"
    if summary.n_missing:
        facts["Still missing"] = f"{summary.n_missing:,}"
    if summary.n_todo:
        speed = summary.seconds / max(summary.elapsed_s, 1e-9)
        facts["Audio"] = f"{format_hours(summary.seconds)} in {summary.windows:,} windows"
        facts["Time"] = f"{summary.elapsed_s:.1f} s, {speed:,.0f} × real time"
        if summary.cpu_s is not None and summary.seconds:
            per_hour = summary.cpu_s / (summary.seconds / 3600)
            facts["CPU"] = f"{per_hour:.1f} s per hour of audio"
    if summary.columns:
        facts["Columns"] = ", ".join(summary.columns)
    if summary.n_gaps:
        facts["Columns"] += f" (added to {summary.n_gaps:,} parts)"
    if summary.unread:
        facts["Not read again"] = f"{len(summary.unread):,} (--retry-failed)"
    if summary.index_seconds is not None:
        facts["Index"] = f"built in {summary.index_seconds:.1f} s"
    facts["Catalog"] = f"{catalog_dir}, {format_bytes(summary.catalog_bytes)}"
    print_facts(facts, "Ingest")
    for reason, n in summary.reasons:
        click.echo(f"  {n:,} × {printable(reason)}")
    if summary.reasons:
        click.echo(f"Which ones: earmark failures {catalog_dir}")
    for uri in summary.unread[:_SHOWN]:
        click.echo(f"  gone or changed since it was ingested: {printable(uri)}")
    if summary.windows or summary.n_done_before:
        click.echo(f"Next: earmark identify {catalog_dir} CLIP")
