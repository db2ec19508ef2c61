"""What the tests of index share: made-up sounds, real audio, catalogs without ingest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from ingest_helpers import small_config

from index.catalog import Catalog, part_name
from index.config import EncoderInfo

DIM = 128
WINDOW_S, HOP_S = 1.0, 0.5

# Samples of a made-up sound per second.
_RATE = 32


class Sound:
    """A made-up sound, whose fingerprints behave like those of windows that overlap.

    The fingerprint of a stretch is the direction of the mean of white noise over that stretch:
    smooth in time, and of no similarity to stretches that share nothing with it.

    Parameters
    ----------
    seed : int
    seconds : float
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self.seconds = seconds
        noise = np.random.default_rng(seed).normal(size=(round(seconds * _RATE), DIM))
        self._sum = np.concatenate([np.zeros((1, DIM)), np.cumsum(noise, axis=0)])

    def fingerprints(self, starts: np.ndarray, window_s: float = WINDOW_S) -> np.ndarray:
        """Fingerprints [shape=(n, DIM), float32] of windows at ``starts`` (s); zero outside."""
        vectors = self._until(starts + window_s) - self._until(starts)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(norms > 1e-6, norms, 1.0)).astype(np.float32)

    def reference(self) -> np.ndarray:
        """Fingerprints as ingest stores them, every ``HOP_S``."""
        n_windows = 1 + int(max(0.0, self.seconds - WINDOW_S) / HOP_S)
        return self.fingerprints(HOP_S * np.arange(n_windows))

    def _until(self, times: np.ndarray) -> np.ndarray:
        places = np.clip(times * _RATE, 0, len(self._sum) - 1)
        whole = np.minimum(places.astype(int), len(self._sum) - 2)
        part = (places - whole)[:, None]
        return self._sum[whole] * (1 - part) + self._sum[whole + 1] * part


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A recording to put in a catalog: its name, its bytes' hash, its fingerprints."""

    uri: str
    fingerprints: np.ndarray
    recording_id: str | None = None
    peak_db: np.ndarray | None = None
    status: str = "ok"

    @property
    def identity(self) -> str:
        """The hash; that of a recording with a name of its own when none is given."""
        return self.recording_id or f"id of {self.uri}"


def empty_catalog(path: Path, dim: int = DIM) -> Catalog:
    """A catalog of fingerprints of ``dim`` numbers."""
    return Catalog.create(path, small_config(fingerprint=EncoderInfo("f", "aa" * 32, "int8", dim)))


def add_recordings(catalog: Catalog, recordings: Sequence[Recorded]) -> None:
    """Commit one part of a new run to a catalog."""
    config = catalog.config
    schema = config.windows_schema
    rows = []
    with catalog.part_writer() as writer:
        for recording in recordings:
            n = len(recording.fingerprints)
            peak = recording.peak_db if recording.peak_db is not None else np.zeros(n)
            values = {
                "recording_id": [recording.identity] * n,
                "start_sample": [8000 * i for i in range(n)],
                "peak_db": peak.tolist(),
                "fingerprint": recording.fingerprints.tolist(),
                "signs": [[0] * math.prod(config.sign_shape)] * n,
                "latent": [[0.0, 0.0]] * n,
                "mfcc": [[0.0, 0.0]] * n,
            }
            arrays = [pa.array(values[field.name], field.type) for field in schema]
            writer.write_windows(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows.append(
                {
                    "uri": recording.uri,
                    "recording_id": recording.identity,
                    "seconds_decoded": HOP_S * (n - 1) + WINDOW_S,
                    "n_windows": n,
                    "status": recording.status,
                }
            )
        name = part_name(catalog.next_run(), config, [row["uri"] for row in rows])
        writer.commit(name, pa.Table.from_pylist(rows, schema=config.recordings_schema))


def noisy(fingerprints: np.ndarray, similarity: float, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors about as similar to ``fingerprints`` as that; zeros stay zero."""
    noise = rng.normal(size=fingerprints.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    mixed = similarity * fingerprints + np.sqrt(1 - similarity**2) * noise
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    mixed[~fingerprints.any(axis=1)] = 0.0
    return mixed.astype(np.float32)
