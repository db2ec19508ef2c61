"""What the tests of sound events share: made-up columns in catalogs without ingest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from ingest_helpers import small_config

from index.catalog import Catalog, part_name
from index.config import EncoderInfo

DIM = 16


class Sounding(NamedTuple):
    """A recording to put in a catalog: its name, its windows' embeddings, its labels."""

    uri: str
    embeddings: np.ndarray
    labels: Mapping[str, str] = {}
    peak_db: float = 0.0

    @property
    def recording_id(self) -> str:
        """Stands for the hash of its bytes."""
        return f"id of {self.uri}"


def catalog_of(path: Path, recordings: Sequence[Sounding], dim: int = DIM) -> Catalog:
    """A catalog whose column ``fingerprint`` holds these unit vectors, every half second."""
    config = small_config(fingerprint=EncoderInfo("f", "aa" * 32, "int8", dim))
    catalog = Catalog.open(path) if Catalog.exists(path) else Catalog.create(path, config)
    rows = []
    schema = config.windows_schema
    with catalog.part_writer() as writer:
        for recording in recordings:
            n = len(recording.embeddings)
            values = {
                "recording_id": [recording.recording_id] * n,
                "start_sample": [8000 * i for i in range(n)],
                "peak_db": [recording.peak_db] * n,
                "fingerprint": recording.embeddings.tolist(),
                "signs": [[0] * math.prod(config.sign_shape)] * n,
                "latent": [[0.0, 0.0]] * n,
                "mfcc": [[0.0, 0.0]] * n,
            }
            arrays = [pa.array(values[field.name], field.type) for field in schema]
            writer.write_windows(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows.append(
                {
                    "uri": recording.uri,
                    "recording_id": recording.recording_id,
                    "seconds_decoded": 0.5 * (n - 1) + 1.0,
                    "n_windows": n,
                    "status": "ok",
                    "labels": list(recording.labels.items()),
                }
            )
        name = part_name(catalog.next_run(), config, [row["uri"] for row in rows])
        writer.commit(name, pa.Table.from_pylist(rows, schema=config.recordings_schema))
    return catalog


def kind(seed: int, dim: int = DIM) -> np.ndarray:
    """The direction of a kind of sound [shape=(dim,)]."""
    vector = np.random.default_rng(1000 + seed).normal(size=dim)
    return vector / np.linalg.norm(vector)


def sounds_of(
    kinds: Sequence[int | None], rng: np.random.Generator, spread: float = 0.25, dim: int = DIM
) -> np.ndarray:
    """Unit vectors near the directions of kinds; None is some other sound, different each time."""
    vectors = np.stack(
        [rng.normal(size=dim) / dim**0.5 if k is None else kind(k, dim) for k in kinds]
    )
    vectors += spread * rng.normal(size=vectors.shape) / dim**0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
