"""What to ingest: files, folders, globs, URIs and manifests become a sorted list of inputs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import glob
import io
import json
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from encoders.errors import EarmarkError

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".avi", ".caf",
    ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3",
    ".mp4", ".mpc", ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".ra", ".rf64",
    ".rm", ".snd", ".spx", ".ts", ".tta", ".vob", ".voc", ".w64", ".wav", ".wave", ".weba",
    ".webm", ".wma", ".wmv", ".wv",
})
# fmt: on
"""Names that are tried when a folder is given; files that are named themselves always are."""

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclasses.dataclass(frozen=True)
class Input:
    """One thing to ingest.

    Parameters
    ----------
    uri : str
        As given; a file in a folder is the folder as given joined with the relative path.
    n_bytes, modified_ns : int or None
        As listed. With the uri they are its identity: a file that changed is ingested again.
    labels : tuple of (str, str)
        From a manifest.
    problem : (str, str) or None
        Stage and reason, when listing has already shown that there is nothing to read.
    named : bool
        Whether the user named it, rather than a folder or a pattern that it is in.
    """

    uri: str
    n_bytes: int | None = None
    modified_ns: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    problem: tuple[str, str] | None = None
    named: bool = False

    @property
    def identity(self) -> tuple[str, int | None, int | None]:
        """What tells this input, in this state, from every other."""
        return self.uri, self.n_bytes, self.modified_ns


@dataclasses.dataclass(frozen=True)
class Listing:
    """All inputs, sorted by uri, each once."""

    inputs: list[Input]
    n_duplicates: int
    n_not_audio: int


def list_inputs(
    given: Iterable[str], *, all_files: bool = False, exclude: Path | None = None
) -> Listing:
    """List what is to be ingested.

    Parameters
    ----------
    given : iterable of str
        Files, folders, globs, URIs of any file system that Beam knows, manifests.
    all_files : bool
        Try every file of a folder, whatever its name.
    exclude : Path, optional
        A folder not to look into: the catalog.

    Raises
    ------
    EarmarkError
        If a manifest cannot be read.
    """
    lister = _Lister(all_files, exclude)
    found: dict[str, Input] = {}
    n = 0
    for token in given:
        for item in lister.expand(token):
            n += 1
            known = found.get(item.uri)
            if known is not None:
                item = dataclasses.replace(
                    item if item.labels else known, named=item.named or known.named
                )
            found[item.uri] = item
    inputs = [found[uri] for uri in sorted(found)]
    return Listing(inputs, n_duplicates=n - len(inputs), n_not_audio=lister.n_not_audio)


def open_input(uri: str) -> BinaryIO:
    """Open an input for reading, seekable.

    Raises
    ------
    OSError
    """
    path = local_path(uri)
    if path is not None:
        return path.open("rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    compression = CompressionTypes.UNCOMPRESSED
    return FileSystems.open(uri, compression_type=compression)


def local_path(uri: str) -> Path | None:
    """The local path of a uri, None if it is on another file system."""
    if uri.startswith("file://"):
        path = urllib.parse.unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost"))
        return Path(os.fsdecode(path))
    return None if _SCHEME.match(uri) else Path(uri)


def path_to_uri(path: str) -> str:
    """The uri of a local path: itself, or a ``file://`` URI if it is not valid Unicode."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + urllib.parse.quote(os.fsencode(Path(path).absolute()))
    return path


