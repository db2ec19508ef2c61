"""Pairs of duplicates become clusters, and what links too weakly stays apart.

A connected component is not yet a cluster: one wrong pair would join two groups of copies. So a
component is built up again by average linkage (Sokal & Michener 1958), the surest links first,
and two parts become one only if enough of the pairs between them were found. Nothing here depends
on the order in which the pairs come.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from index.schema import DuplicateKind, DuplicatePair

STRONG_KINDS = frozenset({DuplicateKind.IDENTICAL, DuplicateKind.SAME_AUDIO})
"""Kinds that make two files copies of each other; only these are ever acted upon."""

CLUSTERING_KINDS = STRONG_KINDS | {DuplicateKind.NEAR}
"""Kinds that may make clusters. Files that share a stretch are not the same."""

# Half of the partners that are looked up for a recording (candidates.MAX_PARTNERS; the other half
# may have been refused). Between two recordings of so many links, one that is missing says little.
_SATURATED = 16

# Hits of one drum can be as alike as a hit and its copy: links of stretches that are shorter, in
# seconds, are weak below this score.
_BRIEF_S, _WEAK_SCORE = 3.0, 0.91


@dataclasses.dataclass(frozen=True)
class Clustering:
    """What :func:`find_clusters` made of some pairs.

    Attributes
    ----------
    clusters : list of tuple of str
        The uris of each cluster, two at least, sorted; the clusters sorted too.
    cut : list of DuplicatePair
        Links that too few others support: they would have joined two clusters, or a file to one.
    """

    clusters: list[tuple[str, ...]]
    cut: list[DuplicatePair]

    def of_uri(self) -> dict[str, int]:
        """The number of each file's cluster."""
        return {uri: number for number, uris in enumerate(self.clusters) for uri in uris}


def find_clusters(
    pairs: Iterable[DuplicatePair],
    kinds: Collection[DuplicateKind] = STRONG_KINDS,
    apart: Collection[frozenset[str]] = frozenset(),
) -> Clustering:
    """Find the groups of files that are copies of each other.

    Two parts of a connected component become one cluster if at least half of the pairs between
    them were found (more than half when a pair ``near`` is among them), or if one file is linked
    to all the others. A chain of links does not make a cluster, nor do weak links between two parts
    that are both held together by others. In large components, in which a
    file cannot have met all its copies, half of what can be expected is enough.

    Parameters
    ----------
    pairs : iterable of DuplicatePair
        Of any kind, in any order.
    kinds : collection of DuplicateKind
        Those that count; of :data:`CLUSTERING_KINDS`.
    apart : collection of frozenset of str
        Recording ids, two each, that are never in one cluster: a person said that they differ.

    Raises
    ------
    ValueError
        If excerpts or overlaps are asked for.
    """
    if not set(kinds) <= CLUSTERING_KINDS:
        raise ValueError("excerpts and overlaps do not make clusters")
    chosen = [pair for pair in pairs if pair.kind in kinds and pair.a != pair.b]
    # Files of the same bytes are one from the start.
    uris: dict[str, set[str]] = defaultdict(set)
    links: dict[tuple[str, str], _Link] = {}
    for pair in chosen:
        uris[pair.a_id].add(pair.a)
        uris[pair.b_id].add(pair.b)
        if pair.a_id != pair.b_id:
            ends = (min(pair.a_id, pair.b_id), max(pair.a_id, pair.b_id))
            link = _link(pair)
            links[ends] = max(links.get(ends, link), link)
    graph = _Graph(links, apart)
    groups = [group for component in graph.components(uris) for group in graph.divide(component)]
    number = {node: i for i, group in enumerate(groups) for node in group}
    clusters = [tuple(sorted(uri for node in group for uri in uris[node])) for group in groups]
    cut = [pair for pair in chosen if number[pair.a_id] != number[pair.b_id]]
    return Clustering(
        sorted(cluster for cluster in clusters if len(cluster) > 1),
        sorted(cut, key=lambda pair: (pair.a, pair.b)),
    )


