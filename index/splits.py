"""Splits of a data set that leak nothing: files that share sound stay together.

Files that any pair connects, of whatever kind, make a group, and a group goes into one split as a
whole. Groups are dealt out greedily, the longest first, each to where it is missing most (as in
iterative stratification, Sechidis et al. 2011, but by seconds and over groups), and then moved as
long as that brings the shares closer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from encoders.errors import EarmarkError
from index.clusters import cluster_id, connected_components
from index.keep import FileFacts
from index.schema import DuplicateKind, DuplicatePair, Status

_MAX_PASSES = 20


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set, split.

    Attributes
    ----------
    ratios : dict of str to float
        Wanted share of the seconds of each split; they add up to 1.
    of_uri, group_of_uri : dict of str to str
        The split and the group of each file; failed files have none.
    facts : mapping of str to FileFacts
    stratify : str or None
        Key of the label whose values are spread evenly.
    pairs : sequence of DuplicatePair
        All that must not cross a border.
    """

    ratios: dict[str, float]
    of_uri: dict[str, str]
    group_of_uri: dict[str, str]
    facts: Mapping[str, FileFacts]
    stratify: str | None
    pairs: Sequence[DuplicatePair]

    def pairs_within_and_across(self) -> dict[str, tuple[int, int]]:
        """For each kind, pairs within one split and pairs that cross a border: counted anew."""
        counts = {kind.value: [0, 0] for kind in DuplicateKind}
        for pair in self.pairs:
            across = self.of_uri[pair.a] != self.of_uri[pair.b]
            counts[pair.kind.value][across] += 1
        return {kind: (within, across) for kind, (within, across) in counts.items()}

    def proof(self) -> dict[str, Any]:
        """What the split keeps and what it reaches, ready for JSON."""
        seconds: dict[str, dict[str, float]] = {}
        total = dict.fromkeys(self.ratios, 0.0)
        of_group: dict[str, float] = defaultdict(float)
        for uri, name in self.of_uri.items():
            file = self.facts[uri]
            stratum = _stratum(file, self.stratify)
            seconds.setdefault(stratum, dict.fromkeys(self.ratios, 0.0))[name] += file.seconds
            total[name] += file.seconds
            of_group[self.group_of_uri[uri]] += file.seconds
        files = Counter(self.of_uri.values())
        groups = Counter(
            {group: self.of_uri[uri] for uri, group in self.group_of_uri.items()}.values()
        )
        largest = max(of_group.values(), default=0.0)
        return {
            "pairs": {
                kind: {"within": within, "across": across}
                for kind, (within, across) in self.pairs_within_and_across().items()
            },
            "splits": {
                name: {
                    "files": files[name],
                    "groups": groups[name],
                    "seconds": round(total[name], 3),
                    "share": _share(total, name),
                    "wanted": ratio,
                }
                for name, ratio in self.ratios.items()
            },
            "strata": {
                stratum: {name: _share(counts, name) for name in self.ratios}
                for stratum, counts in sorted(seconds.items())
            }
            if self.stratify
            else None,
            "largest_group_share": round(largest / max(sum(total.values()), 1e-9), 4),
        }


def parse_ratios(text: str) -> dict[str, float]:
    """Read ``train=.8,dev=.1,test=.1``.

    Raises
    ------
    ValueError
        If that is not what it is, or the ratios do not add up to 1.
    """
    ratios: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            ratio = float(number)
        except ValueError:
            ratio = 0.0
        if not name or name in ratios or not 0 < ratio < 1:
            raise ValueError(f"{part!r} is not like train=.8, each name once")
        ratios[name] = ratio
    total = math.fsum(ratios.values())
    if abs(total - 1) > 1e-3:
        raise ValueError(f"the ratios add up to {total:g}, not to 1")
    return {name: ratio / total for name, ratio in ratios.items()}


