from __future__ import annotations

import pytest
from dedup_helpers import pair
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import EarmarkError
from index.keep import FileFacts
from index.schema import DuplicatePair
from index.splits import parse_ratios, split_files

RATIOS = {"train": 0.8, "dev": 0.1, "test": 0.1}


def files(n: int, seconds: float = 10.0, **changes: object) -> dict[str, FileFacts]:
    found = [FileFacts(f"{i:04d}", f"{i:04d}", seconds=seconds, **changes) for i in range(n)]  # type: ignore[arg-type]
    return {file.uri: file for file in found}


KINDS = st.sampled_from(["identical", "same-audio", "excerpt", "overlap", "near"])
ENDS = st.integers(0, 39)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ENDS, ENDS, KINDS), max_size=40), st.randoms(), st.integers(0, 5))
def test_no_pair_ever_crosses_a_border(
    ends: list[tuple[int, int, str]], random: object, seed: int
) -> None:
    facts = files(40)
    pairs = [pair(f"{a:04d}", f"{b:04d}", kind) for a, b, kind in ends if a != b]
    split = split_files(facts, pairs, RATIOS, seed=seed)
    assert set(split.of_uri) == set(facts)
    assert all(split.of_uri[p.a] == split.of_uri[p.b] for p in pairs)
    counts = split.pairs_within_and_across()
    assert sum(across for _, across in counts.values()) == 0
    assert sum(within for within, _ in counts.values()) == len(pairs)

    shuffled, others = pairs[:], list(facts.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(others)  # type: ignore[attr-defined]
    assert split_files(dict(others), shuffled, RATIOS, seed=seed).of_uri == split.of_uri


def test_shares_are_as_close_as_can_be() -> None:
    facts = {f.uri: f for i, f in enumerate(files(500).values())}
    facts = {u: FileFacts(u, u, seconds=1 + i % 97) for i, u in enumerate(facts)}
    proof = split_files(facts, [], RATIOS).proof()
    for name, ratio in RATIOS.items():
        assert proof["splits"][name]["share"] == pytest.approx(ratio, abs=0.001)
    assert proof["strata"] is None
    even = split_files(files(10), [], RATIOS).proof()
    assert [row["files"] for row in even["splits"].values()] == [8, 1, 1]


def test_a_large_group_goes_where_there_is_room() -> None:
    facts = files(20)
    chain = [pair(f"{i:04d}", f"{i + 1:04d}", "overlap") for i in range(9)]
    split = split_files(facts, chain, RATIOS)
    assert {split.of_uri[f"{i:04d}"] for i in range(10)} == {"train"}
    proof = split.proof()
    assert proof["largest_group_share"] == 0.5
    assert proof["splits"]["train"]["share"] == pytest.approx(0.8)
    assert proof["splits"]["train"]["groups"] == 7
    assert proof["pairs"]["overlap"] == {"within": 9, "across": 0}


def test_every_label_is_spread() -> None:
    facts = {}
    for i, uri in enumerate(files(400)):
        label = "dog" if i % 10 == 0 else "cat"
        facts[uri] = FileFacts(uri, uri, seconds=5 + i % 7, labels={"label": label})
    pairs = [pair(f"{i:04d}", f"{i + 11:04d}", "near") for i in range(0, 380, 19)]
    proof = split_files(facts, pairs, RATIOS, "label").proof()
    for label in ("cat", "dog"):
        for name, ratio in RATIOS.items():
            assert proof["strata"][label][name] == pytest.approx(ratio, abs=0.02)


def test_seeds_and_equal_bytes_and_failed_files() -> None:
    facts = files(100)
    one, two = (split_files(facts, [], RATIOS, seed=seed).of_uri for seed in (0, 1))
    assert one != two
    assert one == split_files(facts, [], RATIOS, seed=0).of_uri

    facts["copy"] = FileFacts("copy", "0007", seconds=10.0)
    facts["bad"] = FileFacts("bad", None, status="failed")
    split = split_files(facts, [], RATIOS)
    assert split.of_uri["copy"] == split.of_uri["0007"]
    assert "bad" not in split.of_uri


def test_the_proof_counts_anew() -> None:
    pairs: list[DuplicatePair] = [pair("0000", "0001", "near")]
    split = split_files(files(10), pairs, RATIOS)
    split.of_uri["0000"] = "elsewhere"
    assert split.pairs_within_and_across()["near"] == (0, 1)


def test_what_cannot_be_split_is_told() -> None:
    with pytest.raises(EarmarkError, match="all have failed"):
        split_files(files(3, status="failed"), [], RATIOS)
    with pytest.raises(EarmarkError, match=r"no file has the label 'genre' \(labels .*: x\)"):
        split_files(files(3, labels={"x": "1"}), [], RATIOS, "genre")


def test_ratios() -> None:
    assert parse_ratios("train=.8, dev=.1,test=0.1") == pytest.approx(RATIOS)
    assert sum(parse_ratios("a=.333,b=.333,c=.334").values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "text", ["", "train", "train=.5", "a=.5,a=.5", "a=-1,b=2", "a=.5,b=x", "a=.6,b=.6", "=1"]
)
def test_bad_ratios(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not like|add up"):
        parse_ratios(text)
