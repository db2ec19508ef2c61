"""What the parts of a catalog say of its inputs.

To open a part costs more than to read it. So an index keeps what it has read, with the size and
the time of change of each part, and only parts that are new since are opened when it is brought up
to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from encoders.errors import CatalogError
from index.schema import INPUTS, RECORDINGS, Status

_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class Inputs(NamedTuple):
    """Every row of every part, in the order of the parts.

    Attributes
    ----------
    table : pa.Table
        ``index.schema.INPUTS``.
    read : pa.Table
        Those of its rows that were not known before.
    all_known_stay : bool
        Whether the others are all that was known.
    """

    table: pa.Table
    read: pa.Table
    all_known_stay: bool


def read_inputs(folder: Path, names: Sequence[str], known: pa.Table | None = None) -> Inputs:
    """Read what parts say of their inputs, as far as it is not known.

    Parameters
    ----------
    folder : Path
        That of the recordings parts.
    names : sequence of str
        Of all parts, in order.
    known : pa.Table, optional
        ``index.schema.INPUTS``, from an earlier call.

    Raises
    ------
    CatalogError
        If a part that must be read is damaged.
    """
    known = INPUTS.empty_table() if known is None else known
    stats = [(folder / name).stat() for name in names]
    stamps = np.array([(s.st_size, s.st_mtime_ns) for s in stats], np.int64).reshape(-1, 2)
    part = _numbers(known["part"], names)
    of_part = stamps[part] if len(names) else np.zeros((len(part), 2), np.int64)
    same = (part >= 0) & (of_part[:, 0] == known["part_bytes"].to_numpy())
    same &= of_part[:, 1] == known["part_changed_ns"].to_numpy()
    unread = np.setdiff1d(np.arange(len(names)), part[same])
    columns = [name for name in INPUTS.names if name in RECORDINGS.names]
    rows = read_parts(folder, [names[number] for number in unread], columns)
    number = unread[rows["part"].to_numpy()]
    stamped = {
        "part": pa.array(list(names), pa.string()).take(pa.array(number)),
        "part_bytes": stamps[number, 0],
        "part_changed_ns": stamps[number, 1],
    }
    read = pa.table({**stamped, **{name: rows[name] for name in columns}}, schema=INPUTS)
    table, numbers = pa.concat_tables([known.filter(same), read]), np.append(part[same], number)
    if np.any(np.diff(numbers) < 0):
        table = table.take(np.argsort(numbers, kind="stable"))
    return Inputs(table, read, bool(same.all()))


def read_parts(folder: Path, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Read recordings parts.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        Of the parts.
    columns : sequence of str
        Of ``index.schema.RECORDINGS``.

    Returns
    -------
    rows : pa.Table
        In the order of the parts; and part, its number among them.

    Raises
    ------
    CatalogError
        If one is missing or damaged.
    """
    if not names:
        empty = RECORDINGS.empty_table().select(list(columns))
        return empty.append_column("part", pa.array([], pa.int32()))
    files = [str(folder / name) for name in names]
    try:
        dataset = ds.dataset(files, RECORDINGS, _PARQUET, filesystem=pa.fs.LocalFileSystem())
        table = dataset.to_table([*columns, "__filename"])
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{folder} is damaged: {error}") from None
    part = _numbers(table["__filename"], files).astype(np.int32)
    return table.select(list(columns)).append_column("part", pa.array(part))


def latest(uris: pa.ChunkedArray) -> np.ndarray:
    """Whether no later row is of the same input [shape=(n,), dtype=bool]."""
    code, place = _codes(uris), np.arange(len(uris))
    last = np.zeros(len(uris), int)
    last[code] = place
    return last[code] == place


def to_index(inputs: pa.Table) -> pa.Table:
    """What is to be in an index: see :meth:`index.catalog.Catalog.indexed_recordings`.

    Parameters
    ----------
    inputs : pa.Table
        ``index.schema.INPUTS``, all of them.
    """
    n = inputs["n_windows"].to_numpy()
    first = np.cumsum(n) - n
    begins = np.flatnonzero(np.diff(_codes(inputs["part"]), prepend=-1))
    in_part = first - np.repeat(first[begins], np.diff(np.append(begins, len(n))))
    failed = pc.equal(inputs["status"], Status.FAILED.value).to_numpy()
    usable = np.flatnonzero(latest(inputs["uri"]) & ~failed & (n > 0))
    by_uri = usable[pc.sort_indices(inputs["uri"].take(usable)).to_numpy()]
    _, firsts = np.unique(_codes(inputs["recording_id"].take(by_uri)), return_index=True)
    chosen = np.sort(by_uri[firsts])
    columns = ["recording_id", "uri", "seconds_decoded", "n_windows", "labels", "part"]
    table = inputs.select(columns).take(chosen)
    table = table.rename_columns([name.replace("_decoded", "") for name in columns])
    return table.append_column("first_window", pa.array(in_part[chosen]))


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    # The same number for the same value; the first value has the first number.
    return pc.dictionary_encode(values.combine_chunks()).indices.to_numpy()


def _numbers(values: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    # The place of each value among the names; -1 if it is none of them.
    encoded = pc.dictionary_encode(values.combine_chunks())
    places = {name: place for place, name in enumerate(names)}
    of_value = [places.get(value, -1) for value in encoded.dictionary.to_pylist()]
    return np.array(of_value, int)[encoded.indices.to_numpy()]
