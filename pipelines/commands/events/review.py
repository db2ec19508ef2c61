"""``earmark events review``."""

from __future__ import annotations

import csv
import io
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.events.common import model_option, one_thread, open_column, own_model
from pipelines.commands.identify import clock
from pipelines.commands.output import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from index.event_review import Proposal
    from index.label_files import Labelled

_COLUMNS = ["uri", "onset", "offset", "label", "score", "reason", "answer"]
_ANSWERS = {"yes": True, "y": True, "1": True, "true": True}
_ANSWERS |= {"no": False, "n": False, "0": False, "false": False}


@click.command("review")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--label", required=True, metavar="NAME", help="The kind of sound.")
@click.option("-n", "n", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Regions to propose.")  # fmt: skip
@click.option(
    "--propose", type=click.Path(dir_okay=False, path_type=Path), metavar="CSV",
    help="Write the regions here, for somebody to fill in the last column, and ask nothing.",
)  # fmt: skip
@click.option(
    "--judged", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CSV",
    help="Learn from such a file, its last column filled in with yes or no.",
)  # fmt: skip
@click.option(
    "--player", metavar="COMMAND",
    help="Play each region with this; {path}, {onset} and {seconds} are put in.",
)  # fmt: skip
@model_option
def command(
    catalog_dir: Path,
    label: str,
    n: int,
    propose: Path | None,
    judged: Path | None,
    player: str | None,
    model: str,
) -> None:
    """Judge the regions of the catalog DIR that teach most about a kind of sound.

    Proposes the highest scores, those at the threshold, and sounds unlike all that was judged
    before. Answer y, n, s to skip or q to stop; what was answered is learned and kept with the
    model. Run it again, and it goes on with the next ones.

    \b
    Examples:
      earmark events review my-catalog --label dog_bark
      earmark events review my-catalog --label dog_bark \\
          --player 'ffplay -nodisp -autoexit -ss {onset} -t {seconds} {path}'
      earmark events review my-catalog --label dog_bark --propose to-judge.csv
      earmark events review my-catalog --label dog_bark --judged to-judge.csv
    """
    if propose and judged:
        raise click.UsageError("--propose writes a file and --judged reads one: give one of them")
    one_thread()
    from index import event_review
    from index.catalog import Catalog
    from index.event_learning import known_labels, learn
    from index.event_model import EventModel, load_labels

    catalog = Catalog.open(catalog_dir)
    folder = own_model(catalog_dir, model)
    learned = EventModel.load(folder)
    learned.select([label])
    index = open_column(catalog, learned.column)
    labels, refuted = known_labels(index, load_labels(folder))
    if judged is not None:
        answers = _read_answers(judged, label, index.recordings)
    else:
        mine = [x for x in (*labels, *refuted) if x.label == label]
        proposals = event_review.propose(index, learned, label, catalog.config.spec, mine, n)
        if not proposals:
            click.echo(f"Nothing left to judge: no other sound is at all like {label}.")
            return
        if propose is not None:
            _write_proposals(proposals, label, propose)
            click.echo(f"{len(proposals)} regions to judge: fill in the last column of {propose}")
            click.echo(f"Next: earmark events review {catalog_dir} --label {label} "
                       f"--judged {propose}")  # fmt: skip
            return
        answers = _ask(proposals, label, player)
    if not answers:
        click.echo("Nothing was judged.")
        return
    labels += [region for region, yes in answers if yes]
    refuted += [region for region, yes in answers if not yes]
    again = learn(index, catalog.config.spec, _without_overlaps(labels), folder, refuted)
    (now,) = again.select([label]).classes
    n_yes = sum(yes for _, yes in answers)
    click.echo(
        f"Learned from {len(answers)} judgements, {n_yes} yes and {len(answers) - n_yes} no: "
        f"{label} has {now.n_examples} examples now, threshold {now.threshold:.2f}"
        + ("" if now.f1 is None else f", F1 {now.f1:.2f} on held-back recordings")
    )


def _ask(proposals: list[Proposal], label: str, player: str | None) -> list[tuple[Labelled, bool]]:
    answers: list[tuple[Labelled, bool]] = []
    for number, proposal in enumerate(proposals, 1):
        click.echo(
            f"[{number}/{len(proposals)}] {printable(proposal.uri)}  "
            f"{clock(proposal.onset_s)} – {clock(proposal.offset_s)}  score {proposal.score:.2f}, "
            f"{proposal.reason}"
        )
        if player:
            _play(player, proposal)
        try:
            answer = click.prompt(
                f"Is it {label}? [y/n/s/q]", type=click.Choice(["y", "n", "s", "q"]),
                show_choices=False,
            )  # fmt: skip
        except click.Abort:
            # Ctrl-C, or the end of the input: what was answered counts.
            click.echo()
            break
        if answer == "q":
            break
        if answer != "s":
            answers.append((proposal.judged(label), answer == "y"))
    return answers


def _play(player: str, proposal: Proposal) -> None:
    from pipelines.inputs import local_path

    seconds = proposal.offset_s - proposal.onset_s
    places = {
        "path": str(local_path(proposal.uri) or proposal.uri),
        "onset": f"{proposal.onset_s:.3f}",
        "seconds": f"{seconds:.3f}",
    }
    words = [word.format(**places) for word in shlex.split(player)]
    try:
        subprocess.run(words, check=False, capture_output=True)
    except OSError as error:
        click.echo(f"{words[0]}: {error.strerror}", err=True)


def _write_proposals(proposals: list[Proposal], label: str, path: Path) -> None:
    from index.storage import write_atomically

    table = io.StringIO()
    out = csv.writer(table, lineterminator="\n")
    out.writerow(_COLUMNS)
    for p in proposals:
        out.writerow([p.uri, p.onset_s, p.offset_s, label, p.score, p.reason, ""])
    with write_atomically(path) as file:
        file.write(table.getvalue().encode("utf-8"))


def _read_answers(path: Path, label: str, recordings: pa.Table) -> list[tuple[Labelled, bool]]:
    from encoders.errors import LabelError
    from index.label_files import read_csv, resolve_labels

    with path.open(newline="", encoding="utf-8-sig") as file:
        given = [(row.get("answer") or "").strip().lower() for row in csv.DictReader(file)]
    if strange := [answer for answer in given if answer and answer not in _ANSWERS]:
        raise LabelError(f"{path}: the answer {strange[0]!r} is neither yes nor no")
    regions = resolve_labels(read_csv(path), recordings, [label])
    return [
        (region, _ANSWERS[answer]) for region, answer in zip(regions, given, strict=True) if answer
    ]


def _without_overlaps(labels: list[Labelled]) -> list[Labelled]:
    # A region that was judged may lie in one that was labelled before.
    kept: dict[tuple[int, str], list[Labelled]] = defaultdict(list)
    for new in labels:
        mine = kept[new.recording, new.label]
        if not any(new.onset_s < old.offset_s and new.offset_s > old.onset_s for old in mine):
            mine.append(new)
    return [label for mine in kept.values() for label in mine]
