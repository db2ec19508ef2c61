"""What a list of pairs is worth, against what was planted."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from _dedup_oracle import shares_waveform
from _planting import Plant, Unclear, truth

from index.schema import DuplicateKind

# Pairs of two sources that the oracle is asked about.
_ASKED = 4

Row = Mapping[str, Any]


class Found(NamedTuple):
    """A reported pair of different sources."""

    row: Row
    is_natural: bool


def expected_pairs(plants: Iterable[Plant]) -> dict[tuple[str, str], DuplicateKind | Unclear]:
    """What each pair of plants of one source is."""
    by_source: dict[str, list[Plant]] = defaultdict(list)
    for plant in plants:
        by_source[plant.source].append(plant)
    expected = {}
    for group in by_source.values():
        for a, b in itertools.combinations(sorted(group, key=lambda p: p.uri), 2):
            kind = truth(a, b)
            if kind is not None:
                expected[a.uri, b.uri] = kind
    return expected


def pairs_between_sources(plants: Sequence[Plant], rows: Sequence[Row]) -> list[Found]:
    """Reported pairs of different sources.

    Those of sources whose samples agree are duplicates that were there before, and the others are
    false. The oracle is asked about the surest few of the pairs of two sources.
    """
    source = {plant.uri: plant.source for plant in plants}
    of_sources: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["a"] in source and row["b"] in source:
            first, second = sorted((source[row["a"]], source[row["b"]]))
            if first != second:
                of_sources[first, second].append(row)
    found = []
    for group in of_sources.values():
        surest = sorted(group, key=lambda row: -row["score"])[:_ASKED]
        is_natural = any(shares_waveform(row) for row in surest)
        found += [Found(row, is_natural) for row in group]
    return found


def repeated_pairs(plants: Sequence[Plant], rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Reported pairs that hold different stretches of one source, and the same samples.

    Music made of loops repeats itself to the sample: nobody planted that, but it is right.
    """
    by_uri = {plant.uri: plant for plant in plants}
    found = set()
    for row in rows:
        a, b = by_uri.get(row["a"]), by_uri.get(row["b"])
        of_one = a is not None and b is not None and a.source == b.source
        if of_one and truth(a, b) is None and shares_waveform(row):
            found.add((row["a"], row["b"]))
    return found


def score_pairs(
    plants: Sequence[Plant],
    rows: Sequence[Row],
    unpaired: set[str],
    between: Sequence[Found],
    repeated: Collection[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Precision, recall and time error of each kind.

    Of files with the same bytes only the first is named by other pairs: the pairs of the second
    are not expected. Test tones and silent files are a class of their own, and expected in no
    pair.

    Parameters
    ----------
    between : sequence of Found
        From :func:`pairs_between_sources`.
    repeated : collection of (str, str), optional
        From :func:`repeated_pairs`; not counted.

    Returns
    -------
    scores : dict
        By kind.
    """
    by_uri = {plant.uri: plant for plant in plants}
    identical = {p.uri for p in plants if p.variant == "original"}
    expected = {
        pair: kind
        for pair, kind in expected_pairs(plants).items()
        if kind == DuplicateKind.IDENTICAL
        or (not identical & set(pair) and not unpaired & set(pair))
    }
    found = {(row["a"], row["b"]): row for row in rows if row["a"] in by_uri and row["b"] in by_uri}
    false = Counter(f.row["kind"] for f in between if not f.is_natural)
    scores: dict[str, Any] = {}
    for kind in DuplicateKind:
        wanted = {pair for pair, k in expected.items() if k == kind}
        reported = {p for p, row in found.items() if row["kind"] == kind.value}
        mine = {p for p in reported if by_uri[p[0]].source == by_uri[p[1]].source}
        counted = {p for p in mine if not isinstance(expected.get(p), Unclear)} - set(repeated)
        right = wanted & counted
        errors = [_time_error(by_uri[a], by_uri[b], found[a, b]) for a, b in right]
        n_reported = len(counted) + false[kind.value]
        precision = len(right) / n_reported if n_reported else None
        recall = len(right) / len(wanted) if wanted else None
        paired = len(wanted & set(found)) / len(wanted) if wanted else None
        scores[kind.value] = {
            "pairs": len(wanted),
            "reported": n_reported,
            "precision": precision,
            "recall": recall,
            "recall_any_kind": paired,
            "f1": 2 * precision * recall / (precision + recall) if precision and recall else None,
            "between_sources": false[kind.value],
            "time_error_median_s": float(np.median(errors)) if errors else None,
            "time_error_p95_s": float(np.percentile(errors, 95)) if errors else None,
        }
    return scores


def recall_by_variant(plants: Sequence[Plant], rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """How often each variant is paired with its original: in the right kind, and in any."""
    found = {(row["a"], row["b"]): row["kind"] for row in rows}
    originals = {p.source: p for p in plants if p.variant == "identical"}
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for plant in plants:
        if plant.variant in ("original", "identical") or plant.source not in originals:
            continue
        kind = truth(*sorted((plant, originals[plant.source]), key=lambda p: p.uri))
        if not isinstance(kind, DuplicateKind):
            continue
        pair = tuple(sorted((plant.uri, originals[plant.source].uri)))
        reported = found.get((pair[0], pair[1]))
        totals[plant.variant]["n"] += 1
        totals[plant.variant]["right kind"] += reported == kind.value
        totals[plant.variant]["any kind"] += reported is not None
    return {
        variant: {"n": n["n"], **{k: n[k] / n["n"] for k in ("right kind", "any kind")}}
        for variant, n in sorted(totals.items())
    }


def _time_error(a: Plant, b: Plant, row: Row) -> float:
    # The moment of b that was paired with the start in a, against the one that belongs there.
    source_s = a.start + (row["a_start_s"] - a.lead) * a.speed
    return abs(b.time_of(source_s) - row["b_start_s"])
