"""What a list of pairs is worth, against what was planted."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
from _planting import Plant, Unclear, truth

from encoders.audio import load_audio
from encoders.errors import AudioError
from index.schema import DuplicateKind

_RATE = 16_000
# Samples of two files agree so well only if the one is a copy of the other.
_SAME_WAVE = 0.8
_LONGEST_S = 10.0
_SLACK_S = 0.05
# Pairs of two sources that the oracle is asked about.
_ASKED = 4

Row = Mapping[str, Any]


class Found(NamedTuple):
    """A reported pair of different sources."""

    row: Row
    is_natural: bool


def shares_waveform(row: Row) -> bool:
    """Whether the samples of the reported stretch agree, which no look-alike's do.

    An oracle that has nothing in common with the way pairs are found: the cross-correlation of the
    waveforms, up to 10 s of them, at speed 1.
    """
    waves = []
    for side in ("a", "b"):
        try:
            signal = load_audio(row[side], _RATE)
        except AudioError:
            return False
        start = round(row[f"{side}_start_s"] * _RATE)
        seconds = min(_LONGEST_S, row["a_end_s"] - row["a_start_s"])
        waves.append(signal[start : start + round(seconds * _RATE)].astype(np.float64))
    slack = round(_SLACK_S * _RATE)
    a = waves[0][slack:-slack] if len(waves[0]) > 4 * slack else waves[0]
    b = waves[1]
    if len(a) == 0 or len(b) < len(a):
        a, b = b[slack:-slack], waves[0]
    if len(a) < 100 or len(b) < len(a):
        return False
    products = np.abs(scipy.signal.fftconvolve(b, a[::-1], mode="valid"))
    sums = np.concatenate([[0.0], np.cumsum(b**2)])
    energy = sums[len(a) :] - sums[: -len(a)]
    norms = np.sqrt(np.maximum(energy * (a @ a), 1e-12))
    return bool((products / norms).max() > _SAME_WAVE)


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
