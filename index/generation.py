"""One generation of the index on disk: what it is made of, and whether it still is.

::

    index.json           GenerationInfo, with the size and sha256 of every other file and of itself
    rows-<n>.parquet     index.schema.ROWS: which rows belong to which recording
    inputs-<n>.parquet   index.schema.INPUTS: what the parts of the catalog said of their inputs
    vectors.f16          every fingerprint, float16, row after row, without a header
    signs.u32            the signs of every window (encoders.signs), in the same way
    trained.faiss        the quantiser, without vectors; not for Flat
    lists-<n>.bin        index.lists: the inverted lists of a stretch of the rows

A generation shares with the one before, as hard links, the files that have not changed. Only
the row store, ``vectors.f16`` and ``signs.u32``, is ever written to again, behind the last row that
anybody reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import CatalogError
from index.policy import IndexKind
from index.schema import INPUTS, ROWS

INFO = "index.json"
VECTORS = "vectors.f16"
SIGNS = "signs.u32"
ROW_STORE = (VECTORS, SIGNS)
TRAINED = "trained.faiss"

_FORMAT = 3
# Files up to this size are read whole when an index is opened.
_CHECKED_ON_OPEN = 16 << 20
CHUNK = 8 << 20
"""Bytes that are read at a time."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Bytes of a file that were written at once: how many, and their sha256."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Segment:
    """The inverted lists of the rows up to ``end_row``, from where the segment before ends.

    ``n_vectors`` of them are in it: not silence, nor what was removed.
    """

    file: str
    end_row: int
    n_vectors: int


