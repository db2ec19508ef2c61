"""How what is stored of a window becomes the unit vector that it is compared by.

An encoder of kinds of sound has learned what its teachers told apart; MFCC statistics know nothing
and forget nothing. Beside each other they find more than either: the vectors of every column but
the fingerprints hold the embedding and, half as long, the MFCC statistics that ingest stores of
each window anyway.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.bundle import unit_vectors
from encoders.features import SILENCE_DB, FeatureSpec

MFCC_SHARE = 0.5
"""Length of the standardised MFCC statistics beside the embedding, which has length 1."""

_LEAST_VARIANCE = 1e-8


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How rows become unit vectors whose inner product says how alike two sounds are.

    A row is an embedding, perhaps with the MFCC summary of its window after it.

    Attributes
    ----------
    mean, deviation : np.ndarray [shape=(width,), dtype=float32]
        Subtracted, divided by. Zeros and ones for an encoder that gives unit vectors itself.
    dim : int
        Numbers of the embedding; the rest of a row are the MFCCs.
    """

    mean: np.ndarray
    deviation: np.ndarray
    dim: int

    @classmethod
    def none(cls, dim: int) -> Scaling:
        """Leave the directions as they are, without MFCCs."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32), dim)

    @classmethod
    def beside_mfcc(cls, dim: int, spec: FeatureSpec) -> Scaling | None:
        """Unit vectors of an encoder, and MFCCs standardised by what is usual.

        Returns
        -------
        scaling : Scaling or None
            None if it is not known what is usual, with other features than the shipped ones.
        """
        if (usual := _usual_mfcc(spec)) is None:
            return None
        mean, deviation = usual
        start = cls.none(dim)
        return cls(
            np.concatenate([start.mean, mean]), np.concatenate([start.deviation, deviation]), dim
        )

    @classmethod
    def measured(cls, batches: Iterable[np.ndarray], dim: int, embeddings_too: bool) -> Scaling:
        """Standardised by the rows themselves.

        Parameters
        ----------
        batches : iterable of np.ndarray [shape=(n, width)]
            Rows of zeros do not count.
        dim : int
        embeddings_too : bool
            Or only the MFCCs.
        """
        total, squares, n = np.zeros(dim), np.zeros(dim), 0
        for batch in batches:
            loud = batch[batch[:, :dim].any(axis=1)].astype(np.float64)
            if not n:
                total, squares = np.zeros(batch.shape[1]), np.zeros(batch.shape[1])
            total, squares, n = total + loud.sum(0), squares + (loud**2).sum(0), n + len(loud)
        mean = total / max(1, n)
        deviation = np.sqrt(np.maximum(squares / max(1, n) - mean**2, _LEAST_VARIANCE))
        if not embeddings_too:
            mean[:dim], deviation[:dim] = 0.0, 1.0
        return cls(mean.astype(np.float32), deviation.astype(np.float32), dim)

    @property
    def width(self) -> int:
        """Numbers of a row, and of a vector."""
        return len(self.mean)

    @property
    def takes_mfcc(self) -> bool:
        """Whether MFCCs belong to a row."""
        return self.width > self.dim

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Unit vectors [shape=(n, width), dtype=float32]; an embedding of zeros gives zeros."""
        vectors = (rows - self.mean) / self.deviation
        vectors[:, : self.dim] = unit_vectors(vectors[:, : self.dim])
        if self.takes_mfcc:
            vectors[:, self.dim :] = MFCC_SHARE * unit_vectors(vectors[:, self.dim :])
            vectors = unit_vectors(vectors)
        vectors[~rows[:, : self.dim].any(axis=1)] = 0.0
        return vectors.astype(np.float32, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist(), "dim": self.dim}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Scaling:
        """Inverse of :meth:`to_dict`. Without ``dim`` it is of before MFCCs stood there."""
        mean, deviation = (np.array(content[key], np.float32) for key in ("mean", "deviation"))
        return cls(mean, deviation, int(content.get("dim", len(mean))))


def stored_rows(batch: pa.RecordBatch) -> np.ndarray:
    """Rows of :func:`index.columns.iter_embeddings`, with MFCCs if it gave them.

    Returns
    -------
    rows : np.ndarray [shape=(n, width), dtype=float32]
        An own copy; the embedding of a silent window is zero, so that it is near nothing.
    """
    parts = [
        batch[name].flatten().to_numpy().reshape(batch.num_rows, -1)
        for name in ("embedding", "mfcc")
        if name in batch.schema.names
    ]
    dim = parts[0].shape[1]
    rows = np.concatenate(parts, axis=1)
    rows[batch["peak_db"].to_numpy() < SILENCE_DB, :dim] = 0.0
    return rows


@functools.lru_cache(maxsize=4)
def _usual_mfcc(spec: FeatureSpec) -> tuple[np.ndarray, np.ndarray] | None:
    # Of windows with sound in the corpus that the event encoder was trained on.
    content = json.loads((files("encoders") / "data" / "mfcc.json").read_text(encoding="utf-8"))
    if content["spec"] != spec.to_dict():
        return None
    mean, deviation = (np.array(content[key], np.float32) for key in ("mean", "deviation"))
    return mean, deviation
