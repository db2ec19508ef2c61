from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from index_helpers import DIM, Recorded, Sound, add_recordings, empty_catalog, noisy

from encoders.errors import CatalogError
from encoders.features import SILENCE_DB
from index import build, policy
from index.build import build_index
from index.catalog import Catalog
from index.generation import read_info, write_info
from index.match import find_alignments
from index.search import FingerprintIndex


def publish(catalog: Catalog) -> FingerprintIndex:
    with catalog.writer_lock():
        build_index(catalog)
    return FingerprintIndex.open(catalog)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Three recordings in two parts, b and a and c."""
    catalog = empty_catalog(tmp_path / "catalog")
    add_recordings(catalog, [Recorded(n, Sound(ord(n), 10).reference()) for n in "ba"])
    add_recordings(catalog, [Recorded("c", Sound(ord("c"), 5).reference())])
    return catalog


@pytest.mark.parametrize("pq_limit", [100_000, 3_000], ids=["8 bits", "4 bits, reranked"])
def test_a_large_catalog_is_searched_as_well_as_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pq_limit: int
) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", 3_000)
    monkeypatch.setattr(build, "_CHUNK", 1_000)
    monkeypatch.setattr(policy, "PQ_LIMIT", pq_limit)
    catalog = empty_catalog(tmp_path / "catalog")
    sounds = [Recorded(f"{i:02d}", Sound(i, 251).reference()) for i in range(12)]
    add_recordings(catalog, sounds)
    index = publish(catalog)
    assert index.info.n_rows == 12 * 501
    assert index.info.factory.startswith("IVF")
    everything = np.concatenate([sound.fingerprints for sound in sounds])
    for similarity, floor in ((0.75, 0.88), (0.9, 0.97)):
        rng = np.random.default_rng(1)
        queries = noisy(everything[rng.integers(len(everything), size=500)], similarity, rng)
        exact = np.argmax(queries @ everything.T, axis=1)
        scores, rows = index.search(queries, 5)
        found = rows[:, 0] == exact
        assert found.mean() >= floor
        # Compared again in full, whatever the codes.
        true_scores = np.einsum("nd,nd->n", queries, everything[exact])
        assert np.abs(scores[:, 0] - true_scores)[found].max() < 0.001
        assert np.all(np.diff(scores, axis=1) <= 0)
    query = noisy(Sound(7, 251).fingerprints(100.3 + np.arange(33) / 8), 0.75, rng)
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == "07"
    assert best.lag / 8 == pytest.approx(100.3, abs=0.1)


def test_a_small_catalog_is_searched_exactly(catalog: Catalog) -> None:
    index = publish(catalog)
    everything = np.asarray(index.vectors, np.float32)
    queries = noisy(everything, 0.6, np.random.default_rng(0))
    scores, rows = index.search(queries, 3)
    products = queries @ everything.T
    assert np.array_equal(rows, np.argsort(-products, axis=1)[:, :3])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :3], atol=1e-6)


def test_every_row_belongs_to_its_recording(catalog: Catalog) -> None:
    index = publish(catalog)
    # Whatever the order of the recordings, their windows stand in one stretch, in time order.
    assert sorted(index.uris()) == ["a", "b", "c"]
    for number, uri in enumerate(index.uris()):
        expected = Sound(ord(uri), 5 if uri == "c" else 10).reference()
        stored = index.fingerprints(number)
        assert stored.shape == expected.shape
        np.testing.assert_allclose(stored, expected, atol=1e-3)
        assert index.uri(number) == uri
        assert index.recording_id(number) == f"id of {uri}"
        assert index.seconds(number) == (5 if uri == "c" else 10)
        first, n = index.first_rows[number], index.n_rows[number]
        assert n == len(expected)
        assert set(index.recording_of(np.arange(first, first + n))) == {number}
    assert index.info.n_rows == sum(index.n_rows)
    assert index.info.n_recordings == 3


def test_more_neighbours_than_rows_are_not_made_up(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    add_recordings(catalog, [Recorded("only", Sound(0, 2).reference())])
    scores, rows = publish(catalog).search(Sound(0, 2).reference(), 20)
    assert scores.shape == rows.shape == (3, 3)
    assert [sorted(line) for line in rows.tolist()] == [[0, 1, 2]] * 3


def test_the_same_bytes_under_two_names_are_indexed_once(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    sound = Sound(0, 10).reference()
    add_recordings(catalog, [Recorded("z", sound, "same"), Recorded("a", sound, "same")])
    add_recordings(catalog, [Recorded("b", sound, "same"), Recorded("other", sound)])
    index = publish(catalog)
    assert sorted(index.uris()) == ["a", "other"]
    assert index.info.n_rows == len(index.vectors) == 2 * len(sound)


def test_a_recording_that_changed_is_indexed_as_it_is_now(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    old, new = Sound(0, 10).reference(), Sound(1, 6).reference()
    add_recordings(catalog, [Recorded("a", old, "old"), Recorded("b", Sound(2, 10).reference())])
    add_recordings(catalog, [Recorded("a", new, "new")])
    add_recordings(catalog, [Recorded("bad", Sound(3, 10).reference(), status="failed")])
    index = publish(catalog)
    assert sorted(index.uris()) == ["a", "b"]
    number = index.uris().index("a")
    assert index.recording_id(number) == "new"
    np.testing.assert_allclose(index.fingerprints(number), new, atol=1e-3)
    scores, _ = index.search(old, 1)
    assert scores.max() < 0.9


def test_silent_windows_are_never_found(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    sound = Sound(0, 20).reference()
    peak = np.where(np.arange(len(sound)) < 20, SILENCE_DB - 1, SILENCE_DB + 1)
    silence = Recorded("silent", sound, peak_db=np.full(len(sound), -100.0))
    add_recordings(catalog, [silence, Recorded("half", sound, peak_db=peak)])
    index = publish(catalog)
    half = index.uris().index("half")
    assert not index.fingerprints(half)[:20].any()
    np.testing.assert_allclose(index.fingerprints(half)[20:], sound[20:], atol=1e-3)
    scores, rows = index.search(sound, 1)
    assert scores[:19].max() < 0.9
    assert np.array_equal(rows[20:, 0], index.first_rows[half] + np.arange(20, len(sound)))
    assert {a.recording for a in find_alignments(sound, index)} == {half}


def test_an_empty_catalog_has_an_index_that_finds_nothing(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    index = publish(catalog)
    assert index.info.n_rows == index.info.n_recordings == 0
    assert index.uris() == []
    assert find_alignments(Sound(0, 3).reference(), index) == []
    add_recordings(catalog, [Recorded("a", Sound(0, 3).reference())])
    assert publish(catalog).uris() == ["a"]


def test_no_index_says_how_to_build_one(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=f"no index yet.*earmark index {catalog.path}"):
        FingerprintIndex.open(catalog)
    shutil.rmtree(publish(catalog).folder)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


def test_an_index_of_another_encoder_is_refused(catalog: Catalog) -> None:
    folder = publish(catalog).folder
    info = read_info(folder)
    write_info(folder, dataclasses.replace(info, encoder_sha256="cc" * 32))
    with pytest.raises(CatalogError, match=r"another encoder.*earmark index"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("limit", [100_000, 0], ids=["flat", "inverted lists"])
def test_a_reader_goes_on_when_a_new_generation_is_published(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", limit)
    add_recordings(catalog, [Recorded("d", Sound(9, 600).reference())])
    reader = publish(catalog)
    query = Sound(ord("a"), 10).reference()
    before = reader.search(query, 5)
    # The second removes the folder of the first.
    for number in range(2):
        add_recordings(catalog, [Recorded(f"new {number}", Sound(number, 20).reference())])
        newer = publish(catalog)
    assert not reader.folder.exists()
    for mine, again in zip(before, reader.search(query, 5), strict=True):
        assert np.array_equal(mine, again)
    assert reader.uri(find_alignments(query, reader)[0].recording) == "a"
    assert "new 1" in newer.uris()
    assert "new 1" not in reader.uris()


def test_a_build_that_fails_leaves_the_live_generation(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = publish(catalog).folder
    add_recordings(catalog, [Recorded("d", Sound(7, 30).reference())])
    part = catalog.path / "windows" / catalog.parts()[-1]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CatalogError, match="damaged"), catalog.writer_lock():
        build_index(catalog)
    assert FingerprintIndex.open(catalog).folder == live
    assert sorted(FingerprintIndex.open(catalog).uris()) == ["a", "b", "c"]
    assert [p for p in (catalog.path / "index").iterdir() if p.is_dir()] == [live]


def test_progress_counts_every_window(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", 0)
    seen: dict[str, list[tuple[int, int]]] = {}
    with catalog.writer_lock():
        info = build_index(catalog, lambda step, *count: seen.setdefault(step, []).append(count))
    assert list(seen) == ["Reading windows", "Training on windows", "Indexing windows"]
    for counts in seen.values():
        assert [done for done, _ in counts] == sorted({done for done, _ in counts})
        assert counts[-1] == (info.n_rows, info.n_rows)


def test_the_labels_stay_with_the_recording(catalog: Catalog) -> None:
    folder = publish(catalog).folder
    table = pq.read_table(folder / "rows-1.parquet")
    assert table["n_rows"].to_pylist() == [19, 19, 9]
    assert table["first_row"].to_pylist() == [0, 19, 38]
    assert read_info(folder).dim == DIM