def split_files(
    facts: Mapping[str, FileFacts],
    pairs: Iterable[DuplicatePair],
    ratios: Mapping[str, float],
    stratify: str | None = None,
    seed: int = 0,
) -> Split:
    """Split files so that no pair crosses a border.

    Parameters
    ----------
    facts : mapping of str to FileFacts
        By uri; failed files are left out.
    pairs : iterable of DuplicatePair
        Of every kind.
    ratios : mapping of str to float
        Share of the seconds of each split.
    stratify : str, optional
        Key of a label whose values every split should have in the same proportions.
    seed : int
        The same seed gives the same split, whatever the order of files and pairs.

    Raises
    ------
    EarmarkError
        If there is no file, or no file has the label.
    """
    usable = {u: f for u, f in sorted(facts.items()) if f.status != Status.FAILED.value}
    if not usable:
        raise EarmarkError("there is no file to split: all have failed")
    if stratify and not any(stratify in file.labels for file in usable.values()):
        known = sorted({key for file in usable.values() for key in file.labels})
        raise EarmarkError(
            f"no file has the label {stratify!r} (labels there are: {', '.join(known) or 'none'})"
        )
    chosen = [p for p in pairs if p.a in usable and p.b in usable and p.a != p.b]
    edges = [(pair.a, pair.b) for pair in chosen]
    same_bytes: dict[str, str] = {}
    for uri, file in usable.items():
        if file.recording_id is not None:
            edges.append((same_bytes.setdefault(file.recording_id, uri), uri))
    groups = connected_components(usable, edges)
    dealt = _Dealer(groups, usable, list(ratios.values()), stratify, seed).deal()
    names = list(ratios)
    of_uri = {uri: names[s] for uris, s in zip(groups, dealt, strict=True) for uri in uris}
    of_group = {uri: cluster_id(uris) for uris in groups for uri in uris}
    return Split(dict(ratios), of_uri, of_group, usable, stratify, chosen)


class _Dealer:
    """Deals groups out to splits.

    The cost of a deal is the squared distance of every split from its share, of all seconds and of
    those of each stratum; a stratum weighs as much as it has seconds.
    """

    def __init__(
        self, groups: Sequence[Sequence[str]], facts: Mapping[str, FileFacts],
        ratios: Sequence[float], stratify: str | None, seed: int,
    ) -> None:  # fmt: skip
        strata = {
            s: i for i, s in enumerate(sorted({_stratum(f, stratify) for f in facts.values()}))
        }
        # Of each group, its seconds in each stratum that it has any of; last of all, in all.
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        total = np.zeros(len(strata) + 1)
        for uris in groups:
            seconds: dict[int, float] = defaultdict(float)
            for uri in uris:
                seconds[strata[_stratum(facts[uri], stratify)]] += facts[uri].seconds
            seconds[len(strata)] = math.fsum(seconds.values())
            part = np.array([*seconds]), np.array([*seconds.values()])
            total[part[0]] += part[1]
            self._parts.append(part)
        self._ratios = np.array(ratios)
        self._targets = np.outer(self._ratios, total)
        # Squared seconds become shares of the stratum, times the weight of the stratum.
        self._weights = 1 / np.maximum(total * total[-1], 1e-12)
        self._dealt = np.zeros_like(self._targets)
        self._order = sorted(
            range(len(groups)),
            key=lambda g: (-_octave(self._parts[g]), _shuffled(groups[g][0], seed)),
        )

    def deal(self) -> list[int]:
        """The split of each group."""
        split = [-1] * len(self._parts)
        for group in self._order:
            split[group] = self._best(group)
            self._add(group, split[group], +1)
        for _ in range(_MAX_PASSES):
            moved = False
            for group in self._order:
                before = split[group]
                self._add(group, before, -1)
                split[group] = self._best(group, before)
                self._add(group, split[group], +1)
                moved |= split[group] != before
            if not moved:
                break
        return split

    def _best(self, group: int, now: int | None = None) -> int:
        strata, seconds = self._parts[group]
        missing = self._targets[:, strata] - self._dealt[:, strata]
        costs = (self._weights[strata] * seconds * (seconds - 2 * missing)).sum(1) / self._ratios
        best = int(np.argmin(costs))
        # Only a real gain is worth a move, or rounding errors would move groups for ever.
        return best if now is None or costs[best] < costs[now] - 1e-12 else now

    def _add(self, group: int, split: int, sign: int) -> None:
        strata, seconds = self._parts[group]
        self._dealt[split, strata] += sign * seconds


def _octave(part: tuple[np.ndarray, np.ndarray]) -> int:
    # About how long a group is: groups of like length are dealt in a random order.
    return math.floor(2 * math.log2(max(float(part[1][-1]), 1e-3)))


def _shuffled(name: str, seed: int) -> bytes:
    content = f"{seed} {name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=8).digest()


def _stratum(file: FileFacts, stratify: str | None) -> str:
    return file.labels.get(stratify, "") if stratify else ""


def _share(seconds: Mapping[str, float], name: str) -> float:
    return round(seconds[name] / max(sum(seconds.values()), 1e-9), 4)
