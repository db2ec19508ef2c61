"""The two data bases of an evaluation, and the audio that they hold."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from encoders.bundle import load_bundle
from encoders.corpus import Item, PcmCache
from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.storage import publish, temporary_name
from pipelines.evaluate.selection import Selection
from pipelines.ingest import IngestOptions, ingest

SAMPLE_RATE = 16_000
"""Of queries and of the audio that answers are judged by, Hz."""


@dataclasses.dataclass(frozen=True)
class Encoders:
    """What catalogs are made with: as in :class:`~pipelines.ingest.IngestOptions`."""

    fingerprint: str = "fingerprint"
    vae: str = "vae"
    precision: str = "int8"


@dataclasses.dataclass(frozen=True)
class Catalogs:
    """Folders of the two catalogs: with all references, and without those withheld."""

    full: Path
    half: Path


def prepare_catalogs(selection: Selection, cache: Path, encoders: Encoders) -> Catalogs:
    """Ingest the references; catalogs of the same files and encoders are used again.

    The full catalog begins as a copy of the other and takes in the rest, as any catalog grows.
    """
    cache.mkdir(parents=True, exist_ok=True)
    options = IngestOptions(encoders.fingerprint, encoders.vae, encoders.precision)
    few, all_of_them = selection.without_withheld, selection.references
    half, full = (cache / catalog_name(paths, encoders) for paths in (few, all_of_them))
    ingest(list(map(str, few)), half, options)
    if not full.exists():
        copy = temporary_name(full)
        shutil.copytree(half, copy)
        publish(copy, full)
    ingest(list(map(str, all_of_them)), full, options)
    return Catalogs(full, half)


def catalog_name(paths: Sequence[Path], encoders: Encoders) -> str:
    """Names a catalog in a cache: other inputs or encoders make another."""
    e = encoders
    return f"catalog-{catalog_key(list(map(str, paths)), e.fingerprint, e.vae, e.precision)}"


def catalog_key(uris: Sequence[str], encoder: str, vae: str, precision: str) -> str:
    """A short hash of inputs, of the networks of two bundles, and of their precision."""
    hashes = [load_bundle(name, precision).sha256 for name in (encoder, vae)]
    return hashlib.sha256("\n".join([*uris, *hashes, precision]).encode()).hexdigest()[:12]


class References:
    """The recordings of a catalog and their audio.

    Parameters
    ----------
    catalog : Path
        With all references.
    root : Path
        Folder of the corpus; recordings are named by their paths relative to it.
    cache : Path
        Where the decoded audio is kept: 115 MB an hour.
    progress : callable, optional
        ``progress(files decoded, files in all)``.

    Attributes
    ----------
    names : list of str
    seconds : np.ndarray [shape=(n_recordings,)]
    """

    def __init__(
        self,
        catalog: Path,
        root: Path,
        cache: Path,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        columns = ["uri", "recording_id", "seconds_decoded"]
        rows = Catalog.open(catalog).recordings(columns).to_pylist()
        rows = [row for row in rows if row["seconds_decoded"] > 0]
        self._root = root
        self.names = [self.name(row["uri"]) for row in rows]
        self._number = {name: number for number, name in enumerate(self.names)}
        self._ids = [row["recording_id"] for row in rows]
        items = [Item(Path(row["uri"]), "music", "") for row in rows]
        self._pcm = PcmCache.build(items, cache / "pcm", SAMPLE_RATE, progress)
        if len(self._pcm) != len(rows):
            raise EarmarkError(
                f"{cache / 'pcm'} holds {len(self._pcm)} of {len(rows)} references: files have "
                "changed since; delete that folder and try again"
            )
        self.seconds = self._pcm.lengths / SAMPLE_RATE

    def name(self, uri: str) -> str:
        """Path of a reference relative to the corpus, with ``/``."""
        return Path(os.path.relpath(uri, self._root)).as_posix()

    def __contains__(self, name: str) -> bool:
        return name in self._number

    def recording_id(self, name: str) -> str:
        """Hash of the bytes of a recording."""
        return self._ids[self._number[name]]

    def n_samples(self, name: str) -> int:
        """Length of a recording."""
        return int(self._pcm.lengths[self._number[name]])

    def audio(self, name: str, first: int, n_samples: int) -> np.ndarray:
        """A stretch of a recording [shape=(n_samples,), dtype=float32], silent beyond its ends."""
        number = self._number[name]
        start, length = int(self._pcm.starts[number]), int(self._pcm.lengths[number])
        low, high = np.clip([first, first + n_samples], 0, length).tolist()
        stretch = np.zeros(n_samples, np.float32)
        stretch[low - first : high - first] = self._pcm.samples[start + low : start + high]
        return stretch / np.float32(32768)
