"""What the tests of deduplication share: pairs made by hand, catalogs of made-up files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from ingest_helpers import small_config

from index.catalog import Catalog, part_name
from index.schema import DuplicateKind, DuplicatePair


def pair(a: str, b: str, kind: str = "same-audio", score: float = 0.9, **changes: Any) -> Any:
    """A pair of files; a file ``name#2`` has the bytes of ``name``."""
    a, b = sorted((a, b))
    values: dict[str, Any] = {
        "a_id": a.split("#")[0],
        "b_id": b.split("#")[0],
        "a_start_s": 0.0,
        "a_end_s": 10.0,
        "b_start_s": 0.0,
        "b_end_s": 10.0,
        "speed": 1.0,
        "coverage": 1.0,
        "reason": "made by hand",
        **changes,
    }
    return DuplicatePair(a=a, b=b, kind=DuplicateKind(kind), score=score, **values)


def links(*ends: str, **kwargs: Any) -> list[DuplicatePair]:
    """Pairs from words of two letters: ``links("ab", "bc")``."""
    return [pair(*end, **kwargs) for end in ends]


def catalog_of(path: Path, files: Iterable[str | Mapping[str, Any]]) -> Catalog:
    """A catalog of files that need not exist: uris, or rows; each is 10 s and 1000 bytes."""
    catalog = Catalog.create(path, small_config())
    defaults = {
        "n_bytes": 1000,
        "modified_ns": 1,
        "container": "wav",
        "codec": "pcm_16",
        "sample_rate": 16_000,
        "channels": 1,
        "seconds_decoded": 10.0,
        "n_windows": 0,
        "status": "ok",
    }
    rows = []
    for file in files:
        row = {"uri": file} if isinstance(file, str) else dict(file)
        row.setdefault("recording_id", row["uri"].split("#")[0])
        labels = row.pop("labels", {})
        rows.append({**defaults, **row, "labels": list(labels.items())})
    schema = catalog.config.recordings_schema
    with catalog.part_writer() as writer:
        name = part_name(catalog.next_run(), catalog.config, [row["uri"] for row in rows])
        writer.commit(name, pa.Table.from_pylist(rows, schema=schema))
    return catalog
