from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from dedup_helpers import links, pair
from hypothesis import given
from hypothesis import strategies as st

from index.candidates import MAX_PARTNERS
from index.clusters import (
    _SATURATED,
    CLUSTERING_KINDS,
    cluster_id,
    connected_components,
    find_clusters,
)
from index.schema import DuplicatePair


def clique(names: str) -> list[DuplicatePair]:
    return links(*map("".join, itertools.combinations(names, 2)))


def clusters(*pairs: DuplicatePair, **kwargs: object) -> list[str]:
    return ["".join(uris) for uris in find_clusters(pairs, **kwargs).clusters]  # type: ignore[arg-type]


def test_copies_of_copies_are_one_cluster() -> None:
    assert clusters(*links("ab", "bc"), pair("d", "e", "identical")) == ["abc", "de"]
    assert clusters(*clique("abcde")) == ["abcde"]
    assert clusters() == []


def test_files_that_share_a_stretch_are_no_cluster() -> None:
    pairs = [pair("a", "b", "excerpt"), pair("b", "c", "overlap"), pair("c", "d", "near")]
    assert clusters(*pairs) == []
    assert clusters(*pairs, kinds=CLUSTERING_KINDS) == ["cd"]
    with pytest.raises(ValueError, match="excerpts"):
        find_clusters(pairs, {pairs[0].kind})


def test_one_link_does_not_join_two_groups() -> None:
    found = find_clusters([*clique("abcd"), *clique("wxyz"), *links("dw", score=1.0)])
    assert found.clusters == [tuple("abcd"), tuple("wxyz")]
    assert [(p.a, p.b) for p in found.cut] == [("d", "w")]
    assert found.of_uri()["d"] != found.of_uri()["w"]


def test_hits_of_one_drum_are_two_clusters_and_a_worse_copy_is_in_one() -> None:
    crossed = [pair(a, b, score=0.88, a_end_s=1.0, b_end_s=1.0) for a in "abc" for b in "xyz"]
    copies = [*clique("abc"), *clique("xyz")]
    found = find_clusters([*copies, *crossed])
    assert found.clusters == [tuple("abc"), tuple("xyz")]
    assert len(found.cut) == len(crossed)
    # Long enough, they are copies; and so is a single one that went through a worse codec.
    longer = [dataclasses.replace(p, a_end_s=5.0, b_end_s=5.0) for p in crossed]
    assert find_clusters([*copies, *longer]).clusters == [tuple("abcxyz")]
    assert clusters(*clique("abc"), *crossed[:7:3]) == ["abcx"]


def test_a_chain_is_no_cluster() -> None:
    found = find_clusters(links("ab", "bc", "cd", "de", "ef"))
    assert all(len(uris) <= 3 for uris in found.clusters)
    assert found.cut


def test_links_that_were_missed_do_not_divide_a_cluster() -> None:
    most = [p for p in clique("abcdef") if (p.a, p.b) not in {("a", "b"), ("c", "f"), ("d", "e")}]
    assert clusters(*most) == ["abcdef"]


def test_one_file_can_hold_its_copies_together() -> None:
    assert clusters(*links("ha", "hb", "hc", "hd")) == ["abcdh"]


def test_near_takes_more_than_half() -> None:
    near = [pair(a, b, "near") for a, b in ("ab", "bc")]
    assert clusters(*near, kinds=CLUSTERING_KINDS) == ["ab"]
    assert clusters(*near, pair("a", "c", "near"), kinds=CLUSTERING_KINDS) == ["abc"]


def test_equal_bytes_count_once() -> None:
    same = [pair("a", f"a#{i}", "identical") for i in range(2, 6)]
    found = find_clusters([*same, *links("ab", "bc")])
    assert found.clusters == [("a", "a#2", "a#3", "a#4", "a#5", "b", "c")]


def test_what_a_person_told_apart_stays_apart() -> None:
    found = find_clusters(links("ab", "bc"), apart={frozenset("ac")})
    assert found.clusters == [("a", "b")]
    assert len(found.cut) == 1


def partly(names: list[str], n_partners: int, rng: random.Random) -> list[DuplicatePair]:
    """Each of the files met only so many of the others, which are all its copies."""
    met = {tuple(sorted((a, b))) for a in names for b in rng.sample(names, n_partners) if a != b}
    return [pair(*ends) for ends in sorted(met)]


def test_more_copies_than_are_looked_up() -> None:
    assert 2 * _SATURATED == MAX_PARTNERS
    rng = random.Random(0)
    one, two = ([f"{letter}{i:03d}" for i in range(150)] for letter in "xy")
    pairs = [*partly(one, 24, rng), *partly(two, 24, rng)]
    bridges = [pair(rng.choice(one), rng.choice(two), score=1.0) for _ in range(5)]
    found = find_clusters([*pairs, *bridges])
    assert found.clusters == [tuple(one), tuple(two)]
    assert len(found.cut) == len(bridges)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from("abcdefgh"),
            st.sampled_from(["identical", "same-audio", "near", "excerpt", "overlap"]),
            st.sampled_from([0.5, 0.7, 0.9]),
        ),
        max_size=20,
    ),
    st.randoms(),
)
def test_the_order_of_pairs_does_not_matter(
    ends: list[tuple[str, str, str, float]], rng: random.Random
) -> None:
    pairs = [pair(a, b, kind, score) for a, b, kind, score in ends if a != b]
    shuffled = pairs[:]
    rng.shuffle(shuffled)
    found, again = (find_clusters(p, CLUSTERING_KINDS) for p in (pairs, shuffled))
    assert found.clusters == again.clusters
    assert {(p.a, p.b) for p in found.cut} == {(p.a, p.b) for p in again.cut}
    # Never more than the connected components, and every file once.
    uris = [uri for cluster in found.clusters for uri in cluster]
    assert len(uris) == len(set(uris))
    chosen = [(p.a, p.b) for p in pairs if p.kind in CLUSTERING_KINDS]
    nodes = {node for ends in chosen for node in ends}
    component = {node: i for i, c in enumerate(connected_components(nodes, chosen)) for node in c}
    assert all(len({component[uri] for uri in c}) == 1 for c in found.clusters)


def test_a_cluster_has_the_same_name_in_every_run() -> None:
    assert cluster_id(["b", "a"]) == cluster_id(("a", "b")) != cluster_id(["a", "c"])
    assert cluster_id(["a", "b"]) == "a76de9f2d561975f"
