"""A trained encoder on disk: weights, the features it was trained on, and its threshold.

A bundle is a folder::

    bundle.json        what it is, its FeatureSpec, inputs and decision, the hash of every file
    int8.tflite        the network in 8-bit integers, about three times faster
    float32.tflite     the same network computed in float32 (weights stored as float16)
    decoder.tflite     of an autoencoder: latents back to levels
    README.md          the model card

Inference is LiteRT on the CPU; TensorFlow is not needed. No code and no pickle is loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from encoders.decision import Decision, Likeness
from encoders.errors import BundleError
from encoders.features import FeatureSpec
from encoders.levels import input_from_dict

FORMAT_VERSION = 1
SHIPPED = Path(__file__).parent / "bundles"

Precision = Literal["int8", "float32"]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the evidence for a match becomes a score between 0 and 1.

    A logistic regression; fitted on clips that are in a data base and clips that are not, with the
    bundle's own fingerprints.

    Attributes
    ----------
    intercept : float
    weights : mapping of str to float
        Of each feature of the evidence (:class:`index.match.Evidence`).
    threshold : float
        The score from which a match is reported.
    """

    intercept: float = -5.0
    weights: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"field": 40.0, "focus": 10.0, "length": 0.5, "share": 4.0}
    )
    threshold: float = 0.5

    @classmethod
    def from_dict(cls, meta: Mapping[str, Any]) -> Calibration:
        """Read what a bundle holds.

        Before version 0.2 the weights stood beside the intercept; the lead was called margin.
        """
        meta = dict(meta)
        if "weights" not in meta:
            old = {"similarity": "similarity", "margin": "lead", "length": "length"}
            weights = {new: float(meta.pop(name)) for name, new in old.items() if name in meta}
            return cls(**meta, weights=weights | {"share": 4.0}) if weights else cls(**meta)
        return cls(**meta)

    def logit(self, features: Mapping[str, float]) -> float:
        """Logarithm of the odds that a match is right.

        Parameters
        ----------
        features : mapping of str to float
            Evidence by name; what has no weight does not count.
        """
        return self.intercept + sum(w * features[name] for name, w in self.weights.items())

    def score(self, features: Mapping[str, float]) -> float:
        """Score of a match: the probability that it is right."""
        return probability(self.logit(features))


def probability(logit: float) -> float:
    """Inverse of the logit; never quite 0 or 1."""
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, logit))))


