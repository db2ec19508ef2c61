"""Candidates: which recordings meet, where, and which are not compared at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import HOP_S, Recorded, Sound, add_recordings, empty_catalog, noisy

from encoders.errors import CatalogError
from index.build import build_index
from index.candidates import Candidates, Side, propose_pairs
from index.catalog import Catalog
from index.contents import Contents
from index.files import identical_pairs, paired, read_files, unpaired_files
from index.search import FingerprintIndex


def side_of(catalog: Catalog, contents: Contents) -> Side:
    with catalog.writer_lock():
        build_index(catalog)
    index = FingerprintIndex.open(catalog)
    ids = [index.recording_id(i) for i in range(len(index.n_rows))]
    return Side(index, contents.numbers(np.array(ids, object)))


def look_up(catalog: Catalog) -> tuple[Candidates, list[str]]:
    contents = Contents(read_files([catalog]), grouped=False)
    side = side_of(catalog, contents)
    numbers = np.arange(len(side.contents))
    found = list(propose_pairs(side, numbers, side, contents))
    columns = zip(*(candidates.columns() for candidates in found), strict=True)
    return Candidates(*map(np.concatenate, columns)), side.index.uris()


def best(found: Candidates, uris: list[str]) -> dict[tuple[str, str], tuple[float, float]]:
    """Lag (s) and speed of the most voted alignment of each pair."""
    pairs: dict[tuple[str, str], tuple[float, float]] = {}
    for i in np.argsort(-found.votes):
        pair = uris[found.query[i]], uris[found.reference[i]]
        pairs.setdefault(pair, (float(found.lag[i]) * HOP_S, float(found.speed[i])))
    return pairs


def test_copies_meet_and_strangers_do_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    catalog = empty_catalog(tmp_path / "c")
    sound = Sound(1, 30.0)
    grid = HOP_S * np.arange(20)
    recordings = [
        Recorded("whole", noisy(sound.reference(), 0.95, rng)),
        Recorded("part", noisy(sound.fingerprints(8.2 + grid), 0.95, rng)),
        Recorded("faster", noisy(sound.fingerprints(1.04 * HOP_S * np.arange(55)), 0.95, rng)),
        Recorded("blip", sound.reference()[:1]),
        *(Recorded(f"stranger {i}", Sound(100 + i, 20.0).reference()) for i in range(8)),
    ]
    add_recordings(catalog, recordings)
    found, uris = look_up(catalog)
    pairs = best(found, uris)
    assert not any("stranger" in name for pair in pairs for name in pair)
    assert not any(a == b for a, b in pairs)
    lag, speed = pairs["part", "whole"]
    assert (lag, speed) == (pytest.approx(8.2, abs=0.4), 1.0)
    assert pairs["whole", "part"][0] == pytest.approx(-8.2, abs=0.4)
    # Between which windows of the whole they met.
    whole, part = uris.index("whole"), uris.index("part")
    met = (found.query == whole) & (found.reference == part)
    best_met = np.flatnonzero(met)[np.argmax(found.votes[met])]
    assert found.first[best_met] * HOP_S == pytest.approx(8.2, abs=1.1)
    assert found.last[best_met] * HOP_S == pytest.approx(8.2 + 19 * HOP_S, abs=1.1)
    assert pairs["faster", "whole"][1] == pytest.approx(1.04, abs=0.011)
    assert ("blip", "whole") in pairs


def test_short_sounds_that_begin_together_are_alike_all_along(tmp_path: Path) -> None:
    # One window that is very like another of a stranger is found among many short sounds.
    rng = np.random.default_rng(0)
    word = Sound(1, 2.0).reference()[:3]
    catalog = empty_catalog(tmp_path / "c")

    def like(*cosines: float) -> np.ndarray:
        each = zip(np.split(word, 3), cosines, strict=True)
        return np.concatenate([noisy(window, cosine, rng) for window, cosine in each])

    silence = np.zeros((1, word.shape[1]), word.dtype)
    inside = [Sound(2, 4.0).reference(), like(0.9, 0.75, 0.6), Sound(3, 4.0).reference()]
    recordings = [
        Recorded("word", word),
        Recorded("copy", like(0.95, 0.85, 0.85)),
        Recorded("pause", np.concatenate([like(0.95, 0.9, 0.9)[:2], silence])),
        Recorded("stranger", like(0.95, 0.7, 0.6)),
        Recorded("sentence", np.concatenate(inside)),
    ]
    add_recordings(catalog, recordings)
    pairs = best(*look_up(catalog))
    assert {b for a, b in pairs if a == "word"} == {"copy", "pause", "sentence"}
    assert {a for a, b in pairs if b == "word"} == {"copy", "pause", "sentence"}


def test_moments_that_are_alike_here_and_there_in_minutes_are_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    music = Sound(1, 50.0).reference()
    catalog = empty_catalog(tmp_path / "c")
    chance, shared = Sound(2, 50.0).reference(), Sound(3, 50.0).reference()
    chance[4:80:20] = noisy(music[4:80:20], 0.95, rng)
    shared[30:50] = noisy(music[30:50], 0.8, rng)
    noise = noisy(music, 0.65, rng)
    add_recordings(
        catalog,
        [
            Recorded("music", music),
            Recorded("chance", chance),
            Recorded("shared", shared),
            Recorded("noise", noise),
        ],
    )
    pairs = best(*look_up(catalog))
    assert {b for a, b in pairs if a == "music"} == {"shared", "noise"}


def test_only_what_crosses_two_groups_is_looked_up(tmp_path: Path) -> None:
    sound = Sound(1, 10.0).reference()
    catalogs = [empty_catalog(tmp_path / name) for name in "ab"]
    for catalog in catalogs:
        names = [f"{catalog.path.name}{i}" for i in range(2)]
        add_recordings(catalog, [Recorded(name, sound) for name in names])
    files = read_files(catalogs, (str(catalogs[0].path), str(catalogs[1].path)))
    contents = Contents(files, grouped=True)
    sides = [side_of(catalog, contents) for catalog in catalogs]
    found = [
        (queries.index.uri(int(q)), references.index.uri(int(r)))
        for queries in sides
        for references in sides
        for candidates in propose_pairs(queries, np.arange(2), references, contents)
        for q, r in zip(candidates.query, candidates.reference, strict=True)
    ]
    assert {(a[0], b[0]) for a, b in found} == {("a", "b"), ("b", "a")}
    assert len({frozenset(pair) for pair in found}) == 4


def test_the_same_bytes_are_one_content_and_all_their_names_are_paired(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "c")
    sound = Sound(1, 3.0).reference()
    names = ["z", "b", "m"]
    add_recordings(catalog, [Recorded(name, sound, recording_id="same") for name in names])
    add_recordings(catalog, [Recorded("a", Sound(2, 3.0).reference())])
    files = read_files([catalog])
    contents = Contents(files, grouped=False)
    assert contents.ids.tolist() == ["id of a", "same"]
    assert contents.uris(1) == ["b", "m", "z"]
    assert contents.file_pairs(0, 1) == [("a", "b", False)]
    pairs = [(pair.a, pair.b) for pair in identical_pairs(files, grouped=False)]
    assert pairs == [("b", "m"), ("b", "z")]
    assert contents.numbers(np.array(["unknown", "same"], object)).tolist() == [-1, 1]


def test_every_file_of_two_groups_is_named() -> None:
    assert paired(["a"]) == []
    assert paired(["a", "b", "c"], ["x"]) == [("a", "x"), ("b", "x"), ("c", "x")]
    assert paired(["a", "b"], []) == []
    assert paired(["both"], ["both"]) == [("both", "both")]


def test_a_file_in_two_catalogs_has_one_line(tmp_path: Path) -> None:
    catalogs = [empty_catalog(tmp_path / name) for name in "ab"]
    for catalog in catalogs:
        add_recordings(catalog, [Recorded("u", Sound(1, 3.0).reference())])
    assert read_files(catalogs)["uri"].to_pylist() == ["u"]
    files = read_files(catalogs, (str(catalogs[0].path), str(catalogs[1].path)))
    assert [(p.a, p.b) for p in identical_pairs(files, grouped=True)] == [("u", "u")]


def test_failed_files_have_no_content(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "c")
    add_recordings(catalog, [Recorded("bad", np.empty((0, 128), np.float32), status="failed")])
    files = read_files([catalog])
    assert len(Contents(files, grouped=False)) == 0
    assert unpaired_files(files)["class"].to_pylist() == ["failed"]
    assert isinstance(files, pa.Table)


def test_an_empty_catalog_has_no_pairs(tmp_path: Path) -> None:
    files = read_files([empty_catalog(tmp_path / "c")])
    assert files.num_rows == 0
    assert list(identical_pairs(files, grouped=False)) == []
    with pytest.raises(CatalogError, match="no file is of the group 'x'"):
        read_files([empty_catalog(tmp_path / "d")], ("x", "y"))
