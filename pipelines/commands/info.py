"""``earmark info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.output import format_bytes, format_option, print_facts, print_jsonl

if TYPE_CHECKING:
    from index.catalog import Catalog


@click.command("info")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@format_option
def command(catalog_dir: Path, output_format: str) -> None:
    """Show what the catalog in DIR holds.

    \b
    Examples:
      earmark info my-catalog
      earmark info my-catalog --format jsonl | jq .windows
    """
    from index.catalog import Catalog

    facts = describe(Catalog.open(catalog_dir))
    if output_format == "jsonl":
        print_jsonl([facts])
    else:
        print_facts(_in_words(facts), str(catalog_dir))


def describe(catalog: Catalog) -> dict[str, Any]:
    """Counts, sizes and settings of a catalog, ready for JSON."""
    from index.schema import Status

    rows = catalog.recordings(["status", "seconds_decoded", "n_windows"])
    states = rows["status"].to_pylist()
    indexed = catalog.indexed_recordings()
    config = catalog.config.to_dict()
    return {
        "catalog": str(catalog.path),
        "format_version": config["format_version"],
        "inputs": rows.num_rows,
        **{status.value: states.count(status.value) for status in Status},
        "recordings": indexed.num_rows,
        "seconds": sum(rows["seconds_decoded"].to_pylist()),
        "windows": sum(rows["n_windows"].to_pylist()),
        "parts": len(catalog.parts()),
        "bytes": catalog.n_bytes(),
        "index": _describe_index(catalog),
        "encoders": {**config["encoders"], **config.get("columns", {})},
        "spec": config["spec"],
        "keep_mfcc": config["keep_mfcc"],
    }


def _describe_index(catalog: Catalog) -> dict[str, Any] | None:
    from index.generation import read_info

    generation = catalog.current_generation()
    if generation is None:
        return None
    info = read_info(generation)
    return {
        "generation": generation.name,
        "factory": info.factory,
        "chosen": "by size" if info.by_size else "by hand",
        "n_rows": info.n_rows,
        "n_recordings": info.n_recordings,
        "n_removed_rows": info.n_vectors - info.n_rows,
        "segments": len(info.segments),
        "recall": info.recall,
        "bytes_per_window": info.bytes_per_window,
        "bytes": sum(p.stat().st_size for p in generation.iterdir()),
        "encoder_sha256": info.encoder_sha256,
        "up_to_date": catalog.index_is_current(),
    }


def _in_words(facts: dict[str, Any]) -> dict[str, str]:
    from pipelines.progress import format_hours

    spec, index = facts["spec"], facts["index"]
    words = {
        "Inputs": f"{facts['inputs']:,}: {facts['ok']:,} ok, {facts['partial']:,} partial, "
        f"{facts['failed']:,} failed"
        + (f", {facts['removed']:,} removed" if facts["removed"] else ""),
        "Recordings": f"{facts['recordings']:,} different, {format_hours(facts['seconds'])} in all",
        "Windows": f"{facts['windows']:,} in {facts['parts']:,} parts",
        "Size": format_bytes(facts["bytes"]),
        "Index": "none; run 'earmark index' to build it",
    }
    if index is not None:
        state = "" if index["up_to_date"] else ", older than the catalog: run 'earmark index'"
        words["Index"] = (
            f"{index['factory']}, {format_bytes(index['bytes'])}, {index['generation']}{state}"
        )
        words["Search"] = (
            f"{index['bytes_per_window']:.0f} bytes a window in {max(1, index['segments'])} "
            f"pieces, finds {index['recall']:.0%} of what comparing everything does"
        )
    for role, encoder in facts["encoders"].items():
        words[role.capitalize()] = (
            f"{encoder['name']} {encoder['sha256'][:12]}, {encoder['precision']}, "
            f"{encoder['dim']} dimensions"
        )
    length, hop = (spec[key] / spec["sample_rate"] for key in ("window_length", "window_hop"))
    words["Features"] = (
        f"{spec['sample_rate']} Hz, {spec['n_mels']} mel bands of {spec['fmin']:.0f} to "
        f"{spec['fmax']:.0f} Hz, windows of {length:g} s every {hop:g} s"
    )
    words["MFCCs"] = f"{spec['n_mfcc']}, {facts['keep_mfcc']}"
    return words
