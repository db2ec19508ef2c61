"""Fingerprints of real audio, as many more like them as are wanted, and clips to look for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from identify import CLIP_RATE, SNR_DB, excerpt

from encoders.bundle import load_bundle
from encoders.degrade import add_noise, colored_noise
from encoders.features import SILENCE_DB, cut_windows, log_mel
from index.catalog import Catalog
from pipelines.inputs import local_path

_CHUNK = 65_536


class Clip(NamedTuple):
    """Fingerprints of a noisy clip [shape=(n, dim)] and the recording that it is from."""

    queries: np.ndarray
    recording: int


@dataclasses.dataclass(frozen=True)
class Collection:
    """Real fingerprints, and as many more as are wanted.

    Attributes
    ----------
    vectors : np.ndarray [shape=(n_windows, dim), dtype=float32]
    n_windows : np.ndarray [shape=(n_recordings,)]
        Of each recording; they follow each other.
    axes : np.ndarray [shape=(dim, dim)]
        Principal axes in columns, the mean direction first.
    """

    vectors: np.ndarray
    n_windows: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, n_windows: np.ndarray) -> Collection:
        """With the axes of the vectors themselves."""
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        return cls(vectors, n_windows, np.ascontiguousarray(axes[:, ::-1], np.float32))

    def first(self, n_windows: int) -> Collection:
        """The first recordings, of about so many windows."""
        n = int(np.searchsorted(np.cumsum(self.n_windows), n_windows)) + 1
        return Collection.of(self.vectors[: self.n_windows[:n].sum()], self.n_windows[:n])

    def blocks(self, n_windows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Whole copies, the first of them the real windows, until there are ``n_windows``.

        Yields
        ------
        vectors : np.ndarray [shape=(n, dim)]
        recordings : np.ndarray [shape=(n,)]
            The number of each window's recording; the copies are numbered on.
        """
        recordings = np.repeat(np.arange(len(self.n_windows)), self.n_windows)
        for start in range(0, n_windows, len(self.vectors)):
            copy, n = start // len(self.vectors), min(len(self.vectors), n_windows - start)
            for at in range(0, n, _CHUNK):
                mine = recordings[at : min(at + _CHUNK, n)]
                vectors = self.reflect(self.vectors[at : at + len(mine)], copy)
                yield vectors, copy * len(self.n_windows) + mine

    def reflect(self, vectors: np.ndarray, copy: int) -> np.ndarray:
        """Vectors as they are in a copy of the collection.

        All of its recordings are reflected in the same axes: what is alike stays so, and recordings
        that were each reflected in others would lie less close together than real ones.
        """
        if copy == 0:
            return vectors
        signs = np.random.default_rng(copy).choice(np.array([-1, 1], np.float32), vectors.shape[1])
        signs[0] = 1
        return ((vectors @ self.axes) * signs) @ self.axes.T

    def spread(self, clips: Sequence[Clip], n_windows: int) -> list[Clip]:
        """Clips of this collection's recordings, each for some copy."""
        whole, rng = n_windows // len(self.vectors), np.random.default_rng(1)
        moved = []
        for clip in clips:
            if clip.recording < len(self.n_windows):
                copy, r = int(rng.integers(max(1, whole))), clip.recording
                queries = self.reflect(clip.queries, copy)
                moved.append(Clip(queries, copy * len(self.n_windows) + r))
        return moved


def read_collection(catalog: Catalog) -> tuple[Collection, list[str]]:
    """All fingerprints of a catalog, its recordings shuffled, and the recordings' names."""
    recordings = catalog.indexed_recordings()
    n = recordings["n_windows"].to_numpy()
    blocks = []
    for batch in catalog.iter_windows(["fingerprint", "peak_db"]):
        vectors = batch["fingerprint"].flatten().to_numpy().reshape(batch.num_rows, -1).copy()
        vectors[batch["peak_db"].to_numpy() < SILENCE_DB] = 0.0
        blocks.append(vectors)
    parts = np.split(np.concatenate(blocks), np.cumsum(n)[:-1])
    order = np.random.default_rng(0).permutation(len(n))
    uris = recordings["uri"].to_pylist()
    shuffled = Collection.of(np.concatenate([parts[i] for i in order]), n[order])
    return shuffled, [uris[i] for i in order]


def make_clips(
    catalog: Catalog,
    encoder: str,
    collection: Collection,
    uris: list[str],
    n: int,
    seconds: float,
    cache: Path,
) -> list[Clip]:
    """Fingerprints of clips from anywhere in a collection, with coloured noise at ``SNR_DB``.

    They are kept in ``cache`` for the next run.
    """
    known = cache / f"search-clips-{n}-{seconds:g}-{catalog.content_key}.npz"
    if known.exists():
        with np.load(known) as made:
            return [
                Clip(queries, int(r))
                for queries, r in zip(made["queries"], made["recordings"], strict=True)
            ]
    bundle = load_bundle(encoder, catalog.config.fingerprint.precision)
    spec, rng = bundle.spec, np.random.default_rng(0)
    hop = spec.window_hop / spec.sample_rate
    recordings = np.repeat(np.arange(len(uris)), collection.n_windows)
    clips: list[Clip] = []
    while len(clips) < n:
        r = int(recordings[rng.integers(len(recordings))])
        room, path = collection.n_windows[r] * hop - seconds, local_path(uris[r])
        if room <= 0 or path is None:
            continue
        signal = excerpt(Path(path), float(rng.uniform(0, room)), seconds)
        noise = colored_noise(len(signal), float(rng.uniform(0, 2)), rng)
        heard = soxr.resample(add_noise(signal, noise, SNR_DB), CLIP_RATE, spec.sample_rate)
        windows = cut_windows(log_mel(heard.astype(np.float32), spec), spec)
        windows = windows[: spec.n_windows(len(heard))]
        if windows.max() > SILENCE_DB:
            clips.append(Clip(bundle.encode(windows), r))
    known.parent.mkdir(parents=True, exist_ok=True)
    recordings = np.array([clip.recording for clip in clips])
    np.savez(known, queries=np.stack([clip.queries for clip in clips]), recordings=recordings)
    return clips
