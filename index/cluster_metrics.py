"""Scores of clusters and of pairs against the truth: pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from index.metrics import Share, wilson

_N_BOOTSTRAP = 1000


def bcubed(
    truth: Mapping[str, Hashable], found: Mapping[str, Hashable], seed: int = 0
) -> tuple[Share, Share]:
    """B-cubed precision and recall of a clustering (Bagga & Baldwin 1998).

    An item's precision is the share of its found cluster that is truly of its group, itself
    included; its recall the share of its true group that is in its found cluster; the figures are
    means over all items.

    Parameters
    ----------
    truth, found : mapping of str to hashable
        The true group and the found cluster of each item. An item that ``found`` lacks is alone;
        what ``truth`` lacks is not looked at.
    seed : int
        Of the bootstrap.

    Returns
    -------
    precision, recall : Share
        ``n`` is the number of true groups. The 95 % interval is a percentile bootstrap over true
        groups, as the items of a group stand and fall together. A perfect score has no spread to
        resample, so there the interval is Wilson's for that many groups.

    >>> precision, recall = bcubed({"a": 1, "b": 1, "c": 2}, {"a": "x", "b": "x", "c": "x"})
    >>> round(precision.value, 3), recall.value
    (0.556, 1.0)
    """
    items = sorted(truth)
    if not items:
        return Share.of(0, 0), Share.of(0, 0)
    groups = _numbers([truth[item] for item in items])
    clusters = _numbers([("found", found[i]) if i in found else ("alone", i) for i in items])
    _, cells, n_common = np.unique(
        np.stack([groups, clusters]), axis=1, return_inverse=True, return_counts=True
    )
    common = n_common[cells.ravel()]
    n_groups = int(groups.max()) + 1
    sizes = np.bincount(groups)
    shares = []
    for other in (clusters, groups):
        scores = common / np.bincount(other)[other]
        sums = np.bincount(groups, scores)
        shares.append(_bootstrap(sums, sizes, n_groups, seed))
    return shares[0], shares[1]


def mixed_clusters(truth: Mapping[str, Hashable], found: Mapping[str, Hashable]) -> list[list[str]]:
    """Found clusters that hold items of more than one true group, each sorted."""
    members: dict[Hashable, list[str]] = {}
    for item in sorted(found.keys() & truth.keys()):
        members.setdefault(found[item], []).append(item)
    return sorted(c for c in members.values() if len({truth[item] for item in c}) > 1)


def _numbers(names: list[Hashable]) -> np.ndarray:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])


def _bootstrap(sums: np.ndarray, sizes: np.ndarray, n_groups: int, seed: int) -> Share:
    value = float(sums.sum() / sizes.sum())
    if np.array_equal(sums, sizes):
        return Share(1.0, *wilson(n_groups, n_groups), n_groups)
    rng = np.random.default_rng(seed)
    means = np.empty(_N_BOOTSTRAP)
    for i in range(_N_BOOTSTRAP):
        weights = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        means[i] = (weights @ sums) / (weights @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Share(value, min(float(low), value), max(float(high), value), n_groups)
