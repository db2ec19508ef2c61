"""Vectors to hits: the live index of a catalog, open for search."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from encoders.errors import CatalogError
from index.build import GenerationInfo
from index.catalog import Catalog


class FingerprintIndex:
    """One index generation. It stays usable when a newer one is published.

    Attributes
    ----------
    info : GenerationInfo
    vectors : np.ndarray [shape=(n_rows, dim), dtype=float16]
        Memory-mapped fingerprints, in row order; zero where the recording is silent.
    first_rows, n_rows : np.ndarray [shape=(n_recordings,)]
        Where the windows of each recording stand.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            meta = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.info = GenerationInfo(**meta)
            self._rows = pq.read_table(folder / "rows.parquet")
            mapped = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
            # The same memory as a plain array: slices of a memmap cost ten times as much.
            self.vectors = np.asarray(mapped)
            self._faiss = faiss.read_index(
                str(folder / "fingerprint.faiss"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            )
        except (OSError, EOFError, ValueError, TypeError, RuntimeError) as error:
            raise CatalogError(
                f"the index in {folder} is damaged ({error}); build it again with "
                f"'earmark index {folder.parent.parent}'"
            ) from None
        n_rows = sum(self._rows["n_rows"].to_pylist())
        if not self._faiss.ntotal == len(self.vectors) == n_rows == self.info.n_rows:
            raise CatalogError(
                f"the index in {folder} is damaged: its files differ in length; build it again "
                f"with 'earmark index {folder.parent.parent}'"
            )
        if self.info.nprobe:
            faiss.ParameterSpace().set_index_parameter(self._faiss, "nprobe", self.info.nprobe)
        self.first_rows = self._rows["first_row"].to_numpy()
        self.n_rows = self._rows["n_rows"].to_numpy()

    @classmethod
    def open(cls, catalog: Catalog) -> FingerprintIndex:
        """The live generation of a catalog."""
        folder = catalog.current_generation()
        if folder is None:
            raise CatalogError(
                f"{catalog.path} has no index yet: build it with 'earmark index {catalog.path}'"
            )
        index = cls(folder)
        if index.info.encoder_sha256 != catalog.config.fingerprint.sha256:
            raise CatalogError(
                f"the index in {folder} was made by another encoder than the catalog; build it "
                f"again with 'earmark index {catalog.path}'"
            )
        return index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Nearest fingerprints by inner product.

        Parameters
        ----------
        queries : np.ndarray [shape=(n, dim)]
        k : int

        Returns
        -------
        scores, rows : np.ndarray [shape=(n, k)]
            Best first. Row -1 where there are fewer than ``k``.
        """
        k = max(1, min(k, self.info.n_rows))
        scores, rows = self._faiss.search(np.ascontiguousarray(queries, np.float32), k)
        return scores, rows

    def recording_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of the recording that each row belongs to."""
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def fingerprints(self, recording: int) -> np.ndarray:
        """All fingerprints of a recording, in time order [shape=(n, dim), dtype=float16]."""
        first = self.first_rows[recording]
        return self.vectors[first : first + self.n_rows[recording]]

    def uri(self, recording: int) -> str:
        """Its name, as given to ingest."""
        return str(self._rows["uri"][recording].as_py())

    def uris(self) -> list[str]:
        """The names of all recordings."""
        return [str(uri) for uri in self._rows["uri"].to_pylist()]

    def recording_id(self, recording: int) -> str:
        """Its content hash."""
        return str(self._rows["recording_id"][recording].as_py())

    def seconds(self, recording: int) -> float:
        """Its length."""
        return float(self._rows["seconds"][recording].as_py())
