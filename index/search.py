"""Vectors to hits: the live index of a catalog, open for search."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoders.errors import CatalogError
from index.catalog import Catalog
from index.generation import (
    check_files,
    damaged,
    live_rows,
    read_info,
    read_rows,
)
from index.nearest import open_nearest
from index.row_store import map_signs, map_vectors


class FingerprintIndex:
    """One index generation. It stays usable when a newer one is published.

    Attributes
    ----------
    info : GenerationInfo
    vectors : np.ndarray [shape=(n_vectors, dim), dtype=float16]
        Memory-mapped fingerprints, in row order; zero where the recording is silent. Rows of
        recordings that have been removed are of none of the recordings below.
    signs : np.ndarray [shape=(n_vectors, n_frames, n_words), dtype=uint32]
        Theirs (:mod:`encoders.signs`), in the same way.
    first_rows, n_rows : np.ndarray [shape=(n_recordings,)]
        Where the windows of each recording stand, in increasing order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_info(folder)
        check_files(folder, self.info)
        self._rows = read_rows(folder, self.info)
        try:
            self.vectors = map_vectors(folder, self.info, scattered=True)
            self.signs = map_signs(folder, self.info, scattered=True)
            self._nearest = open_nearest(folder, self.info, self.vectors, live_rows(self._rows))
        except (OSError, ValueError, RuntimeError) as error:
            raise damaged(folder, error) from None
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
        try:
            index = cls(folder)
        except CatalogError:
            # A writer may have published twice since, and removed that folder.
            if catalog.current_generation() in (folder, None):
                raise
            return cls.open(catalog)
        if index.info.encoder_sha256 != catalog.config.fingerprint.sha256:
            raise CatalogError(
                f"the index in {folder} was made by another encoder than the catalog; build it "
                f"again with 'earmark index {catalog.path} --rebuild'"
            )
        return index

    def search(
        self, queries: np.ndarray, k: int, effort: float = 1.0, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest fingerprints by inner product.

        Parameters
        ----------
        queries : np.ndarray [shape=(n, dim)]
        k : int
        effort : float
            Share of the inverted lists that :mod:`index.policy` allows to be looked into.
        every : bool
            Look for all that is similar, and not only for what is nearest: a query that has found
            itself goes on.

        Returns
        -------
        scores, rows : np.ndarray [shape=(n, k)]
            Best first. Row -1 where there are fewer than ``k``.
        """
        k = max(1, min(k, self.info.n_rows))
        return self._nearest.search(np.ascontiguousarray(queries, np.float32), k, effort, every)

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
