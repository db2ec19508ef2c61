"""The embeddings of one column as a FAISS index: sounds that are alike, not recordings.

::

    CATALOG/index-<column>/<content key>-<layout>/
        index.json       which encoder, how embeddings became unit vectors, FAISS factory, sizes
        rows.parquet     index.schema.ROWS: which rows belong to which recording
        vectors.npy      the unit vectors, float16, memory-mapped
        peaks.npy        loudest mel band of each window, dB, float16
        column.faiss     the index that is searched

It is built when it is first asked for, and again when the catalog has changed since.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq

from encoders.errors import CatalogError
from index.build import row_table
from index.catalog import Catalog
from index.columns import find_column, iter_embeddings, stored_columns
from index.config import EncoderInfo
from index.policy import FLAT_LIMIT, count_lists
from index.scaling import Scaling, stored_rows
from index.storage import TEMPORARY, publish_folder

Progress = Callable[[int, int], None]

# Kinds of sound are broad: one list in 128 finds the same regions as more do.
_PROBED_SHARE = 128
_TRAINING_VECTORS_PER_LIST = 64
_CHUNK = 65_536
# What vectors hold; an index of another layout is built again. 2: MFCCs beside the embedding.
_LAYOUT = 2

# Its type stubs know no parameters of a search.
_untyped: Any = faiss


@dataclasses.dataclass(frozen=True)
class ColumnInfo:
    """What ``index.json`` says."""

    column: str
    encoder: EncoderInfo
    factory: str
    nprobe: int
    n_rows: int
    n_recordings: int
    scaling: Scaling

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "scaling": self.scaling.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ColumnInfo:
        """Inverse of :meth:`to_dict`."""
        nested = {
            "encoder": EncoderInfo(**content["encoder"]),
            "scaling": Scaling.from_dict(content["scaling"]),
        }
        return cls(**{**content, **nested})


def default_column(catalog: Catalog) -> str:
    """The column that kinds of sound are looked for in: the first of event, latent, fingerprint."""
    stored = stored_columns(catalog)
    return next(name for name in ("event", "latent", "fingerprint") if name in stored)


class ColumnIndex:
    """One column of a catalog, open for search.

    Attributes
    ----------
    info : ColumnInfo
    vectors : np.ndarray [shape=(n_rows, dim), dtype=float16]
        Memory-mapped unit vectors, in the order of ``catalog.iter_windows()``; zero where the
        recording is silent.
    peaks_db : np.ndarray [shape=(n_rows,), dtype=float16]
        Loudest mel band of each window, dB re full scale.
    first_rows, n_rows : np.ndarray [shape=(n_recordings,)]
        Where the windows of each recording stand.
    recordings : pa.Table
        ``index.schema.ROWS``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info = ColumnInfo.from_dict(json.loads((folder / "index.json").read_text()))
            self.recordings = pq.read_table(folder / "rows.parquet")
            mapped = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
            # The same memory as a plain array: slices of a memmap cost ten times as much.
            self.vectors = np.asarray(mapped)
            self.peaks_db = np.load(folder / "peaks.npy", allow_pickle=False)
            self._faiss: Any = faiss.read_index(
                str(folder / "column.faiss"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            )
        except (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise CatalogError(
                f"the index in {folder} is damaged ({error}): remove that folder, and it is built "
                "again"
            ) from None
        if not self._faiss.ntotal == len(self.vectors) == len(self.peaks_db) == self.info.n_rows:
            raise CatalogError(f"the index in {folder} is damaged: remove that folder")
        self.first_rows = self.recordings["first_row"].to_numpy()
        self.n_rows = self.recordings["n_rows"].to_numpy()

    @classmethod
    def open(
        cls, catalog: Catalog, column: str | None = None, progress: Progress | None = None
    ) -> ColumnIndex:
        """The index of a column as the catalog is now; it is built if it is not there.

        Parameters
        ----------
        catalog : Catalog
        column : str, optional
            [default: that of :func:`default_column`]
        progress : callable, optional
            ``progress(windows done, windows in all)`` while it is built.

        Raises
        ------
        CatalogError
            If there is no such column, or the index has to be built and cannot be written.
        """
        name, encoder = find_column(catalog, column or default_column(catalog))
        folder = _folder(catalog, name)
        if not folder.is_dir():
            with catalog.writer_lock():
                folder = _folder(catalog, name)
                if not folder.is_dir():
                    _build(catalog, name, encoder, folder, progress)
        index = cls(folder)
        if index.info.encoder != encoder:
            raise CatalogError(
                f"the index in {folder} was made by another encoder than the column {name!r}: "
                "remove that folder, and it is built again"
            )
        return index

    def search(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest windows by inner product.

        Parameters
        ----------
        queries : np.ndarray [shape=(n, dim)]
            Unit vectors.
        k : int
        rows : np.ndarray of bool [shape=(n_rows,)], optional
            Only these rows.

        Returns
        -------
        scores, rows : np.ndarray [shape=(n, k)]
            Best first. Row -1 where there are fewer than ``k``.
        """
        k = max(1, min(k, self.info.n_rows))
        selector = None
        if rows is not None:
            selector = _untyped.IDSelectorBitmap(np.packbits(rows, bitorder="little"))
        if self.info.nprobe:
            # The fewer rows there are to choose from, the further away the nearest may be.
            share = 1.0 if rows is None else max(float(rows.mean()), 1e-3)
            nprobe = min(self._faiss.nlist, round(self.info.nprobe / share))
            parameters = _untyped.SearchParametersIVF(sel=selector, nprobe=nprobe)
        else:
            parameters = _untyped.SearchParameters(sel=selector)
        found: tuple[np.ndarray, np.ndarray] = self._faiss.search(
            np.ascontiguousarray(queries, np.float32), k, params=parameters
        )
        return found

    def recording_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of the recording that each row belongs to."""
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def of_recording(self, recording: int) -> np.ndarray:
        """Unit vectors of a recording, in time order [shape=(n, dim), dtype=float16]."""
        first = self.first_rows[recording]
        return self.vectors[first : first + self.n_rows[recording]]

    def rows_of(self, recordings: np.ndarray) -> np.ndarray:
        """Which rows belong to some recordings.

        Parameters
        ----------
        recordings : np.ndarray of bool [shape=(n_recordings,)]

        Returns
        -------
        rows : np.ndarray of bool [shape=(n_rows,)]
        """
        return np.repeat(recordings, self.n_rows)


def _folder(catalog: Catalog, column: str) -> Path:
    return catalog.path / f"index-{column}" / f"{catalog.content_key}-{_LAYOUT}"


def _build(
    catalog: Catalog, column: str, encoder: EncoderInfo, folder: Path, progress: Progress | None
) -> None:
    recordings = catalog.indexed_recordings()
    counts = recordings["n_windows"].to_numpy()
    n_rows = int(counts.sum())
    n_lists = count_lists(n_rows) if n_rows > FLAT_LIMIT else 0
    factory = f"IVF{n_lists},SQ8" if n_lists else "Flat"
    root = folder.parent
    for debris in root.glob(f".*{TEMPORARY}"):
        shutil.rmtree(debris, ignore_errors=True)
    with publish_folder(folder) as building:
        pq.write_table(row_table(recordings), building / "rows.parquet")
        vectors, scaling = _write_vectors(catalog, column, encoder.dim, building, n_rows, progress)
        faiss.write_index(_fill(vectors, factory), str(building / "column.faiss"))
        info = ColumnInfo(
            column, encoder, factory, max(1, n_lists // _PROBED_SHARE) if n_lists else 0,
            n_rows, recordings.num_rows, scaling,
        )  # fmt: skip
        (building / "index.json").write_text(json.dumps(info.to_dict(), indent=2) + "\n")
    for old in root.iterdir():
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def _write_vectors(
    catalog: Catalog, column: str, dim: int, folder: Path, n_rows: int, progress: Progress | None
) -> tuple[np.ndarray, Scaling]:
    # Another recording is no other kind of sound: fingerprints are compared as they are.
    mfcc = column != "fingerprint"
    width = dim + 2 * catalog.config.spec.n_mfcc * mfcc
    peaks = np.empty(n_rows, np.float16)
    if n_rows == 0:
        empty = np.empty((0, width), np.float16)
        np.save(folder / "vectors.npy", empty)
        np.save(folder / "peaks.npy", peaks)
        return empty, _scaling(column, dim, catalog, [empty])
    shape = (n_rows, width)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, shape)
    row = 0
    for batch in iter_embeddings(catalog, column, mfcc=mfcc):
        vectors[row : row + batch.num_rows] = stored_rows(batch)
        peaks[row : row + batch.num_rows] = batch["peak_db"].to_numpy()
        row += batch.num_rows
        if progress:
            progress(row, n_rows)
    chunks = range(0, n_rows, _CHUNK)
    scaling = _scaling(column, dim, catalog, (vectors[start : start + _CHUNK] for start in chunks))
    for start in chunks:
        chunk = vectors[start : start + _CHUNK]
        chunk[:] = scaling(chunk.astype(np.float32))
    vectors.flush()
    np.save(folder / "peaks.npy", peaks)
    return vectors, scaling


def _scaling(column: str, dim: int, catalog: Catalog, rows: Iterable[np.ndarray]) -> Scaling:
    if column == "fingerprint":
        return Scaling.none(dim)
    if column == "latent":
        # Posterior means have no common scale, and directions from zero mean little.
        return Scaling.measured(rows, dim, embeddings_too=True)
    usual = Scaling.beside_mfcc(dim, catalog.config.spec)
    return usual or Scaling.measured(rows, dim, embeddings_too=False)


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
