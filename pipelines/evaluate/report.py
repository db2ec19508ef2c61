"""The figures for people: tables in Markdown and for the terminal, pictures, and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from index.metrics import Share
from pipelines.evaluate.conditions import CONDITIONS
from pipelines.evaluate.plots import plot_cells, plot_detection, plot_lengths, plot_noise
from pipelines.evaluate.results import Results, machine

CORE_METRICS = {
    "recording": "recording",
    "exact": "exact",
    "exact_at_threshold": "exact at threshold",
}
PICTURES = {
    "lengths.png": plot_lengths,
    "cells.png": plot_cells,
    "noise.png": plot_noise,
    "detection.png": plot_detection,
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of words, the first column of which names the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        """With its title as a heading."""
        lines = [
            f"| {' | '.join(self.columns)} |",
            f"|---{'|---:' * (len(self.columns) - 1)}|",
            *(f"| {' | '.join(row)} |" for row in self.rows),
        ]
        return f"## {self.title}\n\n" + "\n".join(lines) + "\n"


def write_report(results: Results, out: Path, command: str) -> list[Path]:
    """Write ``results.json``, ``report.md`` and its pictures; gives their paths."""
    where = machine()
    content = {"command": command, "machine": where, **results.to_dict()}
    paths = [out / "report.md", out / "results.json", *(out / name for name in PICTURES)]
    paths[1].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, plot in PICTURES.items():
        plot(results, out / name)
    parts = [
        "# Fingerprints: evaluation\n",
        _introduction(results, command, where),
        *(table.to_markdown() for table in all_tables(results)),
        _comparison(results),
        "## Pictures\n",
        *(f"![{Path(name).stem}]({name})\n" for name in PICTURES),
    ]
    paths[0].write_text("\n".join(parts), encoding="utf-8")
    return paths


def _introduction(results: Results, command: str, where: dict[str, Any]) -> str:
    facts = results.evaluation.facts
    encoder, settings = facts["encoder"], facts["settings"]
    absent = [q for q in results.evaluation.queries if q.absent]
    peers = (
        ", ".join(f"{name} {v}" for name, v in facts["peers"].items())
        or "none installed or asked for"
    )
    return f"""\
    {command}

- Machine: {where["cpu"]}, {where["cores"]} cores, Python {where["python"]}
- References: {facts["recordings"]:,} recordings, {facts["hours"]:.1f} h, {facts["windows"]:,} \
windows, index {facts["index"]}; {facts["withheld"]} of them are withheld from absent queries
- Queries: {len(results.evaluation.queries) - len(absent):,}, and {len(absent):,} absent ones, of \
which {len(results.present_after_all)} were in the data base after all \
({len(results.present_after_all - results.same_after_all)} in part) and do not count; \
seed {settings["seed"]}; all are in queries.csv
- Encoder: {encoder["name"]} {encoder["sha256"][:12]}, {encoder["precision"]}, threshold \
{encoder["threshold"]}
- Peers: {peers or "none installed or asked for"}

Shares are of the best candidate, whatever its score, unless they are "at threshold"; brackets hold
95 % intervals. What they mean is said in docs/evaluation.md.
"""


def all_tables(results: Results) -> list[Table]:
    """Every table of the report."""
    return [
        core_table(results),
        *(
            cell_table(results, system, metric)
            for system in results.systems
            for metric in ("exact", "recording")
        ),
        cell_table(results, "earmark", "exact_at_threshold"),
        _error_table(results),
        absent_table(results),
        _background_table(results),
        _lost_table(results),
    ]


def core_table(results: Results) -> Table:
    """Means over the core cells, by length."""
    rows = [
        [f"{system}: {title}", *(percent(results.core(system, m, s)) for s in results.lengths)]
        for m, title in CORE_METRICS.items()
        for system in results.systems
    ]
    return Table("Mean over the core cells", ["", *_seconds(results)], rows)


def cell_table(results: Results, system: str, metric: str) -> Table:
    """One share of one system in every cell."""
    rows = [
        [
            CONDITIONS[c].title,
            *(percent(results.cells[system, c, s].shares[metric]) for s in results.lengths),
        ]
        for c in results.conditions
    ]
    title = f"{system}: {metric.replace('_', ' ')}"
    return Table(title, ["condition", *_seconds(results)], rows)


def _error_table(results: Results) -> Table:
    rows = []
    for c in results.conditions:
        errors = (results.cells["earmark", c, s].median_error_s for s in results.lengths)
        shown = ("–" if error is None else f"{1000 * error:.0f}" for error in errors)
        rows.append([CONDITIONS[c].title, *shown])
    return Table("earmark: median time error, ms", ["condition", *_seconds(results)], rows)


def absent_table(results: Results) -> Table:
    """False accepts, and what is kept when there are none."""
    rows = []
    for system in results.systems:
        for name, parts in (
            ("false accepts", False),
            ("the same, and what is there in part", True),
        ):
            lengths = (None, *results.lengths)
            accepts = [results.false_accepts(system, s, parts) for s in lengths]
            rows.append([f"{system}: {name}", *map(percent, accepts)])
        curves = [results.detection(system, s) for s in results.lengths]
        kept = (f"{100 * curve.kept_at(0.0):.1f}" for curve in curves)
        rows.append([f"{system}: exact and above every absent query, %", "", *kept])
        areas = (f"{curve.area:.3f}" for curve in curves)
        rows.append([f"{system}: area under the trade-off", "", *areas])
    return Table("Absent queries", ["", "all", *_seconds(results)], rows)


def _background_table(results: Results) -> Table:
    by_system = {system: results.backgrounds(system) for system in results.systems}
    rows = [
        [kind, str(summary.n), *(percent(by_system[s][kind].shares["exact"]) for s in by_system)]
        for kind, summary in by_system["earmark"].items()
    ]
    columns = ["background", "queries", *(f"{system}: exact" for system in by_system)]
    return Table("By background", columns, rows)


def _lost_table(results: Results) -> Table:
    lost = {seconds: results.lost(seconds) for seconds in results.lengths}
    columns = [
        "length",
        "queries",
        "right recording, wrong place",
        "right recording among the candidates, not the best",
        "not among the candidates",
    ]
    rows = [[f"{s:g} s", *map(str, counts.values())] for s, counts in lost.items()]
    return Table("Where earmark loses queries", columns, rows)


def _comparison(results: Results) -> str:
    heading = "## Worse than a peer\n"
    if len(results.systems) == 1:
        return f"{heading}\nThere was no peer.\n"
    worse = [
        f"- {metric}, {CONDITIONS[condition].title}, {seconds:g} s: {peer} has {percent(theirs)}, "
        f"earmark {percent(mine)}\n"
        for metric, condition, seconds, peer, mine, theirs in results.worse_than_peers()
    ]
    if not worse:
        return f"{heading}\nIn no cell, by recording, exact or near.\n"
    return f"{heading}\n{''.join(worse)}"


def percent(share: Share) -> str:
    """``"97.1 [96.0, 98.0]"``, in percent."""
    if not share.n:
        return "–"
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _seconds(results: Results) -> list[str]:
    return [f"{seconds:g} s" for seconds in results.lengths]
