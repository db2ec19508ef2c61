"""Parquet to FAISS: the fingerprints of a catalog as one index generation.

A generation is a folder::

    index.json         what it is: encoder, FAISS factory string, sizes
    rows.parquet       index.schema.ROWS: which rows belong to which recording
    vectors.npy        every fingerprint, float16, memory-mapped: alignments are rescored with it
    fingerprint.faiss  the index that is searched

Row numbers are those of ``vectors.npy``; the windows of a recording follow each other.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.features import SILENCE_DB
from index.catalog import Catalog
from index.schema import ROWS

FLAT_LIMIT = 20_000
"""Up to this many windows (3 hours) every vector is compared; above, inverted lists are: at 12
hours they find as much of noisy queries as comparing everything does, in a twentieth of the time
(docs/experiments.md)."""

_TRAINING_VECTORS_PER_LIST = 64
_CHUNK = 65_536

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class GenerationInfo:
    """What ``index.json`` says."""

    encoder_sha256: str
    factory: str
    nprobe: int
    n_rows: int
    n_recordings: int
    dim: int


def index_factory(n_rows: int) -> tuple[str, int]:
    """The FAISS factory string for a size, and how many inverted lists to probe.

    >>> index_factory(5_000)
    ('Flat', 0)
    >>> index_factory(1_000_000)
    ('IVF2048,SQ8', 128)
    """
    if n_rows <= FLAT_LIMIT:
        return "Flat", 0
    n_lists = 2 ** round(math.log2(2 * math.sqrt(n_rows)))
    return f"IVF{n_lists},SQ8", n_lists // 16


def build_index(catalog: Catalog, progress: Progress | None = None) -> GenerationInfo:
    """Build the index of all current recordings and publish it as the live generation.

    Call it under ``catalog.writer_lock()``. Memory is bounded by the size of the FAISS index.

    Parameters
    ----------
    catalog : Catalog
    progress : callable, optional
        ``progress(windows done, windows in all)``.
    """
    recordings = catalog.indexed_recordings()
    counts = recordings["n_windows"].to_numpy()
    n_rows, dim = int(counts.sum()), catalog.config.fingerprint.dim
    factory, nprobe = index_factory(n_rows)
    info = GenerationInfo(
        catalog.config.fingerprint.sha256, factory, nprobe, n_rows, recordings.num_rows, dim
    )
    with catalog.new_generation() as folder:
        pq.write_table(_row_table(recordings, counts), folder / "rows.parquet")
        vectors = _write_vectors(catalog, folder / "vectors.npy", n_rows, dim, progress)
        faiss.write_index(_fill(vectors, factory), str(folder / "fingerprint.faiss"))
        (folder / "index.json").write_text(json.dumps(dataclasses.asdict(info), indent=2) + "\n")
    return info


def _row_table(recordings: pa.Table, counts: np.ndarray) -> pa.Table:
    columns: dict[str, Any] = {
        "recording_id": recordings["recording_id"],
        "uri": recordings["uri"],
        "seconds": recordings["seconds"],
        "first_row": np.cumsum(counts) - counts,
        "n_rows": counts,
        "labels": recordings["labels"],
    }
    return pa.table(columns, schema=ROWS)


def _write_vectors(
    catalog: Catalog, path: Path, n_rows: int, dim: int, progress: Progress | None
) -> np.ndarray:
    if n_rows == 0:
        empty = np.empty((0, dim), np.float16)
        np.save(path, empty)
        return empty
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (n_rows, dim))
    row = 0
    for batch in catalog.iter_windows(["fingerprint", "peak_db"]):
        fingerprints = batch["fingerprint"].flatten().to_numpy().reshape(-1, dim).copy()
        # A zero vector is near nothing: silence is never what was found.
        fingerprints[batch["peak_db"].to_numpy() < SILENCE_DB] = 0.0
        vectors[row : row + len(fingerprints)] = fingerprints
        row += len(fingerprints)
        if progress:
            progress(row, n_rows)
    vectors.flush()
    return vectors


def _fill(vectors: np.ndarray, factory: str) -> Any:
    n_rows, dim = vectors.shape
    index: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        n_sample = min(n_rows, _TRAINING_VECTORS_PER_LIST * index.nlist)
        sample = np.random.default_rng(0).choice(n_rows, n_sample, replace=False)
        index.train(vectors[np.sort(sample)].astype(np.float32))
    for start in range(0, n_rows, _CHUNK):
        index.add(vectors[start : start + _CHUNK].astype(np.float32))
    return index