class Network:
    """A LiteRT network for batches of any size, safe to call from several threads.

    Parameters
    ----------
    path : Path
        A ``.tflite`` file with one input and one output.
    """

    # Batches are cut to these sizes, so that a tensor is allocated once for each size and thread.
    _SIZES = (64, 8, 1)

    def __init__(self, path: Path) -> None:
        self._model = path.read_bytes()
        self._local = threading.local()
        with _without_stderr():
            self._run(np.zeros((1, *self.input_shape), np.float32))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return tuple(int(n) for n in self._interpreter(1).get_input_details()[0]["shape"][1:])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one result."""
        return tuple(int(n) for n in self._interpreter(1).get_output_details()[0]["shape"][1:])

    def __call__(self, items: np.ndarray) -> np.ndarray:
        """Run the network.

        Parameters
        ----------
        items : np.ndarray [shape=(n, ...)]

        Returns
        -------
        results : np.ndarray [shape=(n, ...), dtype=float32]
        """
        results = np.empty((len(items), *self.output_shape), np.float32)
        start = 0
        while start < len(items):
            size = next(s for s in self._SIZES if s <= len(items) - start)
            results[start : start + size] = self._run(items[start : start + size])
            start += size
        return results

    def _run(self, batch: np.ndarray) -> np.ndarray:
        interpreter = self._interpreter(len(batch))
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], batch.astype(np.float32, copy=False)
        )
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    def _interpreter(self, batch: int) -> Any:
        interpreters = self._local.__dict__.setdefault("by_batch", {})
        if batch not in interpreters:
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=self._model, num_threads=1)
            details = interpreter.get_input_details()[0]
            interpreter.resize_tensor_input(details["index"], [batch, *details["shape"][1:]])
            interpreter.allocate_tensors()
            interpreters[batch] = interpreter
        return interpreters[batch]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    # LiteRT greets every process with a line that nobody asked for, and has no switch for it.
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Bundle:
    """A trained encoder, ready to run.

    Attributes
    ----------
    name : str
    kind : str
        ``"siamese"`` (unit vectors, compared by inner product), ``"vae"`` (posterior means) or
        ``"detector"`` (:class:`encoders.detector.Detector`).
    sha256 : str
        Hash of everything that shapes its vectors. Outputs carry it; vectors of different bundles
        are never compared.
    spec : FeatureSpec
    dim : int
    precision : str
    calibration : Calibration
    decision : Decision or None
        When two fingerprints are of the same sound, if that was calibrated.
    likeness : Likeness or None
        When two sounds are of the same kind, if that was.
    """

    def __init__(self, folder: Path, precision: Precision = "int8") -> None:
        self.folder = folder
        self.precision = precision
        meta = _read_meta(folder)
        self.meta = meta
        try:
            self.name = str(meta["name"])
            self.kind = str(meta["kind"])
            self.dim = int(meta["dim"])
            self.spec = FeatureSpec(**meta["spec"])
            self.inputs = input_from_dict(meta["inputs"])
            self.calibration = Calibration.from_dict(meta.get("calibration", {}))
            decision = meta.get("decision")
            self.decision = Decision(**decision) if decision is not None else None
            likeness = meta.get("likeness")
            self.likeness = Likeness(**likeness) if likeness is not None else None
            self.sha256 = bundle_hash(meta)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{folder / 'bundle.json'} does not describe a bundle: {error}"
            ) from None
        if f"{precision}.tflite" not in meta["files"]:
            raise BundleError(f"the bundle at {folder} has no {precision} network")
        for file, digest in meta["files"].items():
            if _file_hash(folder / file) != digest:
                raise BundleError(f"{folder / file} is damaged: its hash is not the one recorded")
        self._network = Network(folder / f"{precision}.tflite")
        if self._network.output_shape[-1] < self.dim:
            raise BundleError(f"{folder} promises {self.dim} dimensions and gives fewer")

    def encode(self, windows: np.ndarray) -> np.ndarray:
        """Embed windows.

        Parameters
        ----------
        windows : np.ndarray [shape=(n, window_frames, n_mels)]
            Log-mel, dB, made by :attr:`spec`.

        Returns
        -------
        embeddings : np.ndarray [shape=(n, dim), dtype=float32]
        """
        # An autoencoder's log-variances come after its means.
        embeddings = self.run(windows)[:, : self.dim]
        return unit_vectors(embeddings) if self.kind == "siamese" else embeddings

    def run(self, windows: np.ndarray) -> np.ndarray:
        """What the network itself says of windows [shape=(n, ...), dtype=float32].

        Parameters
        ----------
        windows : np.ndarray [shape=(n, window_frames, n_mels)]
            Log-mel, dB, made by :attr:`spec`.
        """
        expected = (self.spec.window_frames, self.spec.n_mels)
        if windows.shape[1:] != expected:
            raise BundleError(
                f"{self.name} was trained on windows of {expected}, got {windows.shape[1:]}"
            )
        return self._network(self.inputs(windows))

    def same(self, a: np.ndarray, b: np.ndarray, strict: bool = False) -> np.ndarray:
        """Whether two windows are the same sound, for many pairs at once.

        Parameters
        ----------
        a, b : np.ndarray [shape=(n, dim)]
            From :meth:`encode`; each row of ``a`` is compared with the same row of ``b``.
        strict : bool
            Accept one different pair in a hundred; by default, as large a share of them as is
            rejected of the same pairs.

        Returns
        -------
        same : np.ndarray [shape=(n,), dtype=bool]

        Raises
        ------
        BundleError
            If the bundle has no calibrated decision.
        """
        if self.decision is None:
            raise BundleError(f"{self.name} has no threshold for pairs of windows")
        return self.decision.same(a, b, strict)

    def check_spec(self, spec: FeatureSpec) -> None:
        """Refuse features that the encoder was not trained on."""
        if spec != self.spec:
            raise BundleError(
                f"encoder {self.name} needs other features than these: "
                f"{self.spec.to_dict()} and not {spec.to_dict()}"
            )

    def decoder(self) -> Network:
        """Of an autoencoder: latents [shape=(n, dim)] to levels [shape=(n, frames, bands)]."""
        if self.kind != "vae":
            raise BundleError(f"{self.name} is a {self.kind}: it has no decoder")
        return Network(self.folder / "decoder.tflite")


def unit_vectors(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length [shape=(n, dim)]; a zero row stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-9))


def load_bundle(name_or_path: str | Path, precision: str = "int8") -> Bundle:
    """Load a shipped bundle by its name (``fingerprint``, ``vae``, ``event``) or by a folder."""
    if precision not in ("int8", "float32"):
        raise BundleError(f"unknown precision {precision!r}: int8 or float32")
    shipped = SHIPPED / str(name_or_path)
    folder = shipped if (shipped / "bundle.json").exists() else Path(name_or_path)
    return Bundle(folder, cast(Precision, precision))


def bundle_hash(meta: dict[str, Any]) -> str:
    """Hash of what shapes the vectors: kind, features, inputs and networks, not the calibration."""
    shaping = {key: meta[key] for key in ("kind", "dim", "spec", "inputs", "files")}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write ``bundle.json`` with the hashes of the networks in ``folder``."""
    files = {p.name: _file_hash(p) for p in sorted(folder.glob("*.tflite"))}
    content = {"format_version": FORMAT_VERSION, **meta, "files": files}
    _replace_meta(folder, content)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Store a new calibration in a bundle; its hash, and so the catalogs made with it, stay."""
    update_meta(folder, calibration=dataclasses.asdict(calibration))


def write_decision(folder: Path, decision: Decision) -> None:
    """Store when two fingerprints are of the same sound; the bundle's hash stays."""
    update_meta(folder, decision=dataclasses.asdict(decision))


def write_likeness(folder: Path, likeness: Likeness) -> None:
    """Store when two sounds are of the same kind; the bundle's hash stays."""
    update_meta(folder, likeness=dataclasses.asdict(likeness))


def update_meta(folder: Path, **fields: Any) -> None:
    """Store fields that do not shape what the networks give; the bundle's hash stays."""
    _replace_meta(folder, _read_meta(folder) | fields)


def _replace_meta(folder: Path, content: dict[str, Any]) -> None:
    temporary = folder / ".bundle.json.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / "bundle.json")


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        known = sorted(p.parent.name for p in SHIPPED.glob("*/bundle.json"))
        raise BundleError(
            f"no encoder bundle at {folder}; shipped with earmark: {', '.join(known)}"
        ) from None
    except ValueError as error:
        raise BundleError(f"{folder / 'bundle.json'} is not valid JSON: {error}") from None
    if not isinstance(meta, dict):
        raise BundleError(f"{folder / 'bundle.json'} does not describe a bundle")
    if meta.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{folder} has bundle format {meta.get('format_version')}, "
            f"this version of earmark reads {FORMAT_VERSION}"
        )
    return cast(dict[str, Any], meta)


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
