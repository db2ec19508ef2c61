"""A run of deduplication as a whole: what was found, what to keep, and what it wins."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.clusters import CLUSTERING_KINDS, STRONG_KINDS, cluster_id, find_clusters
from index.files import read_files
from index.judgements import Judgements, Verdict
from index.keep import FileFacts, KeepPolicy, conflicting_labels, read_facts
from index.schema import PAIRS, DuplicateCluster, DuplicateKind, DuplicatePair

# Share of both files that a pair ``near`` must cover to make a cluster.
_NEAR_COVERAGE = 0.8
_ROWS_AT_ONCE = 1 << 14


@dataclasses.dataclass(frozen=True)
class Choice:
    """A cluster, and why one of its files is the one to keep."""

    cluster: DuplicateCluster
    why: str

    @property
    def drop(self) -> list[str]:
        """The other files."""
        return [uri for uri in self.cluster.members if uri != self.cluster.keep]


@dataclasses.dataclass(frozen=True)
class Leak:
    """What two groups share by pairs of one kind, or of any.

    Attributes
    ----------
    kind : str
        A kind, or ``"any"``.
    n_pairs, n_files_a, n_files_b : int
    seconds_a, seconds_b : float
        Of those files.
    """

    kind: str
    n_pairs: int
    n_files_a: int
    n_files_b: int
    seconds_a: float
    seconds_b: float


@dataclasses.dataclass(frozen=True)
class Leakage:
    """The leakage report: two groups of files, and what they share."""

    groups: tuple[str, str]
    n_files: tuple[int, int]
    seconds: tuple[float, float]
    leaks: list[Leak]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pairs become clusters.

    Parameters
    ----------
    keep : KeepPolicy
    cluster_near : bool
        Whether pairs ``near`` that cover most of both files make clusters too.
    between : (str, str), optional
        The two groups that were compared.
    labels : sequence of str
        Keys of the labels that files of one cluster should agree about.
    """

    keep: KeepPolicy = dataclasses.field(default_factory=KeepPolicy)
    cluster_near: bool = False
    between: tuple[str, str] | None = None
    labels: Sequence[str] = ("label",)


@dataclasses.dataclass(frozen=True)
class Results:
    """All that a run has to tell.

    Attributes
    ----------
    catalogs : list of str
        Their folders.
    settings : Settings
    facts : dict of str to FileFacts
        The files that were looked at, failed ones too, by uri.
    pairs : list of DuplicatePair
        Without those that a person said are different.
    choices : list of Choice
        Clusters, those with most seconds to win first.
    copies : list of Choice
        Clusters over the strong kinds only: what may be acted upon.
    cut : list of DuplicatePair
        Links that were too weak to join clusters.
    conflicts : list of dict
        cluster_id, label, values: the files of each value.
    unpaired : list of dict
        uri, class, reason.
    n_judged_different : int
        Pairs that are not reported because of a judgement.
    leakage : Leakage or None
    """

    catalogs: list[str]
    settings: Settings
    facts: dict[str, FileFacts]
    pairs: list[DuplicatePair]
    choices: list[Choice]
    copies: list[Choice]
    cut: list[DuplicatePair]
    conflicts: list[dict[str, Any]]
    unpaired: list[dict[str, str]]
    n_judged_different: int
    leakage: Leakage | None

    @property
    def seconds(self) -> float:
        """Audio looked at."""
        return sum(file.seconds for file in self.facts.values())

    @property
    def seconds_won(self) -> float:
        """Audio of the files to drop."""
        return sum(choice.cluster.seconds_won for choice in self.choices)

    @property
    def bytes_won(self) -> int:
        """Bytes of the files to drop."""
        return sum(choice.cluster.bytes_won for choice in self.choices)

    def n_pairs(self) -> dict[str, int]:
        """Pairs of each kind, none left out."""
        found = Counter(pair.kind for pair in self.pairs)
        return {kind.value: found[kind] for kind in DuplicateKind}

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        classes = Counter(row["class"] for row in self.unpaired)
        return {
            "catalogs": self.catalogs,
            "between": self.settings.between,
            "keep": self.settings.keep.name,
            "files": len(self.facts),
            "seconds": round(self.seconds, 3),
            "pairs": self.n_pairs(),
            "clusters": len(self.choices),
            "files_in_clusters": sum(len(c.cluster.members) for c in self.choices),
            "files_to_drop": sum(len(c.drop) for c in self.choices),
            "seconds_won": round(self.seconds_won, 3),
            "bytes_won": self.bytes_won,
            "links_cut": len(self.cut),
            "label_conflicts": len(self.conflicts),
            "unpaired": dict(sorted(classes.items())),
            "pairs_judged_different": self.n_judged_different,
            "leakage": dataclasses.asdict(self.leakage) if self.leakage else None,
        }


def read_pairs(path: Path) -> list[DuplicatePair]:
    """Read a ``pairs.parquet``, its times to the millisecond.

    Raises
    ------
    EarmarkError
        If it is missing or damaged.
    """
    try:
        table = pq.read_table(path, schema=PAIRS)
    except FileNotFoundError:
        raise EarmarkError(f"{path} is missing: run 'earmark dedup' first") from None
    except (OSError, ValueError) as error:
        raise EarmarkError(f"{path} is damaged: {error}") from None
    rows = (row for batch in table.to_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())
    return [_pair(row) for row in rows]