@dataclasses.dataclass(frozen=True)
class GenerationInfo:
    """What ``index.json`` says.

    Attributes
    ----------
    encoder_sha256 : str
    kind : IndexKind
    by_size : bool
        Whether :mod:`index.policy` chose the kind, and not the user.
    dim : int
    sign_shape : tuple of int
        Of the signs of a row: frames, and words of each.
    n_rows, n_recordings : int
        Windows and recordings that can be found.
    n_vectors : int
        Rows of ``vectors.f16``, those of removed recordings too.
    n_sounding, n_at_build : int
        Windows that are not silence: now, and when all of it was built.
    recall : float
        Share of the queries of the last check whose nearest fingerprint was found.
    strangers : float
        Similarity of a window to the nearest of another recording, when all of it was built: the
        median. 1 where it is not known.
    row_tables : tuple of str
    segments : tuple of Segment
    files : dict of (str, tuple of Stretch)
    """

    encoder_sha256: str
    kind: IndexKind
    by_size: bool
    dim: int
    sign_shape: tuple[int, int]
    n_rows: int
    n_recordings: int
    n_vectors: int
    n_sounding: int
    n_at_build: int
    recall: float
    row_tables: tuple[str, ...]
    segments: tuple[Segment, ...]
    strangers: float = 1.0
    files: dict[str, tuple[Stretch, ...]] = dataclasses.field(default_factory=dict)

    @property
    def factory(self) -> str:
        """FAISS factory string."""
        return self.kind.factory

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content = {"format_version": _FORMAT, **dataclasses.asdict(self)}
        return {**content, "sha256": _sha256_of(content)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> GenerationInfo:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is not.
        """
        content = dict(content)
        version = content.get("format_version")
        if version != _FORMAT:
            raise ValueError(f"format {version}, not {_FORMAT}")
        if content.pop("sha256") != _sha256_of(content):
            raise ValueError("it has changed since it was written")
        del content["format_version"]
        content["kind"] = IndexKind(**content["kind"])
        content["sign_shape"] = tuple(content["sign_shape"])
        content["row_tables"] = tuple(content["row_tables"])
        content["segments"] = tuple(Segment(**s) for s in content["segments"])
        content["files"] = {
            name: tuple(Stretch(**s) for s in stretches)
            for name, stretches in content["files"].items()
        }
        return cls(**content)

    @property
    def input_tables(self) -> tuple[str, ...]:
        """Files of what the catalog said of its inputs; none in an index of before there were."""
        return tuple(sorted(name for name in self.files if name.startswith("inputs-")))

    @property
    def bytes_per_window(self) -> float:
        """Bytes that a search works on, for each window; the row store is not among them."""
        names = [TRAINED, *(s.file for s in self.segments)] if self.segments else [VECTORS]
        return sum(_n_bytes(self.files[name]) for name in names) / max(1, self.n_rows)


def damaged(folder: Path, reason: object) -> CatalogError:
    """The sentence for an index that cannot be used."""
    return CatalogError(
        f"the index in {folder} is damaged ({reason}); build it again with "
        f"'earmark index {folder.parent.parent} --rebuild'"
    )


def read_info(folder: Path) -> GenerationInfo:
    """Read ``index.json``.

    Raises
    ------
    CatalogError
        If it is missing or damaged.
    """
    try:
        content = json.loads((folder / INFO).read_text(encoding="utf-8"))
        return GenerationInfo.from_dict(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(folder, f"{INFO}: {error}") from None


def write_info(folder: Path, info: GenerationInfo, known: GenerationInfo | None = None) -> None:
    """Hash the files of a finished generation and write its ``index.json``.

    Parameters
    ----------
    folder : Path
    info : GenerationInfo
        Its ``files`` need only hold those whose stretches are known.
    known : GenerationInfo, optional
        Of the generation before; a file of the same name is the same file.
    """
    files = dict(info.files)
    for path in sorted(folder.iterdir()):
        if path.name == INFO or path.name in files:
            continue
        if known is not None and path.name in known.files:
            files[path.name] = known.files[path.name]
        else:
            with path.open("rb") as file:
                files[path.name] = (hash_stretch(file, path.stat().st_size),)
    content = dataclasses.replace(info, files=files).to_dict()
    (folder / INFO).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_files(folder: Path, info: GenerationInfo, everything: bool = False) -> None:
    """Compare the files of a generation with what ``index.json`` says of them.

    Parameters
    ----------
    folder : Path
    info : GenerationInfo
    everything : bool
        Hash large files, too, and not only look at their sizes.

    Raises
    ------
    CatalogError
        Names the first file that is missing, too short or changed.
    """
    for name, stretches in info.files.items():
        path, expected = folder / name, _n_bytes(stretches)
        try:
            n_bytes = path.stat().st_size
            if n_bytes < expected:
                raise damaged(folder, f"{name} holds {n_bytes:,} of {expected:,} bytes")
            if not everything and expected > _CHECKED_ON_OPEN:
                continue
            with path.open("rb") as file:
                for stretch in stretches:
                    if hash_stretch(file, stretch.bytes) != stretch:
                        raise damaged(folder, f"{name} has changed since it was written")
        except OSError as error:
            raise damaged(folder, f"{name}: {error.strerror}") from None


def read_rows(folder: Path, info: GenerationInfo) -> pa.Table:
    """The row table.

    Raises
    ------
    CatalogError
        If it is damaged or does not fit the rest.
    """
    rows = _read_tables(folder, info.row_tables, ROWS)
    if rows["n_rows"].to_numpy().sum() != info.n_rows or rows.num_rows != info.n_recordings:
        raise damaged(folder, "its files are of different generations")
    return rows


def read_known_inputs(folder: Path, info: GenerationInfo) -> pa.Table:
    """What the catalog said of its inputs when the generation was made: ``index.schema.INPUTS``.

    Raises
    ------
    CatalogError
        If it is damaged.
    """
    return _read_tables(folder, info.input_tables, INPUTS)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of a generation."""
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def live_rows(rows: pa.Table) -> np.ndarray:
    """Numbers of all the rows of a row table, in its order [shape=(n_rows,), dtype=int64]."""
    first, n = rows["first_row"].to_numpy(), rows["n_rows"].to_numpy()
    return np.arange(n.sum()) + np.repeat(first - (np.cumsum(n) - n), n)


def next_number(info: GenerationInfo) -> int:
    """A number that no file of a generation bears in its name."""
    numbers = re.findall(r"-(\d+)\.", " ".join(info.files))
    return 1 + max(map(int, numbers), default=0)


def link_files(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Share files with another generation; they are copied where there are no hard links."""
    for name in names:
        try:
            os.link(source / name, folder / name)
        except OSError:
            with (source / name).open("rb") as old, (folder / name).open("xb") as new:
                while chunk := old.read(CHUNK):
                    new.write(chunk)


def _read_tables(folder: Path, names: Iterable[str], schema: pa.Schema) -> pa.Table:
    try:
        tables = [
            pq.read_table(folder / name, schema=schema, page_checksum_verification=True)
            for name in names
        ]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(folder, error) from None
    return pa.concat_tables([schema.empty_table(), *tables])


def hash_stretch(file: BinaryIO, n_bytes: int) -> Stretch:
    digest, left = hashlib.sha256(), n_bytes
    while left and (chunk := file.read(min(left, CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return Stretch(n_bytes - left, digest.hexdigest())


def _n_bytes(stretches: tuple[Stretch, ...]) -> int:
    return sum(s.bytes for s in stretches)


def _sha256_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
