"""What a run of deduplication writes for other programs: pairs, clusters, lists to keep and drop.

``pairs`` and ``clusters`` are always there as JSON lines and as Parquet; tools depend on both.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.schema import CLUSTERS, PAIRS, UNPAIRED, DuplicatePair
from index.storage import write_atomically
from pipelines.dedup.results import Results

FORMATS = ("jsonl", "csv", "parquet")
SUMMARY_FILE = "summary.json"
PAIRS_FILE = "pairs.parquet"
_ROWS_AT_ONCE = 1 << 14

_PAIR_FIELDS = (
    "a", "b", "kind", "score", "a_start_s", "a_end_s", "b_start_s", "b_end_s", "speed",
)  # fmt: skip

_KEEP = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        # Null when it has no copy.
        pa.field("cluster_id", pa.string()),
        pa.field("why", pa.string()),
    ]
)
_DROP = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("keep", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("n_bytes", pa.int64(), nullable=False),
    ]
)
_CONFLICTS = pa.schema(
    [
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
    ]
)


def pair_line(pair: DuplicatePair) -> dict[str, Any]:
    """A pair as the JSON-lines contract wants it."""
    row = pair.to_dict()
    return {name: row[name] for name in _PAIR_FIELDS}


def write_lists(results: Results, out: Path, list_format: str = "jsonl") -> list[Path]:
    """Write everything but the report to a folder.

    Parameters
    ----------
    results : Results
    out : Path
    list_format : str
        Of the lists keep, drop, conflicts, cut and unpaired; with ``"csv"``, pairs and clusters
        are written as CSV too.

    Returns
    -------
    paths : list of Path
        The summary last.
    """
    clusters = [choice.cluster.to_dict() for choice in results.choices]
    paths = [
        _write(out / "pairs.jsonl", map(pair_line, results.pairs), PAIRS),
        _write(out / PAIRS_FILE, map(DuplicatePair.to_dict, results.pairs), PAIRS),
        _write(out / "clusters.jsonl", clusters, CLUSTERS),
        _write(out / "clusters.parquet", clusters, CLUSTERS),
    ]
    if list_format == "csv":
        members = [{**row, "members": json.dumps(row["members"])} for row in clusters]
        pairs = map(DuplicatePair.to_dict, results.pairs)
        paths.append(_write(out / "pairs.csv", pairs, PAIRS))
        paths.append(_write(out / "clusters.csv", members, CLUSTERS))
    lists: list[tuple[str, list[Mapping[str, Any]], pa.Schema]] = [
        ("keep", _keep(results), _KEEP),
        ("drop", _drop(results), _DROP),
        ("conflicts", _conflicts(results), _CONFLICTS),
        ("cut", [pair.to_dict() for pair in results.cut], PAIRS),
        ("unpaired", list(results.unpaired), UNPAIRED),
    ]
    for name, rows, schema in lists:
        paths.append(_write(out / f"{name}.{list_format}", rows, schema))
        for other in FORMATS:  # Of an earlier run.
            if other != list_format:
                (out / f"{name}.{other}").unlink(missing_ok=True)
    with write_atomically(out / SUMMARY_FILE) as file:
        file.write((json.dumps(results.summary(), indent=1) + "\n").encode())
    return [*paths, out / SUMMARY_FILE]


def _keep(results: Results) -> list[Mapping[str, Any]]:
    kept = {choice.cluster.keep: choice for choice in results.choices}
    gone = {uri for choice in results.choices for uri in choice.drop}
    failed = {row["uri"] for row in results.unpaired if row["class"] == "failed"}
    rows: list[Mapping[str, Any]] = []
    for uri in sorted(results.facts.keys() - gone - failed):
        choice = kept.get(uri)
        rows.append(
            {
                "uri": uri,
                "cluster_id": choice.cluster.cluster_id if choice else None,
                "why": choice.why if choice else None,
            }
        )
    return rows


def _drop(results: Results) -> list[Mapping[str, Any]]:
    return [
        {
            "uri": uri,
            "keep": choice.cluster.keep,
            "cluster_id": choice.cluster.cluster_id,
            "seconds": round(results.facts[uri].seconds, 3),
            "n_bytes": results.facts[uri].n_bytes,
        }
        for choice in results.choices
        for uri in choice.drop
    ]


def _conflicts(results: Results) -> list[Mapping[str, Any]]:
    return [
        {"cluster_id": row["cluster_id"], "label": row["label"], "value": value, "uri": uri}
        for row in results.conflicts
        for value, uris in row["values"].items()
        for uri in uris
    ]


def _write(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Path:
    with write_atomically(path) as file:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for some in _batches(rows):
                    writer.write_table(pa.Table.from_pylist([dict(r) for r in some], schema))
        elif path.suffix == ".csv":
            text = io.TextIOWrapper(file, "utf-8", "surrogatepass", newline="")
            lines = csv.DictWriter(text, schema.names)
            lines.writeheader()
            lines.writerows(rows)
            text.detach()
        else:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")
    return path


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    # Of millions of rows not all at a time are in memory.
    iterator = iter(rows)
    while some := list(itertools.islice(iterator, _ROWS_AT_ONCE)):
        yield some
