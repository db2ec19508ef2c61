"""Events as files that other programs read: JSON lines, CSV, Audacity label tracks, RTTM."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from encoders.errors import EarmarkError
from index.schema import Event
from index.storage import write_atomically

FORMATS = {"jsonl": ".jsonl", "csv": ".csv", "audacity": ".txt", "rttm": ".rttm"}
"""Formats and the suffixes that stand for them."""


def format_of(path: Path) -> str:
    """The format that a file name stands for.

    Raises
    ------
    EarmarkError
        If it stands for none.
    """
    for name, suffix in FORMATS.items():
        if path.suffix.lower() == suffix:
            return name
    raise EarmarkError(
        f"{path}: the suffix tells no format; use one of {', '.join(FORMATS.values())}, or say "
        "which with --format"
    )


def in_time(events: Sequence[Event]) -> list[Event]:
    """Events recording by recording, in time order."""
    return sorted(events, key=lambda e: (e.reference, e.onset_s, e.offset_s, e.label or ""))


def to_text(events: Sequence[Event], form: str) -> str:
    """Events in one of :data:`FORMATS`.

    Parameters
    ----------
    events : sequence of Event
        JSON lines keep their order; everything else is in time order.
    form : str
        ``csv`` can be read again by ``earmark events learn --labels``. ``audacity`` is a label
        track, for one recording. ``rttm`` follows NIST's Rich Transcription format, with the kind
        of sound in the place of the speaker.
    """
    if form == "jsonl":
        return "".join(json.dumps(event.to_dict()) + "\n" for event in events)
    ordered = in_time(events)
    if form == "csv":
        buffer = io.StringIO()
        out = csv.writer(buffer, lineterminator="\n")
        out.writerow(["uri", "onset", "offset", "label", "score"])
        out.writerows([e.reference, e.onset_s, e.offset_s, e.label, e.score] for e in ordered)
        return buffer.getvalue()
    if form == "audacity":
        return "".join(f"{e.onset_s:.6f}\t{e.offset_s:.6f}\t{e.label}\n" for e in ordered)
    return "".join(
        f"SPEAKER {_word(PurePosixPath(e.reference).stem)} 1 {e.onset_s:.3f} "
        f"{e.offset_s - e.onset_s:.3f} <NA> <NA> {_word(e.label or '')} {e.score:.4f} <NA>\n"
        for e in ordered
    )


def write_events(events: Sequence[Event], path: Path, form: str) -> list[Path]:
    """Write events to a file, whole or not at all.

    An Audacity label track is about one recording: of several, ``path`` becomes a folder with a
    track for each.

    Returns
    -------
    paths : list of Path
        What was written.
    """
    by_recording: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_recording[event.reference].append(event)
    if form != "audacity" or len(by_recording) <= 1:
        _write(path, to_text(events, form))
        return [path]
    path.mkdir(parents=True, exist_ok=True)
    written = []
    for uri, mine in sorted(by_recording.items()):
        track = path / f"{PurePosixPath(uri).stem}.txt"
        number = 2
        while track in written:
            track = path / f"{PurePosixPath(uri).stem}-{number}.txt"
            number += 1
        _write(track, to_text(mine, form))
        written.append(track)
    return written


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def _word(text: str) -> str:
    # RTTM has spaces between its fields.
    return "_".join(text.split()) or "<NA>"