class _Lister:
    def __init__(self, all_files: bool, exclude: Path | None) -> None:
        self.all_files = all_files
        self.n_not_audio = 0
        self._excluded = _file_id(exclude) if exclude else None

    def expand(self, given: str) -> Iterator[Input]:
        path = local_path(given)
        if path is None:
            yield from self._expand_remote(given)
            return
        # Path would tidy "./x" to "x", and a uri stays as it was given.
        name = os.fspath(path) if given.startswith("file://") else given
        if glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
            if not matches:
                problem = ("list", "no file matches this pattern")
                yield Input(path_to_uri(name), problem=problem, named=True)
            for match in matches:
                yield from self._expand_local(match, {}, named=False)
        elif path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
            yield from self._expand_manifest(given)
        else:
            yield from self._expand_local(name, {}, named=True, as_uri=given.startswith("file://"))

    def _expand_local(
        self, name: str, labels: Mapping[str, str], named: bool, as_uri: bool = False
    ) -> Iterator[Input]:
        try:
            is_folder = Path(name).is_dir()
        except OSError:
            is_folder = False
        found = self._walk(name) if is_folder else [_describe(name, named)]
        for item in found:
            if as_uri and not item.uri.startswith("file://"):
                item = dataclasses.replace(item, uri=_file_uri(item.uri))
            yield dataclasses.replace(item, labels=tuple(labels.items())) if labels else item

    def _walk(self, root: str) -> Iterator[Input]:
        # Real folders first: a folder is listed once, and under its own name rather than a link's.
        folders, links = [root], list[str]()
        seen = {self._excluded}
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                file_id = _file_id(Path(folder))
                if file_id in seen:
                    continue
                seen.add(file_id)
                with os.scandir(folder) as entries:
                    content = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                yield Input(path_to_uri(folder), problem=("list", _reason(error)))
                continue
            for entry in content:
                if _is_folder(entry):
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif self._is_audio(entry.name):
                    yield _describe(entry.path)
            links.sort()

    def _is_audio(self, name: str) -> bool:
        # rpartition, as Path(".mp3").suffix is empty.
        if self.all_files or "." + name.rpartition(".")[2].lower() in AUDIO_SUFFIXES:
            return True
        self.n_not_audio += 1
        return False

    def _expand_manifest(self, given: str) -> Iterator[Input]:
        path = local_path(given)
        folder = given.rpartition("/")[0]
        for uri, labels in read_manifest(given):
            if path is None or given.startswith("file://"):
                quoted = uri if path is None else urllib.parse.quote(uri)
                full = uri if _SCHEME.match(uri) else f"{folder}/{quoted}"
            else:
                full = uri if _SCHEME.match(uri) else str(path.parent / uri)
            if local_path(full) is None:
                yield from self._expand_remote(full, labels)
            else:
                name = os.fspath(cast(Path, local_path(full)))
                as_uri = full.startswith("file://")
                yield from self._expand_local(name, labels, named=True, as_uri=as_uri)

    def _expand_remote(self, uri: str, labels: Mapping[str, str] | None = None) -> Iterator[Input]:
        from apache_beam.io.filesystems import FileSystems

        pairs = tuple((labels or {}).items())
        suffix = "." + uri.rpartition(".")[2].lower()
        try:
            if suffix in MANIFEST_SUFFIXES and labels is None and FileSystems.exists(uri):
                yield from self._expand_manifest(uri)
                return
            matched = [] if uri.endswith("/") else FileSystems.match([uri])[0].metadata_list
            named = bool(matched) and not glob.has_magic(uri)
            if not matched:
                below = FileSystems.match([uri.rstrip("/") + "/**"])[0].metadata_list
                matched = [m for m in below if self._is_audio(m.path)]
        except (OSError, ValueError) as error:
            yield Input(uri, labels=pairs, problem=("list", _first_line(error)), named=True)
            return
        if not matched:
            yield Input(uri, labels=pairs, problem=("list", "nothing found there"), named=True)
        for m in matched:
            modified = int(m.last_updated_in_seconds * 1e9) if m.last_updated_in_seconds else None
            yield Input(m.path, m.size_in_bytes, modified, pairs, named=named)


def read_manifest(uri: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a manifest: a table with a column ``uri``; the other columns are labels.

    Yields
    ------
    uri : str
        As written there.
    labels : dict of str to str
        Columns without a value are left out.

    Raises
    ------
    EarmarkError
        If it cannot be read or a line has no uri.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    read = readers["." + uri.rpartition(".")[2].lower()]
    try:
        with contextlib.closing(open_input(uri)) as file:
            for number, row in enumerate(read(file), start=1):
                if not isinstance(row, dict) or not row.get("uri"):
                    columns = ", ".join(map(str, row)) if isinstance(row, dict) else "none"
                    raise EarmarkError(
                        f"manifest {uri}: row {number} has no 'uri' (its columns: {columns})"
                    )
                labels = {
                    _valid(str(key)): _valid(
                        value if isinstance(value, str) else json.dumps(value, default=str)
                    )
                    for key, value in row.items()
                    if key not in ("uri", None) and value not in (None, "")
                }
                yield str(row["uri"]), labels
    except (OSError, ValueError, csv.Error) as error:
        raise EarmarkError(f"manifest {uri} cannot be read: {_first_line(error)}") from None


def _valid(text: str) -> str:
    # JSON can hold half a surrogate pair, which Parquet cannot.
    return text.encode("utf-8", "replace").decode("utf-8")


def _read_csv(file: BinaryIO) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))


def _read_jsonl(file: BinaryIO) -> Iterator[dict[str, object]]:
    for line in io.TextIOWrapper(file, encoding="utf-8-sig"):
        if line.strip():
            yield json.loads(line)


def _read_parquet(file: BinaryIO) -> Iterator[dict[str, object]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches():
        yield from batch.to_pylist()


def _describe(name: str, named: bool = False) -> Input:
    # One local path that is not a folder.
    uri = path_to_uri(name)
    path = Path(name)
    try:
        status = path.stat()
    except FileNotFoundError:
        broken = path.is_symlink()
        missing = ("open", "broken symbolic link") if broken else ("list", "no such file or folder")
        return Input(uri, problem=missing, named=named)
    except (OSError, ValueError) as error:
        return Input(uri, problem=("open", _reason(error)), named=named)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        return Input(uri, problem=("open", f"not a regular file but {kind}"), named=named)
    return Input(uri, status.st_size, status.st_mtime_ns, problem=problem, named=named)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file_uri(path: str) -> str:
    return "file://" + urllib.parse.quote(os.fsencode(Path(path).absolute()))


def _reason(error: Exception) -> str:
    return _first_line(getattr(error, "strerror", None) or error)


def _first_line(message: object) -> str:
    return (str(message).splitlines() or [type(message).__name__])[0]
