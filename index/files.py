"""The files of one or several catalogs, the two groups of them that are compared, equal bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import CatalogError
from index.catalog import Catalog
from index.schema import (
    UNPAIRED,
    DuplicateKind,
    DuplicatePair,
    Status,
    UnpairedClass,
)

FILES = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("recording_id", pa.string()),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("sample_rate", pa.int64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        # Whether it is of the first and of the second group; of both when there are no groups.
        pa.field("in_a", pa.bool_(), nullable=False),
        pa.field("in_b", pa.bool_(), nullable=False),
    ]
)
"""A line for every file, sorted by uri; a file that is in two catalogs has one."""

_COLUMNS = ["uri", "recording_id", "seconds_decoded", "sample_rate", "status", "error", "labels"]
# Different labels that an error message lists.
_SHOWN_LABELS = 8


def read_files(catalogs: Sequence[Catalog], between: tuple[str, str] | None = None) -> pa.Table:
    """The files of the catalogs, and the group that each is of.

    Parameters
    ----------
    catalogs : sequence of Catalog
    between : (str, str), optional
        Two groups: each the folder of one of the catalogs, a label as ``"key=value"``, or the
        value of any label. Files of neither group are left out.

    Returns
    -------
    files : pa.Table
        Of schema ``FILES``.

    Raises
    ------
    CatalogError
        If a group has no file.
    """
    tables = []
    seen: set[str] = set()
    for catalog in catalogs:
        table = catalog.recordings(_COLUMNS)
        labels = table["labels"].to_pylist() if between else []
        seen.update(f"{key}={value}" for row in labels for key, value in row or ())
        sides = [np.ones(table.num_rows, bool)] * 2
        if between:
            sides = [_members(name, catalog, labels) for name in between]
        columns = [*(table[name] for name in _COLUMNS[:-1]), *map(pa.array, sides)]
        tables.append(pa.table(columns, names=FILES.names))
    files = pa.concat_tables(tables) if tables else FILES.empty_table()
    for name, side in zip(between or (), ("in_a", "in_b"), strict=False):
        if not pc.any(files[side]).as_py():
            shown = ", ".join(sorted(seen)[:_SHOWN_LABELS]) or "none"
            raise CatalogError(
                f"no file is of the group {name!r}: name one of the catalogs, or a label "
                f"(labels there are: {shown})"
            )
    keys = ["uri", "recording_id"]
    others = [name for name in FILES.names if name not in keys]
    merged = files.group_by(keys, use_threads=False).aggregate(
        [(name, "max" if name.startswith("in_") else "first") for name in others]
    )
    columns = [
        merged[name if name in keys else f"{name}_{'max' if name[:3] == 'in_' else 'first'}"]
        for name in FILES.names
    ]
    files = pa.table(columns, schema=FILES)
    return files.filter(pc.or_(files["in_a"], files["in_b"])).sort_by("uri")


def _members(name: str, catalog: Catalog, labels: list[list[tuple[str, str]] | None]) -> np.ndarray:
    if Path(name).resolve() == catalog.path.resolve():
        return np.ones(len(labels), bool)
    members = [any(name in (v, f"{k}={v}") for k, v in row or ()) for row in labels]
    return np.array(members, bool)


def identical_pairs(files: pa.Table, grouped: bool) -> Iterator[DuplicatePair]:
    """Files with the same bytes, whether or not they can be decoded.

    Parameters
    ----------
    files : pa.Table
        Of schema ``FILES``.
    grouped : bool
        Whether two groups are compared.
    """
    known = files.filter(pc.is_valid(files["recording_id"]))
    ids = known["recording_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    changes = 1 + np.flatnonzero(ids[order][1:] != ids[order][:-1])
    for group in np.split(order, changes):
        if len(group) == 0 or (len(group) == 1 and not grouped):
            continue
        rows = known.take(group).to_pylist()
        first = [row["uri"] for row in rows if row["in_a"]]
        second = [row["uri"] for row in rows if row["in_b"]] if grouped else None
        for a, b in paired(first, second):
            seconds, recording_id = rows[0]["seconds"], rows[0]["recording_id"]
            yield DuplicatePair(
                a=a, b=b, a_id=recording_id, b_id=recording_id, kind=DuplicateKind.IDENTICAL,
                score=1.0, a_start_s=0.0, a_end_s=seconds, b_start_s=0.0, b_end_s=seconds,
                speed=1.0, coverage=1.0, reason="the same bytes (blake2b)",
            )  # fmt: skip


def paired(first: Sequence[str], second: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Pairs that name every file of one group, or of two, as few as that takes.

    >>> paired(["a", "b", "c"])
    [('a', 'b'), ('a', 'c')]
    >>> paired(["a", "b"], ["x", "y"])
    [('a', 'x'), ('a', 'y'), ('b', 'x')]

    Parameters
    ----------
    first, second : sequence of str
        Sorted uris.
    """
    if second is None:
        return [(first[0], other) for other in first[1:]]
    if not first or not second:
        return []
    pairs = {(first[0], other) for other in second} | {(other, second[0]) for other in first}
    return sorted(pairs)


def unpaired_files(files: pa.Table) -> pa.Table:
    """Files that gave no sound to compare: they failed, or are silent.

    Returns
    -------
    unpaired : pa.Table
        Of schema ``index.schema.UNPAIRED``.
    """
    rows = []
    for row in files.select(["uri", "status", "error"]).to_pylist():
        error = row["error"] or ""
        if row["status"] == Status.FAILED.value:
            rows.append((row["uri"], UnpairedClass.FAILED.value, error))
        elif error.startswith("silent:"):
            rows.append((row["uri"], UnpairedClass.SILENT.value, error.removeprefix("silent: ")))
    return pa.Table.from_pylist(
        [dict(zip(UNPAIRED.names, row, strict=True)) for row in rows], schema=UNPAIRED
    )
