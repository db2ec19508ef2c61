"""Further embedding columns of a catalog, beside its windows.

::

    CATALOG/columns/<name>/part-*.parquet    one row for every window of the windows part of the
                                             same name, in the same order

Which columns there are, and which encoder made each, stands in ``catalog.json``. A column can be
added long after the windows were written, so a part of it may be missing, or a row of it zero
where the sound could not be read again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import CatalogError
from index.catalog import Catalog
from index.config import EncoderInfo
from index.windows import read_spans

FOLDER = "columns"

BASE = {"fingerprint": "fingerprint", "latent": "latent", "vae": "latent"}
"""Columns that stand in the windows themselves, by each name that they go by.

A catalog that was made without latents has none there; added later, they are a further column.
"""

_ABOUT_WINDOWS = ("recording_id", "start_sample", "peak_db")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def stored_columns(catalog: Catalog) -> dict[str, EncoderInfo]:
    """Every embedding column of a catalog, and the encoder that made it.

    Parameters
    ----------
    catalog : Catalog

    Returns
    -------
    columns : dict of EncoderInfo
        ``"fingerprint"``, ``"latent"`` (also addressed as ``"vae"``) if it is stored, then further
        ones such as ``"event"``.
    """
    config = catalog.config
    base = {"fingerprint": config.fingerprint}
    if config.latent is not None:
        base["latent"] = config.latent
    return {**base, **config.columns}


def find_column(catalog: Catalog, column: str) -> tuple[str, EncoderInfo]:
    """The stored name of a column and its encoder.

    Raises
    ------
    CatalogError
        If the catalog has no such column.
    """
    columns = stored_columns(catalog)
    name = BASE.get(column, column)
    if name not in columns:
        raise CatalogError(
            f"{catalog.path} has no column {column!r}, only {', '.join(columns)}; "
            f"add it with 'earmark ingest --encoders {column} --catalog {catalog.path}'"
        )
    return name, columns[name]


def iter_embeddings(
    catalog: Catalog,
    column: str,
    batch_size: int = 4096,
    recordings: pa.Table | None = None,
    mfcc: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Embeddings of the windows of ``catalog.indexed_recordings()``.

    Parameters
    ----------
    catalog : Catalog
    column : str
        A name in :func:`stored_columns`, or ``"vae"``.
    batch_size : int
        Rows in memory at a time, and at most in a batch.
    recordings : pa.Table, optional
        Only of these rows of it, in its order. [default: of all]
    mfcc : bool
        Whether the MFCC summaries are wanted too.

    Yields
    ------
    batch : pa.RecordBatch
        recording_id, start_sample, peak_db, perhaps mfcc, and ``embedding``, FixedSizeList[dim] of
        float32, in the order of ``catalog.iter_windows()``. A window whose file was gone when the
        column was added has an embedding of zeros, which is similar to nothing.

    Raises
    ------
    CatalogError
        If the catalog has no such column, or a part of it is missing or damaged.
    """
    name, _ = find_column(catalog, column)
    for part, spans in catalog.window_spans(recordings):
        yield from read_part(catalog, name, part, spans, batch_size, mfcc)


