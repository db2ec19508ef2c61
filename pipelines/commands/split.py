"""``earmark split``."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.cli import EXIT_INTERRUPTED
from pipelines.commands.output import format_option, print_jsonl, print_table

_SHOWN_STRATA = 20


@click.command(
    "split",
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [BEAM OPTIONS]",
)
@click.argument("arguments", metavar="DIR...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ratios", required=True, metavar="NAME=SHARE,…",
    help="The splits and the share of the audio of each, such as train=.8,dev=.1,test=.1.",
)  # fmt: skip
@click.option(
    "--stratify", metavar="KEY",
    help="Label whose values every split should have in the same proportions.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Another seed gives another split.")
@click.option(
    "--dedup", "dedup_dir", type=click.Path(file_okay=False, path_type=Path),
    default=Path("dedup"), show_default=True, metavar="OUT",
    help="Folder of 'earmark dedup', whose pairs are used if they are up to date, and found "
    "otherwise.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="CSV",
    help="Gets a line for each file: uri, split, group, seconds. The proof is written beside it.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Shards at a time in one worker. [default: one per core]",
)  # fmt: skip
@format_option
def command(
    arguments: tuple[str, ...],
    ratios: str,
    stratify: str | None,
    seed: int,
    dedup_dir: Path,
    out: Path,
    threads: int | None,
    output_format: str,
) -> None:
    """Split the files of the catalogs DIR so that nothing leaks from one split into another.

    Files that share any sound (copies, excerpts, overlaps, the same recording under noise) go into
    the same split. Shares are of seconds, and as close as that allows. The same seed gives the
    same split. The proof counts the pairs within splits and across their borders.

    Any other option goes to Beam as it is, such as --runner=FlinkRunner.

    \b
    Examples:
      earmark split my-catalog --ratios train=.8,dev=.1,test=.1 --out splits.csv
      earmark split my-catalog --ratios train=.9,test=.1 --stratify label --out splits.csv
    """
    # The threads are ours; numpy's own would only be in their way. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from index.splits import parse_ratios, split_files
    from index.storage import write_atomically
    from pipelines.beam_options import split_arguments
    from pipelines.dedup.run import Options, collect
    from pipelines.deduplicate import PairOptions

    try:
        wanted = parse_ratios(ratios)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ratios") from None
    try:
        catalogs, beam_args = split_arguments(arguments)
        pairs = PairOptions(threads=threads, beam_args=tuple(beam_args))
        results = collect([Path(folder) for folder in catalogs], dedup_dir, Options(pairs))
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    split = split_files(results.facts, results.pairs, wanted, stratify, seed)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["uri", "split", "group", "seconds"])
    for uri, name in split.of_uri.items():
        seconds = round(split.facts[uri].seconds, 3)
        writer.writerow([uri, name, split.group_of_uri[uri], seconds])
    proof = split.proof()
    beside = out.with_suffix(".proof.json")
    with write_atomically(beside) as file:
        file.write((json.dumps({"seed": seed, **proof}, indent=1) + "\n").encode())
    with write_atomically(out) as file:
        file.write(text.getvalue().encode("utf-8", "surrogatepass"))
    if output_format == "jsonl":
        print_jsonl([proof])
        return
    _print(proof)
    click.echo(f"{len(split.of_uri):,} files: {out}, the proof: {beside}")


def _print(proof: dict[str, Any]) -> None:
    from pipelines.progress import format_span

    rows = [
        [
            name, f"{row['files']:,}", f"{row['groups']:,}", format_span(row["seconds"]),
            f"{row['share']:.2%}", f"{row['wanted']:.2%}",
        ]
        for name, row in proof["splits"].items()
    ]  # fmt: skip
    print_table(["Split", "Files", "Groups", "Audio", "Share", "Wanted"], rows, "Shares reached")
    if proof["strata"]:
        shown = list(proof["strata"].items())[:_SHOWN_STRATA]
        lines = [[s or "(none)", *(f"{v:.1%}" for v in row.values())] for s, row in shown]
        print_table(["Label", *proof["splits"]], lines)
        if len(proof["strata"]) > len(shown):
            click.echo(f"and {len(proof['strata']) - len(shown):,} more labels, in the proof")
    pairs = [[k, f"{v['within']:,}", f"{v['across']:,}"] for k, v in proof["pairs"].items()]
    print_table(["Pairs", "Within a split", "Across a border"], pairs, "Proof")
    largest, smallest = (
        proof["largest_group_share"],
        min(v["wanted"] for v in proof["splits"].values()),
    )
    if largest > smallest:
        click.echo(
            f"The largest group of files that share sound is {largest:.1%} of the audio: "
            "shares cannot be closer than it allows."
        )
