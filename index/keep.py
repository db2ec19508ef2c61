"""Which file of a cluster to keep, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.schema import Status

POLICIES = ("best", "first", "longest", "label")
"""Names of the ways to choose; anything else is a preferred folder."""

# 8 bits and telephone companding lose sound, whatever the container says.
_LOSSLESS = frozenset(
    {"flac", "alac", "float", "double", "ape", "tta", "wavpack", "wmalossless", "mlp", "truehd"}
)
_LOSSY_PCM = ("law", "_u8", "_s8", "pcm_8")

_COLUMNS = [
    "uri", "recording_id", "n_bytes", "modified_ns", "container", "codec", "sample_rate",
    "channels", "seconds_decoded", "status", "labels",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """What the catalog knows of a file. As in ``index.schema.RECORDINGS``."""

    uri: str
    recording_id: str | None = None
    n_bytes: int = 0
    modified_ns: int | None = None
    container: str | None = None
    codec: str | None = None
    sample_rate: int = 0
    channels: int = 0
    seconds: float = 0.0
    status: str = Status.OK.value
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_lossless(self) -> bool:
        """Whether its codec keeps every sample, of 16 bits or more."""
        codec = self.codec or ""
        if codec.startswith("pcm"):
            return not any(mark in codec for mark in _LOSSY_PCM)
        return codec in _LOSSLESS

    @property
    def bit_rate(self) -> float:
        """Mean bits per second."""
        return 8 * self.n_bytes / self.seconds if self.seconds else 0.0


def read_facts(catalogs: Iterable[Catalog]) -> dict[str, FileFacts]:
    """The current files of some catalogs, failed ones too, by uri.

    A uri that is in several catalogs is the same file, as the last of them knows it.
    """
    facts = {}
    for catalog in catalogs:
        for row in catalog.recordings(_COLUMNS).to_pylist():
            labels = dict(row.pop("labels") or {})
            known = {name: value for name, value in row.items() if value is not None}
            seconds = known.pop("seconds_decoded", 0.0)
            facts[row["uri"]] = FileFacts(**known, seconds=seconds, labels=labels)
    return facts


@dataclasses.dataclass(frozen=True)
class KeepPolicy:
    """How to choose the file to keep.

    Parameters
    ----------
    name : str
        ``"best"``: whole before damaged, lossless before lossy, higher sample rate (lossless), more
        channels, higher bit rate (lossy), longer, with labels, older. ``"first"``: by name.
        ``"longest"``, ``"label"`` (files that have one): then the best of them. Anything else is a
        folder: its files are kept before others.
    label : str
        Key of the label that ``"label"`` looks for.
    """

    name: str = "best"
    label: str = "label"

    def check(self, uris: Iterable[str]) -> None:
        """Make sure that the preferred folder, if it is one, holds some of the files.

        Raises
        ------
        EarmarkError
        """
        if self.name not in POLICIES and not any(uri.startswith(self._folder) for uri in uris):
            raise EarmarkError(
                f"no file is in {self.name!r}: what to keep is {', '.join(POLICIES)}, or a folder "
                "as the names of the files begin with it"
            )

    def choose(self, files: Sequence[FileFacts]) -> tuple[FileFacts, str]:
        """The file to keep, and what sets it apart from the next best in a few words."""
        ranked = sorted(files, key=lambda file: [key(file) for _, key in self._criteria])
        if len(ranked) < 2:
            return ranked[0], "the only one"
        best, second = ranked[:2]
        words = next(words for words, key in self._criteria if key(best) != key(second))
        return best, words

    @property
    def _criteria(self) -> list[tuple[str, Callable[[FileFacts], Any]]]:
        by_name: tuple[str, Callable[[FileFacts], Any]] = "first by name", lambda f: f.uri
        longest: tuple[str, Callable[[FileFacts], Any]] = (
            "longest", lambda f: -round(f.seconds, 1)
        )  # fmt: skip
        best = [
            ("whole, the other damaged", lambda f: f.status != Status.OK.value),
            ("lossless", lambda f: not f.is_lossless),
            # Opus claims 48 kHz whatever it was given.
            ("higher sample rate", lambda f: -f.sample_rate if f.is_lossless else 0),
            ("more channels", lambda f: -f.channels),
            ("higher bit rate", lambda f: 0.0 if f.is_lossless else -round(f.bit_rate, -3)),
            longest,
            ("has labels", lambda f: not f.labels),
            ("oldest", lambda f: f.modified_ns if f.modified_ns is not None else float("inf")),
            by_name,
        ]
        if self.name == "best":
            return best
        if self.name == "first":
            return [by_name]
        if self.name == "longest":
            return [longest, *best]
        if self.name == "label":
            return [(f"has a {self.label}", lambda f: not f.labels.get(self.label)), *best]
        return [(f"in {self._folder}", lambda f: not f.uri.startswith(self._folder)), *best]

    @property
    def _folder(self) -> str:
        return self.name.rstrip("/") + "/"


def conflicting_labels(files: Iterable[FileFacts], label: str) -> dict[str, list[str]]:
    """The values of a label that files of one cluster disagree about.

    Returns
    -------
    uris : dict of str to list of str
        The files of each value; empty when they agree, or at most one value is given.
    """
    uris: dict[str, list[str]] = {}
    for file in files:
        if value := file.labels.get(label):
            uris.setdefault(value, []).append(file.uri)
    return dict(sorted(uris.items())) if len(uris) > 1 else {}