def read_part(
    catalog: Catalog,
    name: str,
    part: str,
    spans: list[tuple[int, int]],
    batch_size: int = 4096,
    mfcc: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Embeddings of the windows in one part, as :func:`iter_embeddings` gives them.

    Parameters
    ----------
    catalog : Catalog
    name : str
        From :func:`find_column`.
    part : str
    spans : list of (int, int)
        Its rows that count, from ``catalog.window_spans()``.
    batch_size : int
        Rows in memory at a time, and at most in a batch.
    mfcc : bool
        Whether the MFCC summaries are wanted too.
    """
    config, windows = catalog.config, catalog.path / "windows" / part
    about = [*_ABOUT_WINDOWS, "mfcc"] if mfcc else list(_ABOUT_WINDOWS)
    if name not in config.columns:
        for batch in read_spans(windows, spans, [*about, name], batch_size, config.windows_schema):
            yield batch.rename_columns([*about, "embedding"])
        return
    path = catalog.path / FOLDER / name / part
    if not path.exists():
        raise CatalogError(
            f"column {name!r} of {catalog.path} is incomplete: complete it with "
            f"'earmark ingest --encoders {name} --catalog {catalog.path}'"
        )
    left_rows = read_spans(windows, spans, about, batch_size, config.windows_schema)
    vectors = read_spans(path, spans, ["embedding"], batch_size, config.column_schema(name))
    for left, right in side_by_side(left_rows, vectors):
        yield pa.RecordBatch.from_arrays([*left.columns, *right.columns], [*about, "embedding"])


def missing_parts(catalog: Catalog, name: str) -> list[str]:
    """Parts of a catalog whose windows have no such embeddings yet."""
    there = {path.name for path in (catalog.path / FOLDER / name).glob("part-*.parquet")}
    return [part for part in catalog.parts() if part not in there]


def count_unread(catalog: Catalog, name: str, part: str) -> np.ndarray:
    """Windows without such an embedding, of each recording of a part that has the column.

    Returns
    -------
    n_unread : np.ndarray [shape=(n_rows,), dtype=int]
        In the order of :func:`part_recordings`.
    """
    path = catalog.path / FOLDER / name / part
    vectors = _read(path, ["embedding"])["embedding"].combine_chunks()
    n_windows = part_recordings(catalog, part)["n_windows"].to_numpy()
    ends = np.cumsum(n_windows)
    if len(vectors) != n_windows.sum():
        raise CatalogError(f"{path} is damaged: it does not have a row for every window")
    values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    before = np.concatenate([[0], np.cumsum(~values.any(axis=1))])
    return before[ends] - before[ends - n_windows]


def part_recordings(catalog: Catalog, part: str) -> pa.Table:
    """Rows of a recordings part (uri, recording_id, n_windows), in the order of its windows."""
    return _read(catalog.path / "recordings" / part, ["uri", "recording_id", "n_windows"])


def add_columns(catalog: Catalog, columns: dict[str, EncoderInfo]) -> Catalog:
    """Announce further columns. Only under ``catalog.writer_lock()``.

    Columns that are there already, made by the same encoder, stay as they are.

    Returns
    -------
    catalog : Catalog
        The same one, with the columns; their parts are all missing as yet.

    Raises
    ------
    CatalogError
        If a name cannot be one, or a column of that name was made by another encoder.
    """
    for name, info in columns.items():
        if name != "latent" or catalog.config.latent is not None:
            check_name(name)
        known = catalog.config.columns.get(name, info)
        if (known.sha256, known.precision) != (info.sha256, info.precision):
            raise CatalogError(
                f"column {name!r} of {catalog.path} was made by {known.name} "
                f"({known.sha256[:12]}, {known.precision}), not {info.name} "
                f"({info.sha256[:12]}, {info.precision}): use that one, or another name"
            )
    new = {name: info for name, info in columns.items() if name not in catalog.config.columns}
    if not new:
        return catalog
    config = dataclasses.replace(catalog.config, columns={**catalog.config.columns, **new})
    return catalog.with_config(config)


def check_name(name: str) -> None:
    """Refuse what cannot name a further column, which is also a folder."""
    if not _NAME.fullmatch(name) or name in BASE:
        raise CatalogError(
            f"{name!r} cannot name a further column: use small letters, digits, - and _, and "
            f"not {', '.join(BASE)}"
        )


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{path} is damaged: {error}") from None


def side_by_side(*streams: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, ...]]:
    """Batches of the same rows from several files, whose row groups may be cut differently."""
    left: list[pa.RecordBatch | None] = [None] * len(streams)
    while True:
        for i, stream in enumerate(streams):
            batch = left[i]
            left[i] = batch if batch is not None and batch.num_rows else next(stream, None)
        here = [batch for batch in left if batch is not None]
        if len(here) < len(streams):
            return
        n = min(batch.num_rows for batch in here)
        yield tuple(batch.slice(0, n) for batch in here)
        left = [batch.slice(n) for batch in here]
