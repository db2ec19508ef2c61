"""What sounds where: labels from the manifest, folders, Audacity label tracks and CSV files.

A label is of a stretch of a recording, or of the whole of it.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from encoders.errors import LabelError

BACKGROUND = "background"
"""The label of what is none of the classes."""

# Audacity rounds to microseconds, and lengths in headers may be off by a block.
_END_TOLERANCE_S = 0.1
_MOST_PROBLEMS = 5


@dataclasses.dataclass(frozen=True)
class Label:
    """A label as it is written.

    Attributes
    ----------
    name : str
        Of the recording: its uri, the end of it, or (from a label track) its file name without
        suffix.
    onset_s, offset_s : float or None
        None for the whole recording.
    label : str
    where : str
        Where it is written, for messages.
    """

    name: str
    onset_s: float | None
    offset_s: float | None
    label: str
    where: str


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A label whose recording was found.

    Attributes
    ----------
    recording : int
        Its number in the table of recordings.
    onset_s, offset_s : float
    label : str
    whole : bool
        Whether the label is of the whole recording, which may hold pauses and other sounds too.
    """

    recording: int
    onset_s: float
    offset_s: float
    label: str
    whole: bool


def read_labels(source: str, recordings: pa.Table) -> list[Label]:
    """Read labels from wherever they are.

    Parameters
    ----------
    source : str
        ``manifest`` (the column ``label`` of what was ingested), ``manifest:COLUMN``, ``folders``
        (each recording has the name of its folder), a CSV file, an Audacity label track, or a
        folder of label tracks.
    recordings : pa.Table
        With the columns uri and labels.

    Raises
    ------
    LabelError
        If there is nothing, or it is not in order. The message tells the lines.
    """
    kind, _, key = source.partition(":")
    if kind == "manifest":
        return _from_manifest(recordings, key or "label")
    if source == "folders":
        return _from_folders(recordings)
    path = Path(source)
    if path.is_dir():
        tracks = sorted(path.glob("*.txt"))
        if not tracks:
            raise LabelError(f"no label tracks (*.txt) in {path}")
        return [label for track in tracks for label in read_audacity(track)]
    return read_audacity(path) if path.suffix.lower() == ".txt" else read_csv(path)


def read_csv(path: Path) -> list[Label]:
    """Read a CSV with the columns uri, label and, where only stretches are labelled, onset, offset.

    ``onset_s`` and ``offset_s``, as earmark writes them, and ``reference`` for ``uri`` are
    understood too.

    Raises
    ------
    LabelError
    """
    rows = csv.DictReader(_lines(path))
    try:
        columns = {name.strip().lower(): name for name in rows.fieldnames or () if name}
        uri = columns.get("uri") or columns.get("reference")
        if uri is None or "label" not in columns:
            raise LabelError(
                f"{path}: the first line has to name the columns uri, label and, for stretches, "
                f"onset and offset; it says {', '.join(columns) or 'nothing'}"
            )
        onset, offset = (columns.get(n) or columns.get(f"{n}_s") for n in ("onset", "offset"))
        if (onset is None) != (offset is None):
            raise LabelError(f"{path}: it has a column for onsets or offsets, and needs both")
        labels, problems = [], []
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            try:
                times = [None if c is None else _seconds(row[c]) for c in (onset, offset)]
                labels.append(_label(row[uri], times[0], times[1], row[columns["label"]], where))
            except ValueError as error:
                problems.append(f"line {rows.line_num}: {error}")
    except csv.Error as error:
        raise LabelError(f"{path}, line {rows.line_num}: not a CSV ({error})") from None
    _tell(f"{path}: ", problems)
    return labels


def read_audacity(path: Path) -> list[Label]:
    """Read an Audacity label track, ``onset<tab>offset<tab>label`` in every line.

    It is about the recording with the file name of the track, but for the suffix.

    Raises
    ------
    LabelError
    """
    labels, problems = [], []
    for number, line in enumerate(_lines(path), 1):
        # Lines with a backslash hold the frequencies of the label before.
        if not line.strip() or line.startswith("\\"):
            continue
        fields = line.rstrip("\r\n").split("\t")
        try:
            if len(fields) < 3:
                raise ValueError("not onset, tab, offset, tab, label")
            times = [_seconds(field) for field in fields[:2]]
            where = f"{path}, line {number}"
            labels.append(_label(path.stem, times[0], times[1], fields[2], where))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    _tell(f"{path}: ", problems)
    return labels