def cluster_id(members: Iterable[str]) -> str:
    """A name for a cluster that is the same in every run: a hash of its members' uris."""
    content = "\n".join(sorted(members)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def connected_components(nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Connected components of a graph, each sorted, sorted by their first nodes.

    Parameters
    ----------
    nodes : iterable of str
    edges : iterable of (str, str)
        Between these nodes.
    """
    parent = {node: node for node in nodes}

    def root(node: str) -> str:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    components: dict[str, list[str]] = defaultdict(list)
    for node in sorted(parent):
        components[root(node)].append(node)
    return list(components.values())


@dataclasses.dataclass(frozen=True, order=True)
class _Link:
    score: float
    near: bool
    weak: bool


def _link(pair: DuplicatePair) -> _Link:
    near = pair.kind == DuplicateKind.NEAR
    brief = pair.a_end_s - pair.a_start_s < _BRIEF_S
    return _Link(pair.score, near, not near and brief and pair.score < _WEAK_SCORE)


@dataclasses.dataclass
class _Bundle:
    # All the links between two groups.
    n: int = 0
    n_near: int = 0
    n_weak: int = 0
    score: float = 0.0
    support: float = 0.0
    forbidden: bool = False

    def add(self, other: _Bundle) -> None:
        self.n += other.n
        self.n_near += other.n_near
        self.n_weak += other.n_weak
        self.score += other.score
        self.support += other.support
        self.forbidden |= other.forbidden


class _Graph:
    """Recordings and the links between them."""

    def __init__(
        self, links: dict[tuple[str, str], _Link], apart: Collection[frozenset[str]]
    ) -> None:
        self._links = links
        self._apart = apart
        self._near: dict[str, set[str]] = defaultdict(set)
        for a, b in links:
            self._near[a].add(b)
            self._near[b].add(a)

    def components(self, nodes: Iterable[str]) -> list[list[str]]:
        return connected_components(nodes, self._links)

    def divide(self, component: list[str]) -> Iterator[list[str]]:
        """Average linkage inside one component; gives its groups."""
        saturated = {node for node in component if len(self._near[node]) >= _SATURATED}
        n_links = sum(len(self._near[node]) for node in saturated)
        # Share of the links between saturated recordings to be seen if all were copies.
        seen = n_links / max(1, len(saturated) * (len(component) - 1))
        groups: dict[str, list[str]] = {node: [node] for node in component}
        # Between groups, which are named by their first nodes.
        between = self._bundles(component)
        heap = [
            self._entry(bundle, groups[a], groups[b])
            for a in between
            for b, bundle in between[a].items()
            if a < b
        ]
        heapq.heapify(heap)
        while heap:
            *_, a, b, size = heapq.heappop(heap)
            if a not in groups or b not in groups or size != len(groups[a]) + len(groups[b]):
                continue  # One of them has grown since.
            bundle = between[a][b]
            met = [sum(node in saturated for node in group) for group in (groups[a], groups[b])]
            expected = len(groups[a]) * len(groups[b]) - met[0] * met[1] * (1 - seen)
            if not self._supported(bundle, groups[a], groups[b], expected):
                continue
            groups[a] = sorted(groups[a] + groups.pop(b))
            del between[a][b]
            for other, theirs in between.pop(b).items():
                if other != a:
                    del between[other][b]
                    between[a].setdefault(other, _Bundle()).add(theirs)
                    between[other][a] = between[a][other]
            for other, theirs in between[a].items():
                first, second = sorted((a, other))
                heapq.heappush(heap, self._entry(theirs, groups[first], groups[second]))
        yield from groups.values()

    def _bundles(self, component: list[str]) -> dict[str, dict[str, _Bundle]]:
        between: dict[str, dict[str, _Bundle]] = {node: {} for node in component}
        for a in component:
            for b in self._near[a]:
                if a < b:
                    link = self._links[a, b]
                    forbidden = frozenset((a, b)) in self._apart
                    support = self._support(a, b)
                    bundle = _Bundle(1, link.near, link.weak, link.score, support, forbidden)
                    between[a][b] = between[b][a] = bundle
        for ends in self._apart:
            if len(ends) == 2 and all(node in between for node in ends):
                a, b = sorted(ends)
                if b not in between[a]:
                    between[a][b] = between[b][a] = _Bundle(forbidden=True)
        return between

    def _support(self, a: str, b: str) -> float:
        # Jaccard index of the neighbourhoods: low for a link that nothing else speaks for.
        mine, theirs = self._near[a] | {a}, self._near[b] | {b}
        return len(mine & theirs) / len(mine | theirs)

    @staticmethod
    def _entry(
        bundle: _Bundle, mine: list[str], theirs: list[str]
    ) -> tuple[float, float, float, str, str, int]:
        share = bundle.n / (len(mine) * len(theirs))
        n = max(1, bundle.n)
        # Rounded, since sums of floats depend on the order of their terms.
        support, score = round(bundle.support / n, 9), round(bundle.score / n, 9)
        return -share, -support, -score, mine[0], theirs[0], len(mine) + len(theirs)

    def _supported(
        self, bundle: _Bundle, mine: list[str], theirs: list[str], expected: float
    ) -> bool:
        if bundle.forbidden or not bundle.n:
            return False
        if bundle.n_weak == bundle.n and min(len(mine), len(theirs)) > 1:
            return False
        if bundle.n_near:
            return 2 * bundle.n > expected
        return 2 * bundle.n >= expected or self._has_hub([*mine, *theirs])

    def _has_hub(self, nodes: list[str]) -> bool:
        return any(
            len(self._near[hub]) >= len(nodes) - 1
            and all(node in self._near[hub] for node in nodes if node != hub)
            for hub in nodes
        )
