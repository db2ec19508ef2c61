"""The catalog: a folder of Parquet parts and of index generations.

::

    CATALOG/catalog.json                 format version, FeatureSpec, encoders
    CATALOG/recordings/part-*.parquet    one row for every input, good or bad
    CATALOG/windows/part-*.parquet       the windows of the recordings part of the same name
    CATALOG/columns/<name>/part-*        further embeddings of them: see index/columns.py
    CATALOG/index/<generation>/          an index; index/CURRENT names the live one

A recordings part is the commit of its windows part: windows without their twin do not exist for
a reader. The rows of one input may stand in several parts, when it changed between runs of
ingest or has been removed; that of the latest run counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import CatalogError
from index.config import CatalogConfig
from index.inputs import Inputs, latest, read_inputs, read_parts, to_index
from index.schema import FORMAT_VERSION, RECORDINGS
from index.storage import (
    TEMPORARY,
    PartWriter,
    live_generation,
    publish_generation,
    write_atomically,
)
from index.windows import join_spans, read_spans

_META = "catalog.json"
_LOCK = ".lock"
_FOLDERS = ("recordings", "windows", "index")


class Catalog:
    """An open catalog. Reading needs no lock; :meth:`writer_lock` is for whoever writes.

    >>> catalog = Catalog.open("my-catalog")
    >>> catalog.recordings(["uri", "status"]).to_pylist()
    """

    def __init__(self, path: Path, config: CatalogConfig) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: str | Path, config: CatalogConfig) -> Catalog:
        """Make a catalog in a new or empty folder.

        Raises
        ------
        CatalogError
            If the folder holds something else, or cannot be written to.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            strangers = [p.name for p in path.iterdir() if not _is_debris(p)]
            if strangers:
                raise CatalogError(
                    f"{path} is not empty and not a catalog (it holds {min(strangers)}): "
                    "choose another folder"
                )
            for folder in _FOLDERS:
                (path / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise CatalogError(f"cannot make a catalog in {path}: {error.strerror}") from None
        return cls(path, config).with_config(config)

    @classmethod
    def open(cls, path: str | Path, expected: CatalogConfig | None = None) -> Catalog:
        """Open a catalog.

        Parameters
        ----------
        path : str or Path
        expected : CatalogConfig, optional
            What the caller is going to write or search with.

        Raises
        ------
        CatalogError
            If there is none, or it is damaged, of another version, or not as expected.
        """
        path = Path(path)
        try:
            content = json.loads((path / _META).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise CatalogError(
                f"no catalog at {path}: make one with 'earmark ingest INPUT… --catalog {path}'"
            ) from None
        except OSError as error:
            raise CatalogError(f"cannot read {path / _META}: {error.strerror}") from None
        except ValueError as error:
            raise CatalogError(f"{path / _META} is damaged: {error}") from None
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise CatalogError(
                f"{path} has catalog format {version}, and this version of earmark reads "
                f"{FORMAT_VERSION}: ingest again into a new folder, or use the version of earmark "
                "that made it"
            )
        try:
            config = CatalogConfig.from_dict(content)
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogError(f"{path / _META} is damaged: {error!r}") from None
        if not (path / "recordings").is_dir():
            raise CatalogError(f"{path} is damaged: its folder recordings is missing")
        if expected is not None and (differences := config.differences(expected)):
            raise CatalogError(
                f"{path} was made with other settings ({'; '.join(differences)}): "
                "use the same ones, or ingest into a new folder"
            )
        return cls(path, config)

    def with_config(self, config: CatalogConfig) -> Catalog:
        """The same catalog after its description was replaced. Only under :meth:`writer_lock`."""
        with write_atomically(self.path / _META) as file:
            file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())
        return Catalog(self.path, config)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a catalog is at ``path``."""
        return (Path(path) / _META).is_file()

    @contextlib.contextmanager
    def writer_lock(self) -> Iterator[None]:
        """Be the only writer. The lock goes with the process, however that ends.

        Raises
        ------
        CatalogError
            At once if another process is writing.
        """
        import filelock

        try:
            with filelock.FileLock(self.path / _LOCK, timeout=0):
                yield
        except filelock.Timeout:
            raise CatalogError(
                f"another process is writing to {self.path}: wait for it to end"
            ) from None

    def clean(self) -> None:
        """Remove what a killed writer left behind. Only under :meth:`writer_lock`."""
        columns = [self.path / "columns" / name for name in self.config.columns]
        for folder in (self.path, *map(self.path.joinpath, _FOLDERS), *columns):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(f".*{TEMPORARY}"):
                _remove(path)
        committed = set(self.parts())
        for folder in (self.path / "windows", *columns):
            for path in folder.glob("part-*.parquet"):
                if path.name not in committed:
                    path.unlink()

    def parts(self) -> list[str]:
        """Names of the committed parts, those of earlier runs first."""
        return sorted(p.name for p in (self.path / "recordings").glob("part-*.parquet"))

    def has_part(self, name: str) -> bool:
        """Whether a part has been committed."""
        return (self.path / "recordings" / name).exists()

    @property
    def content_key(self) -> str:
        """Changes whenever a part is added or removed."""
        return hashlib.sha256("\n".join(self.parts()).encode()).hexdigest()[:12]

    def next_run(self) -> int:
        """Number of the next run of ingest."""
        parts = self.parts()
        return 1 + (int(parts[-1].split("-")[1]) if parts else 0)

    def part_writer(self) -> PartWriter:
        """Writer of a new part."""
        return PartWriter(self.path, self.config)

    def recordings(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The current row of every input, sorted by uri.

        Parameters
        ----------
        columns : sequence of str, optional
            Of ``index.schema.RECORDINGS``. [default: all]
        """
        names = list(columns) if columns is not None else RECORDINGS.names
        table = self._read_recordings([*dict.fromkeys([*names, "uri"])])
        return table.filter(table["current"]).sort_by("uri").select(names)

    def run_recordings(self, run: int) -> pa.Table:
        """All the rows that one run of ingest has committed so far."""
        parts = [name for name in self.parts() if name.startswith(run_prefix(run))]
        return self._read_recordings(RECORDINGS.names, parts).select(RECORDINGS.names)

    def all_rows(self, parts: list[str] | None = None) -> pa.Table:
        """Every row of every part, or of some, in the order of the parts.

        Returns
        -------
        table : pa.Table
            ``index.schema.RECORDINGS``; part, its number in :meth:`parts`; and current, whether no
            later run has another row for the same input.
        """
        return self._read_recordings(RECORDINGS.names, parts)

    def indexed_recordings(self) -> pa.Table:
        """Recordings that have windows, each once, in the order of :meth:`iter_windows`.

        The same bytes under several names are one recording, under the first of the names.

        Returns
        -------
        table : pa.Table
            recording_id, uri, seconds, n_windows, labels; part; and first_window, its first row
            in the windows of that part.
        """
        return to_index(self.inputs().table)

    def inputs(self, known: pa.Table | None = None) -> Inputs:
        """What every part says of its inputs.

        Parameters
        ----------
        known : pa.Table, optional
            ``index.schema.INPUTS`` of before; parts that it holds as they are now are not opened.
        """
        return read_inputs(self.path / "recordings", self.parts(), known)

    def iter_windows(
        self,
        columns: Sequence[str],
        batch_size: int = 4096,
        recordings: pa.Table | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The windows of :meth:`indexed_recordings`, in its order; each recording's in time order.

        Parameters
        ----------
        columns : sequence of str
            Of ``config.windows_schema``.
        batch_size : int
            Rows in memory at a time, and at most in a batch.
        recordings : pa.Table, optional
            Only these rows of :meth:`indexed_recordings`, in its order.

        Raises
        ------
        CatalogError
            If a part is missing or damaged.
        """
        for part, spans in self.window_spans(recordings):
            path = self.path / "windows" / part
            yield from read_spans(path, spans, columns, batch_size, self.config.windows_schema)

    def window_spans(
        self, recordings: pa.Table | None = None
    ) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """Parts, and the spans of rows in them that hold :meth:`indexed_recordings`.

        Parameters
        ----------
        recordings : pa.Table, optional
            Only these rows of it, in its order.
        """
        chosen = self.indexed_recordings() if recordings is None else recordings
        if not chosen.num_rows:
            return
        part = pc.dictionary_encode(chosen["part"].combine_chunks())
        first, n = chosen["first_window"].to_numpy(), chosen["n_windows"].to_numpy()
        borders = np.flatnonzero(np.diff(part.indices.to_numpy()) != 0) + 1
        for name, mine in zip(
            part.dictionary.to_pylist(), np.split(np.arange(len(n)), borders), strict=True
        ):
            yield name, join_spans(first[mine], first[mine] + n[mine])

    def _read_recordings(self, columns: list[str], parts: list[str] | None = None) -> pa.Table:
        # Adds: part (number in parts()), current (not superseded by a later run).
        names = self.parts() if parts is None else parts
        table = read_parts(self.path / "recordings", names, columns)
        return table.append_column("current", pa.array(latest(table["uri"])))

    def n_bytes(self) -> int:
        """Bytes on disk of all files."""
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())

    def current_generation(self) -> Path | None:
        """Folder of the live index, if there is one."""
        return live_generation(self.path / "index")

    def index_is_current(self) -> bool:
        """Whether the live index was built from the parts there are now."""
        generation = self.current_generation()
        return generation is not None and generation.name.endswith(f"-{self.content_key}")

    def new_generation(self) -> contextlib.AbstractContextManager[Path]:
        """A folder to build an index in, published on leaving. Only under :meth:`writer_lock`.

        The generation before stays, for readers that have just opened it; older ones go.
        """
        return publish_generation(self.path / "index", self.content_key)


def run_prefix(run: int) -> str:
    """How the names of the parts of one run of ingest begin."""
    return f"part-{run:06d}-"


def part_name(run: int, config: CatalogConfig, identities: Sequence[object]) -> str:
    """Name of a part: the same inputs and settings in the same run give the same name.

    Parameters
    ----------
    run : int
    config : CatalogConfig
    identities : sequence
        (uri, bytes, time of change) of every input, JSON-serialisable.
    """
    content = json.dumps([config.sha256, list(identities)])
    return f"{run_prefix(run)}{hashlib.sha256(content.encode()).hexdigest()[:16]}.parquet"


def _is_debris(path: Path) -> bool:
    # What a writer killed before catalog.json was there can have left.
    return (
        path.name == _LOCK
        or (path.name.startswith(".") and path.name.endswith(TEMPORARY))
        or (path.name in _FOLDERS and not any(path.iterdir()))
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
