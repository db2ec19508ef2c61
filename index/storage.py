"""Files and folders that appear whole or not at all; the writer of one part of a catalog."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import CatalogError
from index.config import CatalogConfig

TEMPORARY = ".tmp"
"""Suffix of unfinished files and folders; the next ingest removes them."""

_CURRENT = "CURRENT"

# Windows per Parquet row group: some megabytes, which is what a writer holds in memory.
_ROWS_PER_GROUP = 4096


def write_error(path: Path, error: OSError) -> CatalogError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CatalogError(
            f"disk full: free space on the file system of {path} and run the same command again; "
            "nothing is half-written"
        )
    return CatalogError(
        f"cannot write to {path}: {error.strerror or error}; nothing is half-written, "
        "run the same command again when that is solved"
    )


def temporary_name(path: Path) -> Path:
    """A new hidden name beside ``path``."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished and synced file or folder its name."""
    temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when it is complete and on disk.

    Raises
    ------
    CatalogError
        If the disk is full or refuses; the temporary file is gone then.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    except OSError as error:
        raise write_error(path.parent, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def live_generation(root: Path) -> Path | None:
    """The folder in ``root`` that its file ``CURRENT`` names, if it is there."""
    try:
        name = (root / _CURRENT).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    folder = root / name
    return folder if name and folder.is_dir() else None


@contextlib.contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name on leaving, with all its files on disk, or never.

    Raises
    ------
    CatalogError
        If the disk is full or refuses; nothing is left then.
    """
    building = temporary_name(final)
    try:
        building.mkdir(parents=True)
        yield building
        for path in building.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(building)
        publish(building, final)
    except OSError as error:
        raise write_error(final.parent, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def publish_generation(root: Path, key: str) -> Iterator[Path]:
    """A folder to fill, which becomes the live one of ``root`` on leaving, or never exists.

    The live one before stays; older ones go.

    Parameters
    ----------
    root : Path
    key : str
        Ends the name of the new folder; a number begins it.

    Raises
    ------
    CatalogError
        If the disk is full or refuses.
    """
    previous = live_generation(root)
    published = sorted(p for p in root.glob("[0-9]*-*") if p.is_dir())
    number = 1 + (int(published[-1].name.split("-")[0]) if published else 0)
    final = root / f"{number:06d}-{key}"
    with publish_folder(final) as building:
        yield building
    with write_atomically(root / _CURRENT) as current:
        current.write(f"{final.name}\n".encode())
    for folder in published:
        if folder != previous:
            shutil.rmtree(folder, ignore_errors=True)


class RowsWriter:
    """Writes a Parquet file row group by row group; it has no name before :meth:`commit`.

    Used as a context manager; leaving it without a commit leaves nothing behind.

    Parameters
    ----------
    folder : Path
        Where the file is to be.
    schema : pa.Schema
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._pending: list[pa.RecordBatch] = []
        self._n_pending = 0
        self._temporary = temporary_name(folder / "part")
        try:
            self._file = self._temporary.open("xb")
            self._writer = pq.ParquetWriter(
                self._file, schema, compression="zstd", write_page_checksum=True
            )
        except OSError as error:
            self._discard()
            raise write_error(folder, error) from error

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._pending.append(batch)
        self._n_pending += batch.num_rows
        if self._n_pending >= _ROWS_PER_GROUP:
            self._flush()

    def commit(self, name: str) -> None:
        """Put it on disk and give it its name."""
        self._flush()
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            publish(self._temporary, self._folder / name)
        except OSError as error:
            raise write_error(self._folder, error) from error

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending)
        self._pending, self._n_pending = [], 0
        try:
            self._writer.write_table(table.combine_chunks())
        except OSError as error:
            raise write_error(self._folder, error) from error

    def _discard(self) -> None:
        # Closing writes the Parquet footer, which a full disk refuses.
        with contextlib.suppress(OSError, AttributeError):
            self._writer.close()
        with contextlib.suppress(OSError, AttributeError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class PartWriter:
    """Writes one part: windows as they come, then, as the commit, the rows of the recordings.

    Used as a context manager; leaving it without :meth:`commit` leaves nothing behind.

    Parameters
    ----------
    root : Path
        The catalog's folder.
    config : CatalogConfig
        With the schemas of all columns.
    """

    def __init__(self, root: Path, config: CatalogConfig) -> None:
        self._recordings = root / "recordings"
        self._recordings_schema = config.recordings_schema
        with contextlib.ExitStack() as stack:
            self._columns = {
                name: stack.enter_context(RowsWriter(root / "columns" / name, schema))
                for name, schema in config.column_schemas.items()
            }
            self._windows = stack.enter_context(RowsWriter(root / "windows", config.windows_schema))
            self._stack = stack.pop_all()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write_windows(
        self, batch: pa.RecordBatch, columns: dict[str, pa.RecordBatch] | None = None
    ) -> None:
        """Add windows; those of a recording together and in time order.

        Parameters
        ----------
        batch : pa.RecordBatch
        columns : dict of pa.RecordBatch
            The same windows' rows of every further column.
        """
        self._windows.write(batch)
        for name, writer in self._columns.items():
            writer.write((columns or {})[name])

    def commit(self, name: str, recordings: pa.Table) -> None:
        """Give the part its name: first its windows and columns, then its recordings.

        Parameters
        ----------
        name : str
            File name, the same in all folders.
        recordings : pa.Table
            Rows in the order in which their windows were written.
        """
        for writer in (*self._columns.values(), self._windows):
            writer.commit(name)
        with write_atomically(self._recordings / name) as file:
            table = recordings.cast(self._recordings_schema)
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
