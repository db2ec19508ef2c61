"""What people said about pairs: remembered in the catalog, so that no pair is asked about twice."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import enum
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import filelock

from encoders.errors import CatalogError, EarmarkError
from index.catalog import Catalog
from index.keep import FileFacts
from index.schema import DuplicatePair
from index.storage import write_atomically

JUDGEMENTS_FILE = "judgements.csv"
_LOCK = ".judgements.lock"
# Recordings differ, or else the names of files with the same bytes do.
_Key = frozenset[str]


class Verdict(str, enum.Enum):
    """What a person said about a pair."""

    DUPLICATE = "duplicate"
    DIFFERENT = "different"

    @classmethod
    def parse(cls, text: str) -> Verdict:
        """Read a verdict as people write it: y, yes, duplicate; n, no, different.

        Raises
        ------
        ValueError
        """
        word = text.strip().lower()
        if word in ("y", "yes", "true", "1", "same", cls.DUPLICATE.value):
            return cls.DUPLICATE
        if word in ("n", "no", "false", "0", "not a duplicate", cls.DIFFERENT.value):
            return cls.DIFFERENT
        raise ValueError(f"{text!r} is no verdict: write yes or no")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One verdict. It is about the content of the two files, whatever they are called later.

    Parameters
    ----------
    a, b : str
        Uris at the time.
    a_id, b_id : str
        Recording ids.
    verdict : Verdict
    judged_at : str
        UTC, ISO 8601.
    """

    a: str
    b: str
    a_id: str
    b_id: str
    verdict: Verdict
    judged_at: str = ""

    @classmethod
    def now(cls, pair: DuplicatePair, verdict: Verdict) -> Judgement:
        """A verdict about a pair, given now."""
        at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return cls(pair.a, pair.b, pair.a_id, pair.b_id, verdict, at)

    @property
    def key(self) -> _Key:
        """What two judgements of the same pair have in common."""
        return _key(self.a, self.b, self.a_id, self.b_id)


class Judgements:
    """The judgements of some catalogs; the last one about a pair counts."""

    def __init__(self, judgements: Iterable[Judgement] = ()) -> None:
        self._by_key: dict[_Key, Judgement] = {}
        self.add(judgements)

    @classmethod
    def read(cls, catalogs: Iterable[Catalog]) -> Judgements:
        """Those that the catalogs remember.

        Raises
        ------
        CatalogError
            If they cannot be read.
        """
        found = [j for catalog in catalogs for j in _read(catalog.path / JUDGEMENTS_FILE)]
        return cls(sorted(found, key=lambda judgement: judgement.judged_at))

    def add(self, judgements: Iterable[Judgement]) -> None:
        """Add judgements, later ones last."""
        for judgement in judgements:
            self._by_key[judgement.key] = judgement

    def __len__(self) -> int:
        return len(self._by_key)

    def verdict(self, pair: DuplicatePair) -> Verdict | None:
        """What was said about a pair, if anything."""
        judgement = self._by_key.get(_key(pair.a, pair.b, pair.a_id, pair.b_id))
        return judgement.verdict if judgement else None

    @property
    def apart(self) -> set[_Key]:
        """Recording ids, two each, that a person said are different."""
        return {
            frozenset((j.a_id, j.b_id))
            for j in self._by_key.values()
            if j.verdict == Verdict.DIFFERENT and j.a_id != j.b_id
        }

    def remember(self, catalogs: Sequence[Catalog]) -> None:
        """Write them to the catalogs, with those that are there already.

        Raises
        ------
        CatalogError
            If a catalog cannot be written to.
        """
        for catalog in catalogs:
            path = catalog.path / JUDGEMENTS_FILE
            with filelock.FileLock(catalog.path / _LOCK):
                merged = Judgements(_read(path))
                merged.add(self._by_key.values())
                rows = sorted(merged._by_key.values(), key=lambda j: (j.a, j.b))
                text = io.StringIO(newline="")
                writer = csv.writer(text)
                writer.writerow(_COLUMNS)
                for row in rows:
                    writer.writerow([row.a, row.b, row.a_id, row.b_id, row.verdict.value,
                                     row.judged_at])  # fmt: skip
                with write_atomically(path) as file:
                    file.write(text.getvalue().encode("utf-8", "surrogatepass"))


def read_verdicts(path: Path, facts: Mapping[str, FileFacts]) -> list[Judgement]:
    """Read a CSV file that a person filled in, with columns a, b and verdict.

    Parameters
    ----------
    path : Path
        Lines without a verdict are passed over.
    facts : mapping of str to FileFacts
        The files of the catalogs, by uri.

    Raises
    ------
    EarmarkError
        If it cannot be read, or a line names a file that is not in the catalogs.
    """
    at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    judgements = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                if not {"a", "b", "verdict"} <= set(row):
                    raise EarmarkError(f"{path} needs the columns a, b and verdict")
                if not (row["verdict"] or "").strip():
                    continue
                ids = []
                for uri in (row["a"], row["b"]):
                    known = facts.get(uri)
                    if known is None or known.recording_id is None:
                        raise EarmarkError(f"{path}, line {number}: {uri!r} is not in the catalog")
                    ids.append(known.recording_id)
                try:
                    verdict = Verdict.parse(row["verdict"])
                except ValueError as error:
                    raise EarmarkError(f"{path}, line {number}: {error}") from None
                judgements.append(Judgement(row["a"], row["b"], ids[0], ids[1], verdict, at))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EarmarkError(f"cannot read {path}: {error}") from None
    return judgements


_COLUMNS = [field.name for field in dataclasses.fields(Judgement)]


def _key(a: str, b: str, a_id: str, b_id: str) -> _Key:
    return frozenset((a_id, b_id)) if a_id != b_id else frozenset((f"uri {a}", f"uri {b}"))


def _read(path: Path) -> list[Judgement]:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogatepass") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
            verdicts = [Verdict(row.pop("verdict")) for row in rows]
            return [
                Judgement(**row, verdict=verdict)
                for row, verdict in zip(rows, verdicts, strict=True)
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CatalogError(f"{path} is damaged: {error}") from None
