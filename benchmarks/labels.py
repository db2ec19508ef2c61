"""What a sound of the corpus is, from the names of its file and its folders.

The rules stand in event_classes.csv, one a line: a class, where its words are looked for (the
``name`` of the file or its ``folder``), the packages it holds for (globs; all if there are none)
and the words. The first line that fits a file gives its class; an empty one says that its name
tells nothing.

A name is cut into words where letters meet other characters or small letters meet capitals;
``door_open`` in a rule stands for two words in a row.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

RULES = Path(__file__).parent / "event_classes.csv"


class Rule(NamedTuple):
    """A line of event_classes.csv."""

    label: str
    folder: bool
    packages: tuple[str, ...]
    words: tuple[str, ...]


@functools.cache
def read_rules() -> tuple[Rule, ...]:
    """The rules, in their order."""
    with RULES.open(encoding="utf-8", newline="") as lines:
        return tuple(
            Rule(
                row["class"],
                row["in"] == "folder",
                tuple(row["packages"].split()),
                tuple(f"_{word}_" for word in row["words"].split()),
            )
            for row in csv.DictReader(lines)
        )


def label_of(package: str, path: str) -> str:
    """The class of an event of the corpus, or nothing.

    Parameters
    ----------
    package : str
    path : str
        Below the package.

    Examples
    --------
    >>> label_of("lugaru-data", "usr/share/games/lugaru/Sounds/FootStepStone1.ogg")
    'footstep'
    """
    where = PurePosixPath(path)
    name, folder = _words(where.stem), _words(where.parent.name)
    for rule in read_rules():
        if rule.packages and not any(fnmatch.fnmatch(package, p) for p in rule.packages):
            continue
        text = folder if rule.folder else name
        if any(word in text for word in rule.words):
            return rule.label
    return ""


def _words(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return "_" + "_".join(re.findall(r"[a-z]+", apart.lower())) + "_"
