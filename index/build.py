"""Parquet to FAISS: the fingerprints of a catalog as one index generation.

Row numbers are those of the row store, ``vectors.f16``; the windows of a recording follow each
other. ``index.generation`` says what a generation consists of, ``index.policy`` which kind of index
it is, ``index.update`` how it follows the catalog without being built again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from encoders.errors import CatalogError, EarmarkError
from encoders.features import SILENCE_DB
from index import policy
from index.catalog import Catalog
from index.centroids import find_centroids, quick_assignment
from index.generation import (
    TRAINED,
    GenerationInfo,
    Segment,
    write_info,
    write_table,
)
from index.inputs import to_index
from index.lists import write_lists
from index.nearest import open_nearest, sounding
from index.policy import IndexKind
from index.row_store import RowWriter, map_vectors
from index.schema import ROWS
from index.verify import recall_against_exact, require_recall, similarity_of_strangers

_TRAINING_VECTORS_PER_LIST = 64
_CHUNK = 65_536

Progress = Callable[[str, int, int], None]
"""``progress(what is being done, done, in all)``."""


def build_index(
    catalog: Catalog, progress: Progress | None = None, factory: str | None = None
) -> GenerationInfo:
    """Build the index of all current recordings and publish it as the live generation.

    Call it under ``catalog.writer_lock()``. Memory is bounded by the size of the FAISS index, and
    the training sample: 64 vectors for each inverted list.

    Parameters
    ----------
    catalog : Catalog
    progress : callable, optional
    factory : str, optional
        FAISS factory string, see :func:`index.policy.from_factory`; it is kept when the catalog
        grows. [default: chosen by size]

    Raises
    ------
    CatalogError
        If a part of the catalog is damaged, or the finished index finds too little; the live
        generation stays.
    """
    chosen = policy.from_factory(factory) if factory is not None else None
    inputs = catalog.inputs().table
    recordings = to_index(inputs)
    with catalog.new_generation() as folder:
        write_table(inputs, folder / "inputs-1.parquet")
        with RowWriter(folder, catalog.config.fingerprint.dim, catalog.config.sign_shape) as writer:
            copy_rows(catalog, writer, recordings, progress)
        encoder, rows = catalog.config.fingerprint.sha256, row_table(recordings)
        return index_rows(folder, writer, rows, encoder, chosen, progress)


def index_rows(
    folder: Path,
    written: RowWriter,
    rows: pa.Table,
    encoder_sha256: str,
    chosen: IndexKind | None = None,
    progress: Progress | None = None,
) -> GenerationInfo:
    """Make a row store a generation: train, add every row, check against exact search.

    Parameters
    ----------
    folder : Path
    written : RowWriter
        That has written the row store there.
    rows : pa.Table
        ``index.schema.ROWS`` that cover it.
    encoder_sha256 : str
        Of what made it.
    chosen : IndexKind, optional
        [default: by size]
    progress : callable, optional

    Raises
    ------
    CatalogError
        If the index finds too little.
    """
    kind = chosen or policy.choose(written.n_sounding, written.dim)
    info = GenerationInfo(
        encoder_sha256=encoder_sha256,
        kind=kind,
        by_size=chosen is None,
        dim=written.dim,
        sign_shape=written.sign_shape,
        n_rows=written.n_vectors,
        n_recordings=rows.num_rows,
        n_vectors=written.n_vectors,
        n_sounding=written.n_sounding,
        n_at_build=written.n_sounding,
        recall=1.0,
        row_tables=("rows-1.parquet",),
        segments=(),
        files=written.files,
    )
    write_table(rows, folder / info.row_tables[0])
    vectors, every_row = map_vectors(folder, info), np.arange(info.n_rows)
    if not kind.is_flat:
        index = _train(vectors, info.n_sounding, kind, progress)
        faiss.write_index(index, str(folder / TRAINED))
        add_rows(index, vectors, every_row, progress)
        segment = write_segment(folder, "lists-1.bin", index, info.n_rows)
        del index
        info = dataclasses.replace(info, segments=(segment,))
    nearest = open_nearest(folder, info, vectors, every_row)
    if info.segments:
        strangers = similarity_of_strangers(nearest, vectors, rows)
        info = dataclasses.replace(info, strangers=strangers)
        nearest = open_nearest(folder, info, vectors, every_row)
    recall = recall_against_exact(nearest, vectors, every_row)
    info = dataclasses.replace(info, recall=require_recall(recall, kind.factory))
    write_info(folder, info)
    return info


def row_table(recordings: pa.Table, first_row: int = 0) -> pa.Table:
    """``index.schema.ROWS`` of recordings whose windows stand in that order from a row on.

    Parameters
    ----------
    recordings : pa.Table
        As :meth:`Catalog.indexed_recordings` gives them.
    first_row : int
    """
    counts = recordings["n_windows"].to_numpy()
    columns: dict[str, Any] = {
        "recording_id": recordings["recording_id"],
        "uri": recordings["uri"],
        "seconds": recordings["seconds"],
        "first_row": first_row + np.cumsum(counts) - counts,
        "n_rows": counts,
        "labels": recordings["labels"],
    }
    return pa.table(columns, schema=ROWS)


def copy_rows(
    catalog: Catalog, writer: RowWriter, recordings: pa.Table, progress: Progress | None
) -> None:
    """Append the fingerprints and signs of recordings to a row store.

    Parameters
    ----------
    catalog : Catalog
    writer : RowWriter
    recordings : pa.Table
        Rows of :meth:`Catalog.indexed_recordings`, in its order.
    progress : callable or None
    """
    begin, n_rows = writer.n_vectors, int(recordings["n_windows"].to_numpy().sum())
    columns = ["fingerprint", "signs", "peak_db"]
    for batch in catalog.iter_windows(columns, recordings=recordings):
        fingerprints = batch["fingerprint"].flatten().to_numpy().reshape(batch.num_rows, -1).copy()
        # A zero vector is near nothing: silence is never what was found.
        fingerprints[batch["peak_db"].to_numpy() < SILENCE_DB] = 0.0
        signs = batch["signs"].flatten().to_numpy()
        writer.append(fingerprints, signs.reshape(batch.num_rows, *writer.sign_shape))
        if progress:
            progress("Reading windows", writer.n_vectors - begin, n_rows)
    if writer.n_vectors - begin != n_rows:
        raise CatalogError(
            f"{catalog.path} is damaged: {writer.n_vectors - begin:,} windows where its recordings "
            f"have {n_rows:,}"
        )


def add_rows(
    index: Any, vectors: np.ndarray, rows: np.ndarray, progress: Progress | None = None
) -> None:
    """Add rows of a row store to a trained index in memory, under their numbers."""
    with quick_assignment(index):
        for start in range(0, len(rows), _CHUNK):
            chosen, fingerprints = sounding(vectors, rows[start : start + _CHUNK])
            if len(chosen):
                index.add_with_ids(fingerprints, chosen)
            if progress:
                progress("Indexing windows", min(start + _CHUNK, len(rows)), len(rows))


def write_segment(folder: Path, name: str, index: Any, end_row: int) -> Segment:
    """Write the lists of an index in memory."""
    with (folder / name).open("xb") as file:
        write_lists(index, file)
    return Segment(name, end_row, index.ntotal)


def _train(vectors: np.ndarray, n_sounding: int, kind: IndexKind, progress: Progress | None) -> Any:
    try:
        index: Any = faiss.index_factory(vectors.shape[1], kind.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        # FAISS says first where in its source it was.
        reason = str(error).splitlines()[0].split(": ", 1)[-1]
        raise EarmarkError(f"FAISS knows no index {kind.factory!r} ({reason})") from None
    if isinstance(index, faiss.IndexIVFPQFastScan):
        # Codes of what is left of a vector without its centroid are finer.
        index.by_residual = True
    if n_sounding < index.nlist:
        raise EarmarkError(
            f"{kind.factory} needs at least {index.nlist:,} windows that are not silent, and there "
            f"are {n_sounding:,}"
        )
    n_sample = min(len(vectors), _TRAINING_VECTORS_PER_LIST * index.nlist)
    # In a catalog of little but silence the sample may lack sound.
    n_sample = len(vectors) if 2 * n_sounding < len(vectors) else n_sample
    chosen = np.random.default_rng(0).choice(len(vectors), n_sample, replace=False)
    _, sample = sounding(vectors, np.sort(chosen))
    sample = sample[: _TRAINING_VECTORS_PER_LIST * index.nlist]
    if progress:
        progress("Training on windows", 0, len(sample))
    if isinstance(faiss.downcast_index(index.quantizer), faiss.IndexFlat):
        # What is left to train are the codes.
        index.quantizer.add(find_centroids(sample, index.nlist))
    index.train(sample)
    if progress:
        progress("Training on windows", len(sample), len(sample))
    return index
