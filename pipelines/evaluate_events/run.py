"""All parts in their order, and the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from encoders.bundle import load_bundle
from encoders.corpus import read_corpus
from pipelines.evaluate.results import machine
from pipelines.evaluate_events.detection import evaluate_detection, missing_libraries
from pipelines.evaluate_events.few_shot import evaluate_few_shot
from pipelines.evaluate_events.parts import Context, Evaluate, Options, Part
from pipelines.evaluate_events.retrieval import evaluate_retrieval

PARTS: dict[str, Evaluate] = {
    "retrieval": evaluate_retrieval,
    "few-shot": evaluate_few_shot,
    "detection": evaluate_detection,
}
"""What is evaluated, by name, in the order of the report."""


def parts_at_hand() -> list[str]:
    """The parts whose libraries are installed."""
    return [name for name in PARTS if name != "detection" or not missing_libraries()]


def evaluate(options: Options) -> dict[str, Part]:
    """Run the chosen parts.

    Raises
    ------
    EarmarkError
        If the corpus has no labelled events in the split.
    """
    context = Context(options, read_corpus(options.corpus))
    return {name: part(context) for name, part in PARTS.items() if name in options.parts}


def write_report(parts: dict[str, Part], options: Options, command: str) -> list[Path]:
    """Write ``report.md`` and ``results.json`` to ``options.out``; gives all paths."""
    bundle = load_bundle(options.bundles.event, options.bundles.precision)
    where = machine()
    content = {
        "command": command,
        "machine": where,
        "encoder": {"name": bundle.name, "sha256": bundle.sha256, **_settings(options)},
        **{name: part.figures for name, part in parts.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    report, results = options.out / "report.md", options.out / "results.json"
    results.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    pictures = [picture for part in parts.values() for picture in part.pictures]
    lines = [
        "# Sound events: evaluation\n",
        f"    {command}\n",
        f"- Machine: {where['cpu']}, {where['cores']} cores, Python {where['python']}",
        f"- Event encoder: {bundle.name} {bundle.sha256[:12]}, {bundle.precision}\n",
        *(table.to_markdown() for part in parts.values() for table in part.tables),
        *(f"![{picture.stem}]({picture.name})\n" for picture in pictures),
    ]
    report.write_text("\n".join(lines), encoding="utf-8")
    return [report, results, *pictures]


def _settings(options: Options) -> dict[str, object]:
    settings = dataclasses.asdict(options)
    return {name: settings[name] for name in ("split", "gallery", "seed")} | {
        "precision": options.bundles.precision
    }
