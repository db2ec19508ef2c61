from __future__ import annotations

from pathlib import Path

import pytest
from dedup_helpers import catalog_of, pair

from encoders.errors import CatalogError, EarmarkError
from index.judgements import JUDGEMENTS_FILE, Judgement, Judgements, Verdict, read_verdicts
from index.keep import read_facts

DIFFERENT, DUPLICATE = Verdict.DIFFERENT, Verdict.DUPLICATE


def test_a_verdict_is_about_the_content(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "c", ["a", "b"])
    Judgements([Judgement.now(pair("a", "b"), DIFFERENT)]).remember([catalog])
    read = Judgements.read([catalog])
    assert read.verdict(pair("a", "b", "near")) == DIFFERENT
    assert read.verdict(pair("a#2", "b#2")) == DIFFERENT, "the same bytes under other names"
    assert read.verdict(pair("a", "b", b_id="changed")) is None
    assert read.apart == {frozenset("ab")}


def test_of_equal_bytes_the_names_are_judged(tmp_path: Path) -> None:
    judged = Judgements([Judgement.now(pair("a", "a#2", "identical"), DIFFERENT)])
    assert judged.verdict(pair("a", "a#2", "identical")) == DIFFERENT
    assert judged.verdict(pair("a", "a#3", "identical")) is None
    assert judged.apart == set()


def test_later_verdicts_count_and_none_is_lost(tmp_path: Path) -> None:
    one, two = (catalog_of(tmp_path / name, ["a", "b", "c"]) for name in "xy")
    Judgements([Judgement("a", "b", "a", "b", DIFFERENT, "2026-01-01")]).remember([one, two])
    Judgements([Judgement("b", "c", "b", "c", DIFFERENT, "2026-01-01")]).remember([one])
    Judgements([Judgement("a", "b", "a", "b", DUPLICATE, "2026-01-02")]).remember([two])
    read = Judgements.read([two, one])
    assert read.verdict(pair("a", "b")) == DUPLICATE
    assert read.verdict(pair("b", "c")) == DIFFERENT
    assert len(read) == 2


def test_names_survive_the_file(tmp_path: Path) -> None:
    name = 'odd, "name"\nwith ünïcode'
    catalog = catalog_of(tmp_path / "c", ["a"])
    Judgements([Judgement.now(pair(name, "z"), DIFFERENT)]).remember([catalog])
    assert Judgements.read([catalog]).verdict(pair(name, "z")) == DIFFERENT


def test_a_file_of_verdicts(tmp_path: Path) -> None:
    facts = read_facts([catalog_of(tmp_path / "c", ["a", "b", "c"])])
    path = tmp_path / "verdicts.csv"
    path.write_text("verdict,a,b,note\nno,a,b,x\n,b,c,later\nYes,a,c,\n", encoding="utf-8-sig")
    judged = Judgements(read_verdicts(path, facts))
    assert judged.verdict(pair("a", "b")) == DIFFERENT
    assert judged.verdict(pair("b", "c")) is None
    assert judged.verdict(pair("a", "c")) == DUPLICATE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\na,b\n", "needs the columns"),
        ("a,b,verdict\na,nowhere,no\n", "line 2: 'nowhere' is not in the catalog"),
        ("a,b,verdict\na,b,perhaps\n", "line 2: 'perhaps' is no verdict"),
    ],
)
def test_bad_files_of_verdicts(tmp_path: Path, text: str, says: str) -> None:
    facts = read_facts([catalog_of(tmp_path / "c", ["a", "b"])])
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(EarmarkError, match=says):
        read_verdicts(path, facts)
    with pytest.raises(EarmarkError, match="cannot read"):
        read_verdicts(tmp_path / "none.csv", facts)


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "c", ["a"])
    (catalog.path / JUDGEMENTS_FILE).write_text("a,b,verdict\nx,y,perhaps\n")
    with pytest.raises(CatalogError, match="damaged"):
        Judgements.read([catalog])
