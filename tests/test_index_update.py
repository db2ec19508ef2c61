"""An index that has followed its catalog is as good as one that was built."""

from __future__ import annotations

import itertools
from pathlib import Path

import faiss
import numpy as np
import pytest
from index_helpers import Recorded, Sound, add_recordings, empty_catalog, noisy

from encoders.errors import CatalogError, EarmarkError
from index import build, policy, update
from index.build import build_index
from index.catalog import Catalog
from index.generation import read_info
from index.lists import load_lists, map_lists, write_lists
from index.search import FingerprintIndex
from index.update import compact_index, update_index
from index.verify import problems

KINDS = {
    "flat": (10**6, 10**6),
    "8 bits": (0, 10**6),
    "4 bits": (0, 0),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every kind of index, each in turn, for catalogs of a few thousand windows."""
    flat_limit, pq_limit = KINDS[request.param]
    monkeypatch.setattr(policy, "FLAT_LIMIT", flat_limit)
    monkeypatch.setattr(policy, "PQ_LIMIT", pq_limit)
    return str(request.param)


def sound(name: str) -> np.ndarray:
    return Sound(sum(name.encode()), 120).reference()


def catalog_of(path: Path, names: str) -> Catalog:
    catalog = empty_catalog(path)
    add(catalog, names)
    return catalog


def add(catalog: Catalog, names: str) -> None:
    add_recordings(catalog, [Recorded(name, sound(name)) for name in names])


def brought_up_to_date(catalog: Catalog) -> FingerprintIndex:
    with catalog.writer_lock():
        update_index(catalog)
    return FingerprintIndex.open(catalog)


def answers(index: FingerprintIndex, names: str) -> set[tuple[str, str, int]]:
    """(asked for, found, window) of noisy stretches of each name."""
    found = set()
    for name in names:
        queries = noisy(sound(name)[::20], 0.98, np.random.default_rng(1))
        scores, rows = index.search(queries, 1)
        for score, row in zip(scores[:, 0], rows[:, 0], strict=True):
            if score > 0.7:
                recording = int(index.recording_of(row))
                window = int(row - index.first_rows[recording])
                found.add((name, index.uri(recording), window))
    return found


def test_adding_and_removing_equals_building(tmp_path: Path, kind: str) -> None:
    grown = catalog_of(tmp_path / "grown", "abcdefgh")
    brought_up_to_date(grown)
    for names in ("i", "jk", "l"):
        add(grown, names)
        index = brought_up_to_date(grown)
    gone = "bij"
    add_recordings(grown, [Recorded(n, np.empty((0, 128)), status="failed") for n in gone])
    before = index.info
    index = brought_up_to_date(grown)
    assert index.info.n_at_build == before.n_at_build, "not built again"
    assert index.info.n_vectors == before.n_vectors
    whole = catalog_of(tmp_path / "whole", "acdefghkl")
    expected = brought_up_to_date(whole)
    assert sorted(index.uris()) == sorted(expected.uris())
    assert index.info.n_rows == expected.info.n_rows
    everything = "abcdefghijkl"
    known = {(n, n, w) for n in "acdefghkl" for w in range(0, 239, 20)}
    assert len(answers(index, everything) & known) >= 0.97 * len(known)
    assert len(answers(expected, everything) & known) >= 0.97 * len(known)
    for number, uri in enumerate(index.uris()):
        np.testing.assert_allclose(index.fingerprints(number), sound(uri), atol=1e-3)
    _, rows = index.search(sound("b"), 20)
    assert set(np.unique(index.recording_of(rows[rows >= 0]))) <= set(range(9))
    assert np.isin(rows[rows >= 0], index.first_rows[:, None] + np.arange(239)).all()
    assert not np.isin(rows, range(239, 2 * 239)).any(), "b stood there"
    assert list(problems(grown)) == []


def test_compacting_changes_no_answer(tmp_path: Path, kind: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcdefgh")
    brought_up_to_date(catalog)
    add(catalog, "ij")
    add_recordings(catalog, [Recorded("c", np.empty((0, 128)), status="failed")])
    before = brought_up_to_date(catalog)
    with catalog.writer_lock():
        info = compact_index(catalog)
    after = FingerprintIndex.open(catalog)
    assert info.n_vectors == info.n_rows == before.info.n_rows < before.info.n_vectors
    assert len(info.segments) <= 2
    assert info.row_tables == ("rows-1.parquet",)
    assert answers(after, "abcdefghij") == answers(before, "abcdefghij")
    queries = noisy(sound("d"), 0.7, np.random.default_rng(0))
    for old, new in zip(before.search(queries, 5), after.search(queries, 5), strict=True):
        if old.dtype == np.float32:
            # Of candidates that look alike in four bits others may be compared in full.
            assert np.mean(old == new) > 0.99
    assert catalog.index_is_current()
    assert list(problems(catalog)) == []


def test_little_is_written_for_little_that_is_new(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcdefghijklmnop")
    folder = brought_up_to_date(catalog).folder
    add(catalog, "q")
    added: list[int] = []
    add_rows = build.add_rows
    monkeypatch.setattr(
        update, "add_rows", lambda i, v, rows, p: (added.append(len(rows)), add_rows(i, v, rows, p))
    )
    monkeypatch.setattr(build, "faiss", None)
    newer = brought_up_to_date(catalog)
    assert added == ([] if kind == "flat" else [239])
    shared = {"rows-1.parquet", "inputs-1.parquet", "vectors.f16", "signs.u32"} | (
        set() if kind == "flat" else {"trained.faiss", "lists-1.bin"}
    )
    for name in shared:
        assert (folder / name).stat().st_ino == (newer.folder / name).stat().st_ino, name
    others = {p.name for p in newer.folder.iterdir()} - shared
    written = sum((newer.folder / name).stat().st_size for name in others - {"lists-2.bin"})
    assert written < 20_000
    assert newer.uri(int(newer.recording_of(newer.search(sound("q")[5:6], 1)[1])[0, 0])) == "q"


def test_what_joins_after_a_removal_is_found(tmp_path: Path, kind: str) -> None:
    # FAISS itself corrupts fast-scan lists when it adds where it has removed.
    catalog = catalog_of(tmp_path / "catalog", "abcdefgh")
    brought_up_to_date(catalog)
    for gone, new in (("a", "ijk"), ("i", "lm"), ("b", "n"), ("l", "op")):
        add_recordings(catalog, [Recorded(gone, np.empty((0, 128)), status="failed")])
        add(catalog, new)
        index = brought_up_to_date(catalog)
        for number, uri in enumerate(index.uris()):
            scores, rows = index.search(sound(uri)[::10], 1)
            assert (scores > 0.999).mean() > 0.95, uri
            right = index.recording_of(rows[:, 0]) == number
            assert right.mean() > 0.95, uri
    assert index.info.n_at_build == 8 * 239


def test_segments_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    for n_added in (100_000, *[1_000] * 40, 1, 1, 1, 30_000):
        n_apart = update._n_apart(sizes, n_added)
        sizes = [*sizes[:n_apart], sum(sizes[n_apart:]) + n_added]
        assert len(sizes) <= update.MAX_SEGMENTS
        assert all(a > 2 * b for a, b in itertools.pairwise(sizes))
    assert sum(sizes) == 100_000 + 40_000 + 3 + 30_000
    assert update._n_apart([9, 4], 0) == 2


def test_many_small_additions_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", 0)
    monkeypatch.setattr(policy, "PQ_LIMIT", 0)
    monkeypatch.setattr(update, "MAX_TABLES", 4)
    catalog = catalog_of(tmp_path / "catalog", "abcdefghijklmnop")
    brought_up_to_date(catalog)
    for name in "qrstuvw":
        add(catalog, name)
        index = brought_up_to_date(catalog)
        assert len(index.info.segments) <= 3
        assert len(index.info.row_tables) <= 4
        assert len(index.info.input_tables) <= 4
        assert len(index.info.files["vectors.f16"]) == 1
        assert answers(index, name) >= {(name, name, w) for w in range(0, 239, 40)}
    assert index.info.n_at_build == 16 * 239
    assert list(problems(catalog)) == []


def test_a_catalog_that_outgrows_its_kind_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", 3 * 239)
    catalog = catalog_of(tmp_path / "catalog", "ab")
    assert brought_up_to_date(catalog).info.factory == "Flat"
    add(catalog, "cdefgh")
    info = brought_up_to_date(catalog).info
    assert info.factory.startswith("IVF")
    assert info.n_at_build == 8 * 239


def test_an_index_mostly_of_removed_rows_is_compacted(tmp_path: Path, kind: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcdefgh")
    brought_up_to_date(catalog)
    add_recordings(catalog, [Recorded(n, np.empty((0, 128)), status="failed") for n in "abc"])
    index = brought_up_to_date(catalog)
    assert index.info.n_vectors == index.info.n_rows == 5 * 239
    assert answers(index, "abcdefgh") >= {(n, n, w) for n in "defgh" for w in range(0, 239, 40)}


def test_a_new_name_is_taken_over(tmp_path: Path, kind: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abc")
    brought_up_to_date(catalog)
    add_recordings(catalog, [Recorded("A", sound("a"), "id of a")])
    index = brought_up_to_date(catalog)
    assert sorted(index.uris()) == ["A", "b", "c"]
    assert index.info.n_vectors == 3 * 239


def test_a_kind_chosen_by_hand_is_kept(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcd")
    with catalog.writer_lock():
        assert build_index(catalog, factory="IVF8,PQ32x4fs").n_rows == 4 * 239
    add(catalog, "efghijklmnop")
    index = brought_up_to_date(catalog)
    assert (index.info.factory, index.info.n_at_build) == ("IVF8,PQ32x4fs", 4 * 239)
    assert answers(index, "ap") >= {(n, n, w) for n in "ap" for w in range(0, 239, 40)}
    (index.folder / "vectors.f16").unlink()
    assert brought_up_to_date(catalog).info.factory == "IVF8,PQ32x4fs"
    with catalog.writer_lock():
        build_index(catalog)
    assert brought_up_to_date(catalog).info.factory == "Flat"


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("HNSW32", "grow and shrink"),
        ("IVF16,Nonsense", "FAISS knows no index"),
        ("IVF100000,SQ8", "needs at least 100,000 windows"),
        ("", "grow and shrink"),
    ],
)
def test_kinds_that_do_not_do_are_refused(tmp_path: Path, factory: str, words: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "ab")
    live = brought_up_to_date(catalog).folder
    with pytest.raises(EarmarkError, match=words), catalog.writer_lock():
        build_index(catalog, factory=factory)
    assert catalog.current_generation() == live


def test_an_index_that_finds_too_little_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcdefgh")
    live = brought_up_to_date(catalog).folder
    monkeypatch.setattr(
        policy, "from_factory", lambda factory: policy.IndexKind("IVF64,PQ1x4", 1, 1)
    )
    with pytest.raises(CatalogError, match=r"finds \d+% of what"), catalog.writer_lock():
        build_index(catalog, factory="IVF64,PQ1x4")
    assert catalog.current_generation() == live


def test_what_a_killed_writer_appended_is_never_seen(tmp_path: Path, kind: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcd")
    index = brought_up_to_date(catalog)
    with (index.folder / "vectors.f16").open("ab") as file:
        file.write(b"half a vector")
    assert FingerprintIndex.open(catalog).info == index.info
    assert list(problems(catalog)) == []
    add(catalog, "e")
    newer = brought_up_to_date(catalog)
    assert answers(newer, "e") >= {("e", "e", w) for w in range(0, 239, 40)}
    assert list(problems(catalog)) == []
    # The reader of before sees what it saw.
    np.testing.assert_allclose(index.fingerprints(3), sound("d"), atol=1e-3)


def test_silence_is_in_no_list(tmp_path: Path, kind: str) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    silent = Recorded("silent", sound("s"), peak_db=np.full(239, -100.0))
    add_recordings(catalog, [silent, *(Recorded(n, sound(n)) for n in "abcd")])
    index = brought_up_to_date(catalog)
    assert (index.info.n_rows, index.info.n_sounding) == (5 * 239, 4 * 239)
    add_recordings(catalog, [Recorded("quiet", sound("q"), peak_db=np.full(239, -100.0))])
    index = brought_up_to_date(catalog)
    assert (index.info.n_rows, index.info.n_sounding) == (6 * 239, 4 * 239)
    number = index.uris().index("silent")
    _, rows = index.search(sound("s"), 20)
    assert number not in set(index.recording_of(rows[rows >= 0]))


def test_only_silence_can_be_indexed(tmp_path: Path, kind: str) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    add_recordings(catalog, [Recorded("s", sound("s"), peak_db=np.full(239, -100.0))])
    index = brought_up_to_date(catalog)
    assert (index.search(sound("s"), 3)[1] == -1).all()
    add(catalog, "abcd")
    assert answers(brought_up_to_date(catalog), "a") >= {("a", "a", 0)}


def test_files_are_copied_where_there_are_no_hard_links(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("index.generation.os.link", refuse)
    catalog = catalog_of(tmp_path / "catalog", "abcd")
    brought_up_to_date(catalog)
    add(catalog, "e")
    assert answers(brought_up_to_date(catalog), "ae") >= {("a", "a", 0), ("e", "e", 0)}
    assert list(problems(catalog)) == []


def test_mapped_lists_are_the_lists_that_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 32)).astype(np.float32)
    for factory in ("IVF16,SQ8", "IVF16,PQ16x4fs", "IVF16,RaBitQfs", "IVF16_HNSW8,SQ4"):
        index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        faiss.write_index(index, str(tmp_path / "trained"))
        index.add_with_ids(vectors[:2000], np.arange(2000) * 7)
        with (tmp_path / "lists").open("wb") as file:
            write_lists(index, file)
        expected = index.search(vectors[:50], 5)
        for read in (map_lists, load_lists):
            again = read(tmp_path / "trained", tmp_path / "lists")
            assert again.ntotal == 2000
            for a, b in zip(expected, again.search(vectors[:50], 5), strict=True):
                np.testing.assert_array_equal(a, b)
        mapped = map_lists(tmp_path / "trained", tmp_path / "lists")
        lists = faiss.downcast_InvertedLists(mapped.invlists)
        assert isinstance(lists, faiss.OnDiskInvertedLists), "nothing is read before it is needed"


def test_the_info_of_a_generation_survives_its_file(tmp_path: Path, kind: str) -> None:
    catalog = catalog_of(tmp_path / "catalog", "abcd")
    with catalog.writer_lock():
        info = update_index(catalog)
    folder = catalog.current_generation()
    assert folder is not None
    read = read_info(folder)
    assert (read.kind, read.n_rows, read.segments) == (info.kind, info.n_rows, info.segments)
    assert read.bytes_per_window > 0
