"""``earmark match``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.cli import EXIT_INTERRUPTED
from pipelines.commands.output import format_option, print_facts, print_jsonl

EXIT_SOME_FAILED = 1


@click.command(
    "match",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [BEAM OPTIONS]",
)
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="QUERIES...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Parquet file of the matches.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="K",
    help="At most this many matches for each query.",
)  # fmt: skip
@click.option("--all", "all_matches", is_flag=True, help="All matches of each query.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="T",
    help="Report scores from T. [default: the encoder's own]",
)  # fmt: skip
@click.option(
    "--long", "long_s", type=click.FloatRange(min=1), default=60.0, show_default=True,
    metavar="SECONDS", help="Follow longer queries piece by piece, as monitor does.",
)  # fmt: skip
@click.option(
    "--encoder", metavar="BUNDLE",
    help="Folder of the fingerprint encoder, if it is not one that comes with earmark.",
)  # fmt: skip
@click.option("--all-files", is_flag=True, help="Try every file in a folder, whatever its name.")
@click.option(
    "--shard-files", type=click.IntRange(min=1), default=64, show_default=True, metavar="N",
    help="Queries done at a time, at most.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Shards at a time in one worker. [default: one per core; 1 with another --runner]",
)  # fmt: skip
@format_option
def command(
    catalog_dir: Path,
    arguments: tuple[str, ...],
    out: Path,
    top: int,
    all_matches: bool,
    output_format: str,
    **settings: Any,
) -> None:
    """Identify a whole corpus of files against the catalog DIR.

    QUERIES are files, folders, globs, URIs or manifests, as for ingest. The result is a Parquet
    file with the fields that identify prints, and the status of every query; a query without a
    match has one row of rank 0. A run that was interrupted goes on where it was when the same
    command is given again. Any other option goes to Beam, such as --runner=FlinkRunner.

    \b
    Examples:
      earmark match my-catalog ~/found --out matches.parquet
      earmark match my-catalog clips.csv --out matches.parquet --all --threshold 0.9

    Exit codes: 0 every query was looked up, found or not; 1 some could not be read; 2 wrong use
    or an error; 130 interrupted.
    """
    # The threads are ours; numpy's own would only be in their way. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from pipelines.beam_options import split_arguments
    from pipelines.match import MatchOptions, match_corpus
    from pipelines.progress import format_hours

    queries, beam_args = split_arguments(arguments)
    options = MatchOptions(top=None if all_matches else top, beam_args=tuple(beam_args), **settings)
    try:
        summary = match_corpus(queries, catalog_dir, out, options)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if output_format == "jsonl":
        print_jsonl([summary.to_dict()])
    else:
        facts = {
            "Queries": f"{summary.n_queries:,}",
            "Done before": f"{summary.n_done_before:,}",
            "Found": f"{summary.found:,}",
            "Not found": f"{summary.unknown:,}",
            "Failed": f"{summary.failed:,}",
            "Matches": f"{summary.n_matches:,}",
            "Audio": format_hours(summary.seconds),
            "Time": f"{summary.elapsed_s:.1f} s",
            "Result": str(out),
        }
        print_facts(facts, "Match")
    sys.exit(EXIT_SOME_FAILED if summary.failed else 0)
