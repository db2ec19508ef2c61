"""The row store of a generation: what is known of every window, row after row, memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

from index.generation import CHUNK, ROW_STORE, SIGNS, VECTORS, GenerationInfo, Stretch, damaged


def map_vectors(folder: Path, info: GenerationInfo, scattered: bool = False) -> np.ndarray:
    """The row store [shape=(n_vectors, dim), dtype=float16], memory-mapped and read-only.

    Parameters
    ----------
    folder : Path
    info : GenerationInfo
    scattered : bool
        Rows here and there will be wanted: read no more than those from disk.
    """
    return _map(folder / VECTORS, np.float16, (info.n_vectors, info.dim), scattered)


def map_signs(folder: Path, info: GenerationInfo, scattered: bool = False) -> np.ndarray:
    """The signs of every row [shape=(n_vectors, n_frames, n_words), dtype=uint32], mapped too."""
    return _map(folder / SIGNS, np.uint32, (info.n_vectors, *info.sign_shape), scattered)


def _map(path: Path, kind: type[np.generic], shape: tuple[int, ...], scattered: bool) -> np.ndarray:
    if not math.prod(shape):
        return np.empty(shape, kind)
    n_bytes = math.prod(shape) * np.dtype(kind).itemsize
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ)
    if scattered and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, kind).reshape(shape)


class RowWriter:
    """Appends rows to the row store: fingerprints and signs.

    Parameters
    ----------
    folder : Path
        Of the new generation.
    dim : int
        Of the fingerprints.
    sign_shape : tuple of int
        Of the signs of a row.
    known : GenerationInfo, optional
        Of the one before, when its rows stay; what a killed writer left behind them goes.

    Attributes
    ----------
    n_vectors : int
        Rows, with those of before.
    n_sounding : int
        Of those appended, rows that are not silence.
    """

    def __init__(
        self,
        folder: Path,
        dim: int,
        sign_shape: tuple[int, int],
        known: GenerationInfo | None = None,
    ) -> None:
        self.dim, self.sign_shape = dim, sign_shape
        self.n_vectors, self.n_sounding = known.n_vectors if known else 0, 0
        row_bytes = {VECTORS: 2 * dim, SIGNS: 4 * math.prod(sign_shape)}
        with contextlib.ExitStack() as opened:
            self._files = {
                name: opened.enter_context(
                    _Appending(folder / name, row_bytes[name] * self.n_vectors, known)
                )
                for name in ROW_STORE
            }
            self._opened = opened.pop_all()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    @property
    def files(self) -> dict[str, tuple[Stretch, ...]]:
        """What ``index.json`` says of the row store, once it is closed."""
        return {name: file.stretches for name, file in self._files.items()}

    def append(self, fingerprints: np.ndarray, signs: np.ndarray) -> None:
        """Add rows [shape=(n, dim)] and [shape=(n, n_frames, n_words)]."""
        self._files[VECTORS].write(np.ascontiguousarray(fingerprints, np.float16).tobytes())
        self._files[SIGNS].write(np.ascontiguousarray(signs, np.uint32).tobytes())
        self.n_vectors += len(fingerprints)
        self.n_sounding += int(fingerprints.any(axis=1).sum())


class _Appending:
    """A file that grows behind the bytes that a generation knows."""

    def __init__(self, path: Path, begin: int, known: GenerationInfo | None) -> None:
        self.stretches = known.files[path.name] if known else ()
        self._file: BinaryIO = path.open("r+b" if known else "xb")
        if path.stat().st_size > begin:
            self._file.truncate(begin)
        self._hash, self._n_bytes = hashlib.sha256(), 0
        # Many small stretches would make index.json long: the last one goes on.
        if self.stretches and (last := self.stretches[-1]).bytes < CHUNK:
            self._file.seek(begin - last.bytes)
            self._hash.update(self._file.read(last.bytes))
            if self._hash.hexdigest() != last.sha256:
                self._file.close()
                raise damaged(path.parent, f"{path.name} has changed since it was written")
            self.stretches, self._n_bytes = self.stretches[:-1], last.bytes
        self._file.seek(begin)

    def __enter__(self) -> _Appending:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._n_bytes:
            self.stretches += (Stretch(self._n_bytes, self._hash.hexdigest()),)

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._n_bytes += len(content)
