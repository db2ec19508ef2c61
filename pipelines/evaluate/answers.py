"""Answers of one system, judged, on disk: one line for each query, so that a run can go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from encoders.errors import EarmarkError
from index.metrics import Outcome


@dataclasses.dataclass(frozen=True)
class Answered:
    """A query's best candidate and what it is worth.

    Attributes
    ----------
    id : str
        Of the query.
    outcome : Outcome
    reference : str or None
        Recording named, relative to the corpus.
    start_s : float or None
        Where in it the query is said to begin, s.
    speed : float
        Seconds of it that are said to pass in a second of the query.
    similarity, margin : float or None
        Earmark's evidence for its best candidate.
    rank : int or None
        Of the first of Earmark's candidates with the right bytes; None where there is none.
    """

    id: str
    outcome: Outcome
    reference: str | None = None
    start_s: float | None = None
    speed: float = 1.0
    similarity: float | None = None
    margin: float | None = None
    rank: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Answered:
        """What :meth:`to_dict` gave."""
        return cls(**{**content, "outcome": Outcome(**content["outcome"])})


def require_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse answers that were made with other settings.

    Parameters
    ----------
    path : Path
        Of an :class:`AnswerLog`; it need not exist.
    settings : dict
        Some or all of those of the log.

    Raises
    ------
    EarmarkError
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    # A run that was killed may have left half a line.
    found = json.loads(first) if first.endswith("\n") else {}
    wanted = json.loads(json.dumps(settings))
    changes = [
        f"{key} was {found[key]!r} and is {value!r}"
        for key, value in wanted.items()
        if key in found and found[key] != value
    ]
    if changes:
        raise EarmarkError(
            f"{path} holds answers from other settings ({'; '.join(changes)}): "
            "name another --out, or delete that file"
        )


class AnswerLog:
    """The answers of one system in a file of JSON lines, the first of which is the settings.

    Parameters
    ----------
    path : Path
        Opened where it exists, and made where it does not.
    settings : dict
        All that the answers depend on.

    Raises
    ------
    EarmarkError
        If the file holds answers that were made with other settings.

    Attributes
    ----------
    answers : dict
        :class:`Answered` by the id of the query.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.answers: dict[str, Answered] = {}
        require_settings(path, settings)
        lines = self._lines()
        if not lines:
            path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        self._remember(Answered.from_dict(json.loads(line)) for line in lines[1:])

    def _lines(self) -> list[str]:
        if not self._path.exists():
            return []
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        return whole.decode().splitlines()

    def append(self, answers: Iterable[Answered]) -> None:
        """Write answers, each as soon as it comes."""
        with self._path.open("a", encoding="utf-8") as file:
            for answer in answers:
                file.write(json.dumps(answer.to_dict()) + "\n")
                file.flush()
                self._remember([answer])

    def _remember(self, answers: Iterable[Answered]) -> None:
        self.answers.update((answer.id, answer) for answer in answers)
