from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dedup_helpers import catalog_of

from index.keep import FileFacts, KeepPolicy, conflicting_labels, read_facts

FLAC = FileFacts(
    "z.flac", codec="flac", sample_rate=44_100, channels=2, n_bytes=900_000, seconds=10.0
)
MP3 = FileFacts("m.mp3", codec="mp3", sample_rate=44_100, channels=2, n_bytes=200_000, seconds=11.0)
OPUS = FileFacts(
    "a.opus", codec="opus", sample_rate=48_000, channels=2, n_bytes=120_000, seconds=10.0
)


def keep(*files: FileFacts, policy: str = "best") -> tuple[str, str]:
    file, why = KeepPolicy(policy).choose(files)
    assert KeepPolicy(policy).choose(files[::-1])[0] == file, "the order does not matter"
    return file.uri, why


def changed(file: FileFacts, **changes: Any) -> FileFacts:
    return FileFacts(**{**vars(file), "uri": "changed", **changes})


def test_the_best_is_kept() -> None:
    assert keep(MP3, FLAC, OPUS) == ("z.flac", "lossless")
    assert keep(MP3, OPUS) == ("m.mp3", "higher bit rate")
    assert keep(FLAC, changed(MP3, status="partial")) == ("z.flac", "whole, the other damaged")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sample_rate": 96_000}, "higher sample rate"),
        ({"channels": 6}, "more channels"),
        ({"seconds": 12.0}, "longest"),
        ({"labels": {"artist": "x"}}, "has labels"),
        ({"modified_ns": 1}, "oldest"),
        ({}, "first by name"),
    ],
)
def test_what_is_kept_among_lossless_files(changes: dict[str, Any], why: str) -> None:
    other = FileFacts(**{**vars(FLAC), "modified_ns": 2})
    assert keep(other, changed(other, **changes)) == ("changed", why)


def test_policies() -> None:
    labelled = changed(OPUS, labels={"label": "dog"})
    assert keep(MP3, FLAC, OPUS, policy="first") == ("a.opus", "first by name")
    assert keep(MP3, FLAC, OPUS, policy="longest") == ("m.mp3", "longest")
    assert keep(FLAC, labelled, policy="label") == ("changed", "has a label")
    in_folder = changed(OPUS, uri="originals/a.opus")
    like_it = changed(FLAC, uri="originals-2/a.flac")
    assert keep(like_it, in_folder, policy="originals") == ("originals/a.opus", "in originals/")
    assert keep(FLAC, MP3, policy="originals/") == ("z.flac", "lossless")


@pytest.mark.parametrize(
    ("codec", "lossless"),
    [
        ("pcm_16", True), ("pcm_s24le", True), ("float", True), ("alac", True),
        ("pcm_mulaw", False), ("pcm_u8", False), ("pcm_s8", False), ("ulaw", False),
        ("mp3", False), (None, False),
    ],
)  # fmt: skip
def test_lossless(codec: str | None, lossless: bool) -> None:
    assert FileFacts("x", codec=codec).is_lossless == lossless


def test_facts_come_from_catalogs(tmp_path: Path) -> None:
    one = catalog_of(tmp_path / "one", ["a", {"uri": "b", "labels": {"label": "x"}}])
    two = catalog_of(tmp_path / "two", [{"uri": "c", "recording_id": None, "codec": None}])
    facts = read_facts([one, two])
    assert set(facts) == {"a", "b", "c"}
    assert facts["b"].labels == {"label": "x"}
    assert (facts["a"].seconds, facts["a"].n_bytes, facts["a"].codec) == (10.0, 1000, "pcm_16")
    assert (facts["c"].recording_id, facts["c"].codec) == (None, None)


def test_labels_that_disagree() -> None:
    files = [changed(MP3, uri=u, labels={"label": v}) for u, v in ("ax", "by", "cx")]
    assert conflicting_labels(files, "label") == {"x": ["a", "c"], "y": ["b"]}
    assert conflicting_labels([files[0], files[2], MP3], "label") == {}
    assert conflicting_labels(files, "genre") == {}
