"""``earmark dedup judge``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from encoders.errors import EarmarkError
from pipelines.commands.identify import clock
from pipelines.commands.output import print_facts, printable

KINDS = ("identical", "same-audio", "excerpt", "overlap", "near")

if TYPE_CHECKING:
    from index.catalog import Catalog
    from index.judgements import Judgements
    from index.schema import DuplicatePair


@click.command("judge")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--csv", "csv_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take verdicts from a CSV file with the columns a, b and verdict (yes or no), such as the "
    "report saves, and ask nothing.",
)  # fmt: skip
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS),
    default=[kind for kind in KINDS if kind != "identical"], show_default=True,
    help="What to ask about; can be given several times.",
)  # fmt: skip
def command(out: Path, csv_file: Path | None, kinds: tuple[str, ...]) -> None:
    """Say of pairs that earmark dedup found whether they are duplicates.

    Asks about the pairs in OUT, the folder that earmark dedup wrote, those with the lowest scores
    first. Verdicts are kept in the catalog: a pair that is no duplicate is never reported again,
    and none is asked about twice. Stop at any time; what was said is kept.

    \b
    Examples:
      earmark dedup judge dedup
      earmark dedup judge dedup --kind near
      earmark dedup judge dedup --csv verdicts.csv
    """
    from index.judgements import Judgements, read_verdicts
    from index.keep import read_facts
    from pipelines.dedup.lists import PAIRS_FILE
    from pipelines.dedup.results import read_pairs

    catalogs = _catalogs(out)
    known = Judgements.read(catalogs)
    if csv_file is not None:
        new = read_verdicts(csv_file, read_facts(catalogs))
        Judgements(new).remember(catalogs)
        click.echo(f"{len(new):,} verdicts kept. Run 'earmark dedup' again to apply them.")
        return
    pairs = [
        pair
        for pair in sorted(read_pairs(out / PAIRS_FILE), key=lambda p: (p.score, p.a, p.b))
        if known.verdict(pair) is None and pair.kind.value in kinds
    ]
    n = _ask(pairs, catalogs)
    click.echo(f"{n:,} verdicts kept. Run 'earmark dedup' again to apply them.")


def _catalogs(out: Path) -> list[Catalog]:
    from index.catalog import Catalog
    from pipelines.dedup.lists import SUMMARY_FILE

    try:
        summary: Any = json.loads((out / SUMMARY_FILE).read_text(encoding="utf-8"))
        folders = [Path(folder) for folder in summary["catalogs"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise EarmarkError(f"{out} holds no results: run 'earmark dedup DIR --out {out}'") from None
    return [Catalog.open(folder) for folder in folders]


def _ask(pairs: Sequence[DuplicatePair], catalogs: Sequence[Catalog]) -> int:
    from index.judgements import Judgement, Judgements, Verdict

    said: Judgements = Judgements()
    for number, pair in enumerate(pairs, start=1):
        facts = {
            "A": f"{pair.a}  {clock(pair.a_start_s)} – {clock(pair.a_end_s)}",
            "B": f"{pair.b}  {clock(pair.b_start_s)} – {clock(pair.b_end_s)}",
            "Found": f"{pair.kind.value}, score {pair.score:.2f}",
            "Because": pair.reason,
        }
        print_facts(facts, f"Pair {number:,} of {len(pairs):,}")
        try:
            answer = _answer(pair)
        except click.Abort:
            answer = "quit"
            click.echo()
        if answer == "quit":
            break
        if answer != "skip":
            verdict = Verdict.DUPLICATE if answer == "yes" else Verdict.DIFFERENT
            said.add([Judgement.now(pair, verdict)])
            said.remember(catalogs)
    return len(said)


def _answer(pair: DuplicatePair) -> str:
    answers = {"y": "yes", "n": "no", "s": "skip", "q": "quit"}
    while True:
        word = click.prompt("Duplicates? [y]es, [n]o, [s]kip, [p]lay, [q]uit", type=str)
        letter = word.strip().lower()[:1]
        if letter in answers:
            return answers[letter]
        if letter == "p":
            for uri in (pair.a, pair.b):
                if click.launch(uri):
                    click.echo(f"Cannot open {printable(uri)} here.")
