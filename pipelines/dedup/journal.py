"""The journal of what is done to files: written and synced before each step, so that all can be
undone, whatever happens in between."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from pathlib import Path
from typing import Any

from encoders.errors import EarmarkError
from index.storage import sync_folder, write_error

JOURNAL_FILE = "journal.jsonl"


class State(str, enum.Enum):
    """How far a step is."""

    BEGUN = "begun"
    DONE = "done"
    UNDONE = "undone"


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that is done to one file.

    Parameters
    ----------
    number : int
        From 1.
    action : str
        ``"move"`` or ``"hardlink"``.
    source : str
        Absolute path of the file that is put aside.
    target : str
        Absolute path: where it is moved to, or the file that it becomes a hard link of.
    temporary : str
        Absolute path of the unfinished file, should there be one.
    recording_id : str
        Hash of its bytes.
    modified_ns, mode : int
        Of the file before.
    folder : str
        Where files are moved to; its empty folders go when they are brought back.
    """

    number: int
    action: str
    source: str
    target: str
    temporary: str
    recording_id: str
    modified_ns: int
    mode: int
    folder: str


class Journal:
    """An append-only file of JSON lines. One process at a time may hold one open.

    Parameters
    ----------
    path : Path
        Made when the first step is written.

    Raises
    ------
    EarmarkError
        If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: dict[int, Step] = {}
        self._states: dict[int, State] = {}
        self._read()

    def in_state(self, *states: State) -> list[Step]:
        """Steps that are that far, in the order in which they were begun."""
        return [step for number, step in self._steps.items() if self._states[number] in states]

    def next_number(self) -> int:
        """Number of the next step."""
        return 1 + max(self._steps, default=0)

    def begin(self, step: Step) -> None:
        """Write down what is about to be done; on disk when this returns."""
        self._append({"state": State.BEGUN.value, **dataclasses.asdict(step)})
        self._steps[step.number] = step
        self._states[step.number] = State.BEGUN

    def mark(self, step: Step, state: State) -> None:
        """Write down that a step is done, or undone; on disk when this returns."""
        self._append({"state": state.value, "number": step.number})
        self._states[step.number] = state

    def _append(self, record: dict[str, Any]) -> None:
        is_new = not self.path.exists()
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise EarmarkError(f"cannot read {self.path}: {error.strerror}") from None
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # A crash cut the last line: nothing had been done about it yet.
            os.truncate(self.path, whole)
        try:
            for line in content[:whole].splitlines():
                record = json.loads(line)
                state = State(record.pop("state"))
                if state == State.BEGUN:
                    self._steps[record["number"]] = Step(**record)
                self._states[self._steps[record["number"]].number] = state
        except (ValueError, KeyError, TypeError) as error:
            raise EarmarkError(f"{self.path} is damaged: {error!r}") from None
