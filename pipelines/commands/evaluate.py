"""``earmark evaluate``."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli import EXIT_INTERRUPTED
from pipelines.commands.evaluate_events import events

if TYPE_CHECKING:
    from pipelines.evaluate.results import Results

CACHE = Path(tempfile.gettempdir()) / "earmark-evaluation"


class _Separated(click.ParamType):
    """Several values with commas between them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        return value if isinstance(value, list) else [v for v in value.split(",") if v]


@click.group("evaluate", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure how well Earmark works, beside other programs.

    \b
    Example:
      earmark evaluate fingerprints --corpus corpus.csv --out evaluation
      earmark evaluate events --corpus corpus.csv --out evaluation-events
    """


command.add_command(events)


@command.command("fingerprints")
@click.option(
    "--corpus", required=True, type=click.Path(exists=True, path_type=Path), metavar="CSV|DIR",
    help="As for train: queries and backgrounds are cut from its split dev, and its split train "
    "fills the data base.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Gets the list of queries, the answers, and the report.",
)  # fmt: skip
@click.option(
    "--encoder", default="fingerprint", show_default=True, metavar="BUNDLE",
    help="Fingerprint encoder to measure: the name of a shipped bundle, or a folder.",
)  # fmt: skip
@click.option(
    "--vae", default="vae", show_default=True, metavar="BUNDLE",
    help="Autoencoder, which ingest wants as well: the name of a shipped bundle, or a folder.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["int8", "float32"]), default="int8", show_default=True,
    help="Arithmetic of the encoders.",
)  # fmt: skip
@click.option("--hours", default=31.0, show_default=True, help="References, at least.")
@click.option(
    "--conditions", type=_Separated("LIST"), metavar="NAME,…",
    help="What happens to the queries. [default: everything: see docs/evaluation.md]",
)  # fmt: skip
@click.option(
    "--lengths", type=_Separated("LIST"), default="1,2,3,5,10", show_default=True,
    metavar="SECONDS,…", help="Of the queries.",
)  # fmt: skip
@click.option(
    "--queries", "n_present", type=click.IntRange(min=1), default=20, show_default=True,
    metavar="N", help="For each condition and length.",
)  # fmt: skip
@click.option(
    "--absent", "n_absent", type=click.IntRange(min=0), default=5, show_default=True, metavar="N",
    help="As many of music that is not in the data base.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--peers/--no-peers", default=True, show_default=True,
    help="Put the same queries to the other fingerprinters that are installed.",
)  # fmt: skip
@click.option("--keep-audio", is_flag=True, help="Write the queries as WAV files in any case.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes. [default: one per core]"
)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), default=CACHE, metavar="DIR",
    show_default=True,
    help="Where catalogs and decoded audio (115 MB an hour) are kept for the next run.",
)  # fmt: skip
def fingerprints(
    corpus: Path,
    out: Path,
    encoder: str,
    vae: str,
    precision: str,
    conditions: list[str] | None,
    lengths: list[str],
    peers: bool,
    cache: Path,
    **settings: Any,
) -> None:
    """Measure how often degraded clips of music are found, and how exactly.

    Ingests the music of the corpus, cuts clips from its split dev, sends them through codecs,
    noise, rooms, phones and changes of speed, tempo and pitch, and identifies them; the same with
    music that is not in the data base. Started again with the same options, it goes on where it
    was stopped.

    \b
    Examples:
      earmark evaluate fingerprints --corpus corpus.csv --out evaluation
      earmark evaluate fingerprints --corpus corpus.csv --out quick --no-peers \\
          --conditions noise5,phone --lengths 2,5
    """
    # Each process has one thread. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from pipelines.evaluate.conditions import CONDITIONS
    from pipelines.evaluate.references import Encoders
    from pipelines.evaluate.report import write_report
    from pipelines.evaluate.results import Results
    from pipelines.evaluate.run import Options, evaluate
    from pipelines.peers import installed_peers

    chosen = conditions or list(CONDITIONS)
    if unknown := [name for name in chosen if name not in CONDITIONS]:
        raise click.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(CONDITIONS)}", param_hint="--conditions"
        )
    options = Options(
        corpus, out, cache.absolute(), Encoders(encoder, vae, precision),
        conditions=list(dict.fromkeys(chosen)), lengths=_seconds(lengths), **settings,
    )  # fmt: skip
    try:
        evaluation = evaluate(options, installed_peers() if peers else [])
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    results = Results(evaluation)
    paths = write_report(results, out, shlex.join(["earmark", *sys.argv[1:]]))
    _print(results, paths)


def _seconds(lengths: list[str]) -> list[float]:
    try:
        seconds = sorted({float(length) for length in lengths})
    except ValueError:
        seconds = []
    if not seconds or not 0.1 <= seconds[0] <= seconds[-1] <= 600:
        raise click.BadParameter("give seconds from 0.1 to 600", param_hint="--lengths")
    return seconds


def _print(results: Results, paths: list[Path]) -> None:
    from pipelines.commands.output import print_table
    from pipelines.evaluate import report

    facts = results.evaluation.facts
    click.echo(
        f"{facts['recordings']:,} recordings, {facts['hours']:.1f} h; % of the queries, with "
        "95 % intervals"
    )
    for table in (
        report.core_table(results),
        report.cell_table(results, "earmark", "exact"),
        report.absent_table(results),
    ):
        print_table(table.columns, table.rows, table.title)
    for path in paths:
        click.echo(path)
