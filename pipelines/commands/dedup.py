"""``earmark dedup``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli import EXIT_INTERRUPTED
from pipelines.commands import dedup_judge
from pipelines.commands.dedup_judge import KINDS
from pipelines.commands.output import format_bytes, print_facts, print_table, printable

if TYPE_CHECKING:
    from index.schema import DuplicateKind
    from pipelines.dedup.apply import Action, Outcome
    from pipelines.dedup.results import Leakage, Results

EXIT_SOME_SKIPPED = 1
_SHOWN_SKIPPED = 20


class _Dedup(click.Command):
    """Takes catalogs, or a subcommand in front of everything else."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:  # fmt: skip
        if args[:1] == ["judge"]:
            judge = dedup_judge.command
            return judge.make_context(f"{info_name} judge", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


class _Kinds(click.ParamType):
    """Kinds of duplicates with commas between."""

    name = "kinds"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        chosen = tuple(dict.fromkeys(kind.strip() for kind in value.split(",") if kind.strip()))
        if unknown := [kind for kind in chosen if kind not in KINDS]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(KINDS)}", param, ctx)
        return chosen or self.fail("name at least one kind", param, ctx)


@click.command(
    "dedup",
    cls=_Dedup,
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS] [BEAM OPTIONS]",
)
@click.argument("arguments", metavar="DIR...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--between", nargs=2, metavar="A B",
    help="Compare two groups with each other only, and say what leaks from one into the other: "
    "each is one of the catalogs, a label (split=test), or the value of a label (test).",
)  # fmt: skip
@click.option(
    "--kinds", type=_Kinds(), default=",".join(KINDS), metavar="KIND,…",
    help=f"What to look for: {', '.join(KINDS)}. [default: all of them]",
)  # fmt: skip
@click.option(
    "--cluster-near", is_flag=True,
    help="Make clusters of pairs 'near' too, not of 'identical' and 'same-audio' only. "
    "--apply never acts upon these.",
)  # fmt: skip
@click.option(
    "--keep", default="best", show_default=True, metavar="POLICY",
    help="Which file of a cluster to keep: best (whole, lossless, higher rate, more channels, "
    "higher bit rate, longer, with labels, older), first (by name), longest, label (has one), or "
    "a folder whose files come first.",
)  # fmt: skip
@click.option(
    "--label", "labels", multiple=True, default=["label"], show_default=True, metavar="KEY",
    help="Label that copies should agree about; can be given several times.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Folder of the results. [default: dedup]",
)  # fmt: skip
@click.option(
    "--format", "list_format", type=click.Choice(["parquet", "csv", "jsonl"]), default="jsonl",
    show_default=True,
    help="Of the lists; pairs and clusters are there as JSON lines and Parquet in any case.",
)  # fmt: skip
@click.option(
    "--report-pairs", type=click.IntRange(min=0), default=100, show_default=True, metavar="N",
    help="Pairs to draw in the report; their files are decoded for that.",
)  # fmt: skip
@click.option(
    "--apply", "action", metavar="move:DIR|hardlink",
    help="Put the copies aside: move them to a folder, or make those of the same bytes hard links "
    "of the one to keep. Each step is written to a journal first, and files that have changed "
    "since they were ingested are left alone. [default: nothing is touched]",
)  # fmt: skip
@click.option(
    "--undo", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="OUT",
    help="Bring back everything that --apply put aside with the results in OUT, and do nothing "
    "else.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="Shards at a time in one worker. [default: one per core]",
)  # fmt: skip
def command(
    arguments: tuple[str, ...],
    between: tuple[str, str] | None,
    kinds: tuple[str, ...],
    keep: str,
    labels: tuple[str, ...],
    cluster_near: bool,
    out: Path | None,
    list_format: str,
    report_pairs: int,
    action: str | None,
    undo: Path | None,
    threads: int | None,
) -> None:
    """Find files that are the same sound in the catalogs DIR.

    Writes to the folder --out: pairs and clusters (pairs.jsonl, clusters.jsonl, and the same as
    Parquet), which files to keep and which to drop, and report.html to look at and listen to. No
    audio file is changed, moved or deleted. Run the same command again to resume.

    'earmark dedup judge OUT' asks about pairs; one that you say is no duplicate is never reported
    again (see 'earmark dedup judge --help').

    Any other option goes to Beam as it is, such as --runner=FlinkRunner.

    \b
    Examples:
      earmark dedup my-catalog
      earmark dedup my-catalog --keep ~/Music/originals --format csv
      earmark dedup my-catalog --between split=train split=test --out leakage
      earmark dedup old new --between old new --kinds identical,same-audio
      earmark dedup my-catalog --apply move:aside
      earmark dedup --undo dedup

    Exit codes: 0 done, duplicates or not; 1 some files were not put aside or brought back; 2 wrong
    use or an error; 130 interrupted.
    """
    # The threads are ours; numpy's own would only be in their way. Before numpy is imported.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from index.keep import KeepPolicy
    from pipelines.beam_options import split_arguments
    from pipelines.dedup.apply import Action
    from pipelines.dedup.report import write_report
    from pipelines.dedup.results import Settings
    from pipelines.dedup.run import Options, deduplicate
    from pipelines.deduplicate import PairOptions
    from pipelines.progress import task_display

    catalogs, beam_args = split_arguments(arguments)
    if undo is not None:
        if catalogs or action:
            raise click.UsageError("--undo goes alone: earmark dedup --undo OUT")
        sys.exit(_undo(undo))
    if not catalogs:
        raise click.UsageError("name at least one catalog: earmark dedup DIR")
    try:
        chosen = Action.parse(action) if action else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--apply") from None
    out = out or Path("dedup")
    options = Options(
        PairOptions(_kinds(kinds), between, threads, tuple(beam_args)),
        Settings(KeepPolicy(keep, labels[0]), cluster_near, between, labels),
        list_format,
    )
    try:
        results = deduplicate([Path(folder) for folder in catalogs], out, options)
        with task_display("Drawing") as show:
            report = write_report(results, out, report_pairs, show)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    print_results(results)
    click.echo(f"Pairs, clusters, what to keep and what to drop: {out}")
    click.echo(f"Look at: {report}")
    if chosen is not None:
        sys.exit(_apply(results, chosen, out))