def _pair(row: dict[str, Any]) -> DuplicatePair:
    rounded = {
        name: round(value, 3 if name.endswith("_s") else 4)
        for name, value in row.items()
        if isinstance(value, float)
    }
    # A file that is in many pairs has its name in memory once.
    names = {name: sys.intern(row[name]) for name in ("a", "b", "a_id", "b_id")}
    return DuplicatePair(**{**row, **rounded, **names, "kind": DuplicateKind(row["kind"])})


def assemble(
    catalogs: Sequence[Catalog],
    pairs: Iterable[DuplicatePair],
    unpaired: list[dict[str, str]],
    settings: Settings | None = None,
) -> Results:
    """From pairs to all the rest.

    Parameters
    ----------
    catalogs : sequence of Catalog
    pairs : iterable of DuplicatePair
        As found; what people judged to be different is left out here.
    unpaired : list of dict
        Rows of ``index.schema.UNPAIRED``.
    settings : Settings, optional

    Raises
    ------
    EarmarkError
        If the preferred folder has none of the files, or a group has none.
    """
    settings = settings or Settings()
    facts = read_facts(catalogs)
    settings.keep.check(facts)
    leakage = None
    judgements = Judgements.read(catalogs)
    found = [pair for pair in pairs if pair.a in facts and pair.b in facts]
    kept = [pair for pair in found if judgements.verdict(pair) != Verdict.DIFFERENT]
    if settings.between:
        files = read_files(catalogs, settings.between)
        sides = [set(files.filter(files[side])["uri"].to_pylist()) for side in ("in_a", "in_b")]
        facts = {uri: facts[uri] for uri in files["uri"].to_pylist()}
        leakage = _leakage(settings.between, sides, kept, facts)
    kinds = CLUSTERING_KINDS if settings.cluster_near else STRONG_KINDS
    whole = [p for p in kept if p.kind != DuplicateKind.NEAR or _is_whole(p, facts)]
    clustering = find_clusters(whole, kinds, judgements.apart)
    choices = _choose(clustering.clusters, facts, settings.keep)
    copies = choices
    if settings.cluster_near:
        strong = find_clusters(kept, STRONG_KINDS, judgements.apart)
        copies = _choose(strong.clusters, facts, settings.keep)
    return Results(
        catalogs=[str(catalog.path) for catalog in catalogs],
        settings=settings,
        facts=facts,
        pairs=kept,
        choices=choices,
        copies=copies,
        cut=clustering.cut,
        conflicts=_conflicts(choices, facts, settings.labels),
        unpaired=unpaired,
        n_judged_different=len(found) - len(kept),
        leakage=leakage,
    )


def _is_whole(pair: DuplicatePair, facts: Mapping[str, FileFacts]) -> bool:
    # A track that is mixed into a medley is near to it, but no copy.
    return (
        pair.a_end_s - pair.a_start_s >= _NEAR_COVERAGE * facts[pair.a].seconds
        and pair.b_end_s - pair.b_start_s >= _NEAR_COVERAGE * facts[pair.b].seconds
    )


def _choose(
    clusters: Iterable[tuple[str, ...]], facts: Mapping[str, FileFacts], policy: KeepPolicy
) -> list[Choice]:
    choices = []
    for members in clusters:
        keep, why = policy.choose([facts[uri] for uri in members])
        others = [facts[uri] for uri in members if uri != keep.uri]
        cluster = DuplicateCluster(
            cluster_id(members),
            members,
            keep.uri,
            round(sum(file.seconds for file in others), 3),
            sum(file.n_bytes for file in others),
        )
        choices.append(Choice(cluster, why))
    return sorted(choices, key=lambda c: (-c.cluster.seconds_won, c.cluster.members))


def _conflicts(
    choices: Iterable[Choice], facts: Mapping[str, FileFacts], labels: Iterable[str]
) -> list[dict[str, Any]]:
    found = []
    for choice in choices:
        files = [facts[uri] for uri in choice.cluster.members]
        for label in labels:
            if values := conflicting_labels(files, label):
                name = choice.cluster.cluster_id
                found.append({"cluster_id": name, "label": label, "values": values})
    return found


def _leakage(
    groups: tuple[str, str],
    sides: Sequence[Collection[str]],
    pairs: Iterable[DuplicatePair],
    facts: Mapping[str, FileFacts],
) -> Leakage:
    def seconds(uris: Iterable[str]) -> float:
        return round(sum(facts[uri].seconds for uri in uris), 3)

    def leak(kind: str, chosen: list[DuplicatePair]) -> Leak:
        named = {uri for pair in chosen for uri in (pair.a, pair.b)}
        of_a, of_b = (named & set(side) for side in sides)
        return Leak(kind, len(chosen), len(of_a), len(of_b), seconds(of_a), seconds(of_b))

    across = list(pairs)
    leaks = [leak(kind.value, [p for p in across if p.kind == kind]) for kind in DuplicateKind]
    return Leakage(
        groups,
        (len(sides[0]), len(sides[1])),
        (seconds(sides[0]), seconds(sides[1])),
        [*leaks, leak("any", across)],
    )
