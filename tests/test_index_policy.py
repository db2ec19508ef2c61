from __future__ import annotations

import doctest
import itertools

import pytest

from encoders.errors import EarmarkError
from index import policy
from index.policy import FLAT_LIMIT, PQ_LIMIT, choose, from_factory, outgrown, sparse


def n_lists(factory: str) -> int:
    return int(factory[len("IVF") : factory.index(",")])


def test_the_kind_follows_the_size() -> None:
    assert choose(0, 128).is_flat
    assert choose(FLAT_LIMIT, 128).is_flat
    assert choose(FLAT_LIMIT + 1, 128).factory.endswith(",SQ8")
    assert choose(PQ_LIMIT, 128).factory.endswith(",PQ64x4fs")
    assert choose(PQ_LIMIT, 64).factory.endswith(",PQ32x4fs")
    assert choose(PQ_LIMIT, 63).factory.endswith(",SQ8"), "no two numbers for every code"
    assert doctest.testmod(policy).failed == 0


@pytest.mark.parametrize("n_rows", [20_001, 50_000, 1_000_000, 10_000_000, 10**9])
def test_a_lookup_compares_a_small_share(n_rows: int) -> None:
    kind = choose(n_rows, 128)
    lists = n_lists(kind.factory)
    assert kind.nprobe * 3 <= lists
    assert lists + kind.n_first * n_rows / lists < n_rows / 20


def test_search_grows_more_slowly_than_the_catalog() -> None:
    sizes = [10**5, 10**6, 10**7, 10**8]
    kinds = [choose(n, 128) for n in sizes]
    work = [
        n_lists(k.factory) + k.nprobe * n / n_lists(k.factory)
        for k, n in zip(kinds, sizes, strict=True)
    ]
    assert all(b < 10 * a for a, b in itertools.pairwise(work))


def test_an_index_is_not_built_again_at_every_border() -> None:
    for n in (60_000, 300_000, 5_000_000):
        kind = choose(n, 128)
        grown = [m for m in range(n, 5 * n, n // 50) if outgrown(kind, n, m, 128)]
        assert grown, "sooner or later"
        assert min(grown) >= 2 * n
        assert not outgrown(kind, n, n // 2, 128)
        assert outgrown(kind, n, n // 20, 128)
    flat = choose(15_000, 128)
    assert not outgrown(flat, 15_000, FLAT_LIMIT, 128)
    assert outgrown(flat, 15_000, FLAT_LIMIT + 1, 128)
    assert not outgrown(choose(25_000, 128), 25_000, FLAT_LIMIT - 1, 128)


def test_dead_rows_are_tolerated_up_to_a_share() -> None:
    assert not sparse(100, 80)
    assert sparse(100, 70)
    assert not sparse(0, 0)


@pytest.mark.parametrize("factory", ["IVF64,SQ8", "IVF4096_HNSW32,PQ32x4fs", "IVF16,RaBitQfs"])
def test_plain_lists_can_be_chosen_by_hand(factory: str) -> None:
    kind = from_factory(factory)
    assert kind.factory == factory
    assert 1 <= kind.nprobe <= 64


@pytest.mark.parametrize("factory", ["", "flat", "HNSW32", "OPQ16,IVF64,PQ16", "IVF64", "IVF,SQ8"])
def test_what_cannot_grow_and_shrink_is_refused(factory: str) -> None:
    with pytest.raises(EarmarkError, match="IVF1024,SQ8"):
        from_factory(factory)