def _apply(results: Results, action: Action, out: Path) -> int:
    from pipelines.dedup.apply import MOVE, apply
    from pipelines.progress import task_display

    facts = results.facts
    copies = [(facts[u], facts[c.cluster.keep]) for c in results.copies for u in c.drop]
    try:
        with task_display("Putting copies aside") as show:
            outcome = apply(copies, action, out, show)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. Go on with the same command, or --undo {out}.", err=True)
        return EXIT_INTERRUPTED
    done = "Moved" if action.name == MOVE else "Made hard links of"
    where = f" to {action.folder}" if action.folder else ""
    click.echo(f"{done} {len(outcome.done):,} files ({format_bytes(outcome.n_bytes)}){where}")
    if outcome.n_before:
        click.echo(f"Done before: {outcome.n_before:,} files")
    if outcome.done:
        click.echo(f"Bring them back: earmark dedup --undo {out}")
    return _print_skipped(outcome)


def _undo(out: Path) -> int:
    from pipelines.dedup.apply import undo
    from pipelines.progress import task_display

    with task_display("Bringing back") as show:
        outcome = undo(out, show)
    click.echo(f"Brought back {len(outcome.done):,} files ({format_bytes(outcome.n_bytes)})")
    return _print_skipped(outcome)


def _print_skipped(outcome: Outcome) -> int:
    if not outcome.skipped:
        return 0
    click.echo(f"Left as they are: {len(outcome.skipped):,} files", err=True)
    for uri, reason in outcome.skipped[:_SHOWN_SKIPPED]:
        click.echo(f"  {printable(uri)}: {printable(reason)}", err=True)
    if len(outcome.skipped) > _SHOWN_SKIPPED:
        click.echo("  …", err=True)
    return EXIT_SOME_SKIPPED


def _kinds(names: tuple[str, ...]) -> tuple[DuplicateKind, ...]:
    from index.schema import DuplicateKind

    return tuple(DuplicateKind(name) for name in names)


def print_results(results: Results) -> None:
    """The summary tables of a run, for a person."""
    from pipelines.progress import format_span

    summary = results.summary()
    rows = [[kind, f"{n:,}"] for kind, n in summary["pairs"].items()]
    print_table(["Kind", "Pairs"], rows)
    facts = {
        "Files": f"{summary['files']:,}, {format_span(summary['seconds'])}",
        "Clusters": f"{summary['clusters']:,} of {summary['files_in_clusters']:,} files",
        "To win": f"{summary['files_to_drop']:,} files, {format_span(summary['seconds_won'])}, "
        f"{format_bytes(summary['bytes_won'])}",
    }
    for name, n in summary["unpaired"].items():
        facts[name.capitalize()] = f"{n:,} files, not compared"
    if summary["links_cut"]:
        facts["Links cut"] = f"{summary['links_cut']:,} pairs too weak to join clusters"
    if summary["label_conflicts"]:
        facts["Labels"] = f"{summary['label_conflicts']:,} clusters whose files disagree"
    if summary["pairs_judged_different"]:
        facts["Judged"] = f"{summary['pairs_judged_different']:,} pairs different, not reported"
    print_facts(facts, "Duplicates")
    if results.leakage:
        _print_leakage(results.leakage)


def _print_leakage(leakage: Leakage) -> None:
    from pipelines.progress import format_span

    a, b = map(printable, leakage.groups)
    rows = []
    for leak in leakage.leaks:
        shares = (
            f"{n:,} of {of:,} ({n / of:.1%}), {format_span(seconds)}"
            for n, of, seconds in zip(
                (leak.n_files_a, leak.n_files_b), leakage.n_files,
                (leak.seconds_a, leak.seconds_b), strict=True,
            )
        )  # fmt: skip
        rows.append([leak.kind, f"{leak.n_pairs:,}", *shares])
    print_table(["Kind", "Pairs", f"Files of {a}", f"Files of {b}"], rows, f"Leakage: {a} and {b}")
