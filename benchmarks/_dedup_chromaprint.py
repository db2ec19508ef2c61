"""Duplicates by Chromaprint, the way ``soundalike`` finds them.

Every file's raw fingerprint is aligned with those that share items with it; where enough bits agree
the files are linked, and connected components are the groups.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _dedup_scores import expected_pairs
from _planting import Plant, Unclear

from pipelines.peers.chromaprint import Chromaprint, count_ones, fingerprint

AGREEING_BITS = (0.95, 0.85)

# Files that share fewer items at one offset are not aligned.
_LEAST_SHARED = 2
# Items in more files than this are silence and the like.
_MOST_FILES = 200
_LEAST_OVERLAP = 10
_BATCH = 64


def is_installed() -> bool:
    """Whether ``fpcalc`` is in the path."""
    return Chromaprint.is_installed()


def agreement(plants: Sequence[Plant]) -> dict[tuple[str, str], float]:
    """The share of bits that agree, of all pairs that share items."""
    uris = sorted(plant.uri for plant in plants)
    prints: list[np.ndarray] = []
    for start in range(0, len(uris), _BATCH):
        prints += fingerprint([Path(uri) for uri in uris[start : start + _BATCH]])
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, items in enumerate(prints):
        for place, item in enumerate(items.tolist()):
            places[item].append((number, place))
    offsets: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for where in places.values():
        if len(where) > _MOST_FILES:
            continue
        for (a, i), (b, j) in itertools.combinations(where, 2):
            if a != b:
                offsets[a, b][j - i] += 1
    agreeing = {}
    for (a, b), counts in offsets.items():
        offset, n = counts.most_common(1)[0]
        first, second = prints[a][max(0, -offset) :], prints[b][max(0, offset) :]
        length = min(len(first), len(second))
        if n >= _LEAST_SHARED and length >= _LEAST_OVERLAP:
            wrong = int(count_ones(first[:length] ^ second[:length]).sum())
            agreeing[uris[a], uris[b]] = 1 - wrong / (32 * length)
    return agreeing


def score(plants: Sequence[Plant], least: float, agreeing: dict[Any, float]) -> dict[str, Any]:
    """Precision of the groups' pairs, and recall of each kind."""
    parent = {plant.uri: plant.uri for plant in plants}

    def root(uri: str) -> str:
        while parent[uri] != uri:
            uri = parent[uri]
        return uri

    for (a, b), share in agreeing.items():
        if share >= least:
            parent[root(a)] = root(b)
    groups: dict[str, list[Plant]] = defaultdict(list)
    for plant in plants:
        groups[root(plant.uri)].append(plant)
    pairs = {
        tuple(sorted((a.uri, b.uri))): a.source == b.source
        for group in groups.values()
        for a, b in itertools.combinations(group, 2)
    }
    recall: dict[str, list[bool]] = defaultdict(list)
    for pair, kind in expected_pairs(plants).items():
        if not isinstance(kind, Unclear):
            recall[kind.value].append(pair in pairs)
    return {
        "agreeing_bits": least,
        "pairs": len(pairs),
        "precision": sum(pairs.values()) / len(pairs) if pairs else None,
        "recall": {kind: sum(hits) / len(hits) for kind, hits in sorted(recall.items())},
    }