def resolve_labels(
    labels: Sequence[Label],
    recordings: pa.Table,
    classes: Sequence[str] | None = None,
    exclusive: bool = False,
) -> list[Labelled]:
    """Find the recordings that labels are about, and check that the labels can be true.

    Parameters
    ----------
    labels : sequence of Label
    recordings : pa.Table
        With the columns uri and seconds.
    classes : sequence of str, optional
        The only ones that are known, but for ``background``. [default: any]
    exclusive : bool
        Different sounds must not overlap. Those of one label never may.

    Raises
    ------
    LabelError
        If a recording is not there or not the only one of that name, a class is unknown, a time
        lies beyond the end, or labels overlap that must not.
    """
    uris = recordings["uri"].to_pylist()
    seconds = recordings["seconds"].to_pylist()
    find = _Names(uris)
    problems: list[str] = []
    found: list[tuple[Label, Labelled]] = []
    for label in labels:
        try:
            if classes is not None and label.label not in (*classes, BACKGROUND):
                known = ", ".join(sorted(classes))
                raise ValueError(f"unknown class {label.label!r}; known: {known}")
            recording = find(label.name)
            length = seconds[recording]
            if label.offset_s is not None and label.offset_s > length + _END_TOLERANCE_S:
                raise ValueError(
                    f"{label.offset_s:g} s is beyond the end of {uris[recording]}, "
                    f"which lasts {length:.2f} s"
                )
            end = length if label.offset_s is None else min(label.offset_s, length)
            whole = label.onset_s is None
            found.append(
                (label, Labelled(recording, label.onset_s or 0.0, end, label.label, whole))
            )
        except ValueError as error:
            problems.append(f"{label.where}: {error}")
    problems += _overlaps(found, exclusive)
    _tell("", problems)
    return [labelled for _, labelled in found]


class _Names:
    """Recordings by uri, by the end of it, or by file name without suffix."""

    def __init__(self, uris: Sequence[str]) -> None:
        self._uris = uris
        self._exact = {uri: number for number, uri in enumerate(uris)}
        self._by_file: dict[str, list[int]] = defaultdict(list)
        for number, uri in enumerate(uris):
            path = PurePosixPath(uri)
            for name in {path.name, path.stem}:
                self._by_file[name].append(number)

    def __call__(self, name: str) -> int:
        if name in self._exact:
            return self._exact[name]
        # A label file may name recordings from where it lies.
        path = PurePosixPath(name)
        numbers = self._by_file.get(path.name, [])
        if len(path.parts) > 1:
            numbers = [n for n in numbers if self._uris[n].endswith(f"/{path}")]
        if not numbers:
            raise ValueError(f"no recording {name!r} in the catalog")
        if len(numbers) > 1:
            raise ValueError(f"{len(numbers)} recordings are called {name!r}: give more of the uri")
        return numbers[0]


def _overlaps(found: Iterable[tuple[Label, Labelled]], exclusive: bool) -> list[str]:
    by_recording: dict[tuple[int, str], list[tuple[Label, Labelled]]] = defaultdict(list)
    for pair in found:
        by_recording[pair[1].recording, "" if exclusive else pair[1].label].append(pair)
    problems = []
    for pairs in by_recording.values():
        pairs.sort(key=lambda pair: (pair[1].onset_s, pair[1].offset_s))
        last = pairs[0]
        for pair in pairs[1:]:
            if pair[1].onset_s < last[1].offset_s - 1e-6:
                problems.append(
                    f"{pair[0].where}: {pair[1].label} from {pair[1].onset_s:g} s overlaps "
                    f"{last[1].label} until {last[1].offset_s:g} s ({last[0].where})"
                )
            last = max(last, pair, key=lambda pair: pair[1].offset_s)
    return problems


def _from_manifest(recordings: pa.Table, key: str) -> list[Label]:
    found = []
    known: set[str] = set()
    pairs = zip(recordings["uri"].to_pylist(), recordings["labels"].to_pylist(), strict=True)
    for uri, labels in pairs:
        values = dict(labels or ())
        known |= set(values)
        if key in values:
            found.append(Label(uri, None, None, values[key], f"the manifest of {uri}"))
    if not found:
        raise LabelError(
            f"no recording has a label {key!r} from its manifest; known: "
            f"{', '.join(sorted(known)) or 'none at all'}"
        )
    return found


def _from_folders(recordings: pa.Table) -> list[Label]:
    found = []
    for uri in recordings["uri"].to_pylist():
        folder = PurePosixPath(uri).parent.name
        if folder:
            found.append(Label(uri, None, None, folder, f"the folder of {uri}"))
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from lines
    except OSError as error:
        raise LabelError(f"cannot read the labels {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not a text file in UTF-8") from None


def _seconds(text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time in seconds") from None
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is not a time in seconds")
    return seconds


def _label(
    name: str | None, onset: float | None, offset: float | None, label: str | None, where: str
) -> Label:
    if not name or not name.strip():
        raise ValueError("no uri")
    if not label or not label.strip():
        raise ValueError("no label")
    if (onset is None) != (offset is None):
        raise ValueError("an onset or an offset, and no other")
    if onset is not None and offset is not None:
        if onset < 0:
            raise ValueError(f"the onset {onset:g} s is before the start")
        if offset <= onset:
            raise ValueError(f"the offset {offset:g} s is not after the onset {onset:g} s")
    return Label(name.strip(), onset, offset, label.strip(), where)


def _tell(prefix: str, problems: Sequence[str]) -> None:
    if problems:
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        more = len(problems) - _MOST_PROBLEMS
        raise LabelError(prefix + shown + (f"; and {more} more" if more > 0 else ""))
