"""A light classifier of sound events over stored embeddings, and how it lies on disk.

::

    MODEL/model.json             classes and their figures, encoder, features, calibration
    MODEL/vectors-<hash>.npy     linear heads, then examples, as unit vectors
    MODEL/labels-<hash>.parquet  what it was learned from

Every class has examples, to which a sound has to be near, and, where there are enough of them, a
linear head. Classes are independent of each other: a window may hold several, and a sound that is
none of them gets no label. No pickle is written or loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.special

from encoders.bundle import SHIPPED
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec
from index.config import EncoderInfo
from index.scaling import Scaling
from index.storage import write_atomically

FORMAT_VERSION = 1
_META = "model.json"

SHIPPED_MODEL = SHIPPED / "event" / "model"
"""The model that comes with earmark, beside the encoder that it needs."""

LABELS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("onset_s", pa.float64(), nullable=False),
        pa.field("offset_s", pa.float64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        # Of the whole recording, which may hold pauses and other sounds too.
        pa.field("whole", pa.bool_(), nullable=False),
        # False where somebody has judged that it is not this sound.
        pa.field("positive", pa.bool_(), nullable=False),
    ]
)
"""What a model was learned from."""


@dataclasses.dataclass(frozen=True)
class EventClass:
    """One kind of sound.

    Parameters
    ----------
    name : str
    method : str
        ``"prototype"`` or ``"linear"``.
    n_examples, n_recordings : int
        What it was learned from.
    near : (float, float)
        Mean and deviation of the similarity of other sounds to the examples.
    head : (float, float)
        The same of the linear head; of no use without one.
    calibration : (float, float, float)
        ``sigmoid(calibration @ (1, near, head))`` of the two, standardised by these, is the score.
    threshold : float
        Score from which a window is reported.
    precision, recall, f1 : float or None
        At the threshold, of windows in recordings that were held back; None if there were too few.
    """

    name: str
    method: str
    n_examples: int
    n_recordings: int
    near: tuple[float, float]
    head: tuple[float, float]
    calibration: tuple[float, float, float]
    threshold: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> EventClass:
        """From JSON, which knows no tuples."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class EventModel:
    """A classifier of sound events.

    Parameters
    ----------
    column : str
        The column of embeddings that it is for.
    encoder : EncoderInfo
        What made them.
    spec : FeatureSpec
        What they were made from.
    scaling : Scaling
    classes : tuple of EventClass
    heads : np.ndarray [shape=(n_classes, dim + 1), dtype=float32]
        Linear heads, the bias last; zero where there is none.
    examples : np.ndarray [shape=(n_examples, dim), dtype=float32]
        Unit vectors, those of a class together and in the order of the classes.
    counts : tuple of int
        Examples of each class, at least one.
    segments : bool
        Whether it has learned from segments without what sounds beside them, and so is to be
        shown such in a clip; if not, windows as they are.
    """

    column: str
    encoder: EncoderInfo
    spec: FeatureSpec
    scaling: Scaling
    classes: tuple[EventClass, ...]
    heads: np.ndarray
    examples: np.ndarray
    counts: tuple[int, ...]
    segments: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [c.name for c in self.classes]

    @property
    def thresholds(self) -> np.ndarray:
        """Of every class [shape=(n_classes,)]."""
        return np.array([c.threshold for c in self.classes])

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """How likely each window holds each class.

        Parameters
        ----------
        vectors : np.ndarray [shape=(n, dim)]
            Unit vectors, from :attr:`scaling`; zero where it is silent.

        Returns
        -------
        scores : np.ndarray [shape=(n, n_classes), dtype=float32]
            0 to 1, and 0 where it is silent.
        """
        vectors = vectors.astype(np.float32, copy=False)
        near = nearest(vectors, self.examples, self.counts)
        head = vectors @ self.heads[:, :-1].T + self.heads[:, -1]
        table = np.array([[*c.near, *c.head, *c.calibration] for c in self.classes], np.float32)
        evidence = (
            table[:, 4]
            + table[:, 5] * (near - table[:, 0]) / table[:, 1]
            + table[:, 6] * (head - table[:, 2]) / table[:, 3]
        )
        scores = scipy.special.expit(evidence)
        scores[~vectors.any(axis=1)] = 0.0
        return scores

    def select(self, names: list[str]) -> EventModel:
        """The model with some of its classes.

        Raises
        ------
        EarmarkError
            If it does not know one of them.
        """
        check_names(names, self.names)
        chosen = [self.names.index(name) for name in names]
        ends = np.cumsum(self.counts)
        rows = [np.arange(ends[c] - self.counts[c], ends[c]) for c in chosen]
        return dataclasses.replace(
            self,
            classes=tuple(self.classes[c] for c in chosen),
            heads=self.heads[chosen],
            examples=self.examples[np.concatenate(rows)],
            counts=tuple(self.counts[c] for c in chosen),
        )

    def check(
        self,
        column: str,
        encoder: EncoderInfo,
        spec: FeatureSpec,
        scaling: Scaling | None = None,
    ) -> None:
        """Refuse embeddings that the model was not learned from.

        Parameters
        ----------
        column : str
        encoder : EncoderInfo
        spec : FeatureSpec
        scaling : Scaling, optional
            Of vectors that are there already.

        Raises
        ------
        EarmarkError
        """
        if scaling is not None and scaling.width != self.scaling.width:
            raise EarmarkError(
                f"this event model is of an earlier version of earmark: it knows vectors of "
                f"{self.scaling.width} numbers, and those of the column {column!r} have "
                f"{scaling.width}. Learn again with 'earmark events learn CATALOG --labels FILE'"
            )
        mine, theirs = self.encoder, encoder
        if (mine.sha256, mine.precision, self.spec) != (theirs.sha256, theirs.precision, spec):
            raise EarmarkError(
                f"this event model was learned from {mine.name} {mine.sha256[:12]} "
                f"({mine.precision}), and the column {column!r} was made by {theirs.name} "
                f"{theirs.sha256[:12]} ({theirs.precision}): learn again with 'earmark events "
                "learn', or use the catalog that it was learned from"
                if self.spec == spec
                else "this event model was learned from other features than the catalog's: learn "
                "again with 'earmark events learn'"
            )

    def save(self, folder: Path, labels: pa.Table) -> None:
        """Write it; a model that was there is replaced at once or not at all.

        Parameters
        ----------
        folder : Path
        labels : pa.Table
            Of :data:`LABELS`.

        Raises
        ------
        CatalogError
            If the disk is full or refuses.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EarmarkError(f"cannot make {folder}: {error.strerror}") from None
        width = self.heads.shape[1]
        # One array: an example is a head whose bias is 0.
        stacked = np.concatenate([self.heads, np.pad(self.examples, ((0, 0), (0, 1)))])
        buffer = io.BytesIO()
        np.save(buffer, stacked.astype(np.float32).reshape(-1, width))
        table = pa.BufferOutputStream()
        pq.write_table(labels.cast(LABELS), table, compression="zstd")
        files = {
            "vectors": _write(folder, "vectors", ".npy", buffer.getvalue()),
            "labels": _write(folder, "labels", ".parquet", table.getvalue().to_pybytes()),
        }
        content = {
            "format_version": FORMAT_VERSION,
            "column": self.column,
            "encoder": dataclasses.asdict(self.encoder),
            "spec": self.spec.to_dict(),
            "scaling": self.scaling.to_dict(),
            "classes": [dataclasses.asdict(c) for c in self.classes],
            "counts": list(self.counts),
            "segments": self.segments,
            "files": files,
        }
        with write_atomically(folder / _META) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
        for old in (*folder.glob("vectors-*.npy"), *folder.glob("labels-*.parquet")):
            if old.name not in files.values():
                old.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> EventModel:
        """Read a model.

        Raises
        ------
        EarmarkError
            If there is none, or it is damaged.
        """
        content = _read_meta(folder)
        try:
            classes = tuple(EventClass.from_dict(c) for c in content["classes"])
            vectors = np.load(
                io.BytesIO(_read(folder, content["files"]["vectors"])), allow_pickle=False
            )
            counts = tuple(int(n) for n in content["counts"])
            encoder = EncoderInfo(**content["encoder"])
            scaling = Scaling.from_dict(content["scaling"])
            expected = (len(classes) + sum(counts), scaling.width + 1)
            if vectors.shape != expected or len(counts) != len(classes) or min(counts) < 1:
                raise ValueError(f"vectors of {vectors.shape}, not {expected}")
            return cls(
                content["column"],
                encoder,
                FeatureSpec(**content["spec"]),
                scaling,
                classes,
                vectors[: len(classes)],
                vectors[len(classes) :, :-1],
                counts,
                bool(content.get("segments", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EarmarkError(f"the event model in {folder} is damaged: {error}") from None


def load_labels(folder: Path) -> pa.Table:
    """What the model in ``folder`` was learned from, of :data:`LABELS`."""
    content = _read(folder, _read_meta(folder)["files"]["labels"])
    return pq.read_table(pa.BufferReader(content)).cast(LABELS)


def check_names(names: list[str], known: list[str]) -> None:
    """Refuse names of classes that are not known.

    Raises
    ------
    EarmarkError
        If one is not.
    """
    if unknown := [name for name in names if name not in known]:
        raise EarmarkError(
            f"the model knows no {unknown[0]!r}, only {', '.join(known)}: teach it with "
            "'earmark events learn'"
        )


def nearest(vectors: np.ndarray, examples: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Similarity to the nearest example of each class.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, dim)]
    examples : np.ndarray [shape=(n_examples, dim)]
        Those of a class together.
    counts : tuple of int
        Examples of each class, at least one.

    Returns
    -------
    similarities : np.ndarray [shape=(n, n_classes)]
    """
    firsts = np.cumsum((0, *counts[:-1]))
    return np.maximum.reduceat(vectors @ examples.T, firsts, axis=1)


def _write(folder: Path, stem: str, suffix: str, content: bytes) -> str:
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    with write_atomically(folder / name) as file:
        file.write(content)
    return name


def _read(folder: Path, name: str) -> bytes:
    try:
        content = (folder / Path(name).name).read_bytes()
    except OSError as error:
        raise EarmarkError(
            f"the event model in {folder} is damaged: {name}: {error.strerror}"
        ) from None
    if hashlib.sha256(content).hexdigest()[:16] not in name:
        raise EarmarkError(f"the event model in {folder} is damaged: {name} is not as written")
    return content


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise EarmarkError(
            f"no event model in {folder}: make one with 'earmark events learn'"
        ) from None
    except (OSError, ValueError) as error:
        raise EarmarkError(f"{folder / _META} cannot be read: {error}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise EarmarkError(
            f"{folder} holds an event model of format {version}, and this version of earmark reads "
            f"{FORMAT_VERSION}"
        )
    return dict(content)
