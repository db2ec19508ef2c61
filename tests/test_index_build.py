from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from index_helpers import DIM, Recorded, Sound, add_recordings, empty_catalog, noisy

from encoders.errors import CatalogError
from encoders.features import SILENCE_DB
from index import build
from index.build import build_index, index_factory
from index.catalog import Catalog
from index.match import find_alignments
from index.search import FingerprintIndex

FILES = ("index.json", "rows.parquet", "vectors.npy", "fingerprint.faiss")


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


def test_up_to_the_limit_every_vector_is_compared() -> None:
    assert index_factory(0) == ("Flat", 0)
    assert index_factory(build.FLAT_LIMIT) == ("Flat", 0)
    factory, nprobe = index_factory(build.FLAT_LIMIT + 1)
    assert factory.startswith("IVF")
    assert factory.endswith(",SQ8")
    assert nprobe > 0


@pytest.mark.parametrize("n_rows", [100_001, 1_000_000, 10_000_000])
def test_inverted_lists_are_short_and_few_are_probed(n_rows: int) -> None:
    factory, nprobe = index_factory(n_rows)
    n_lists = int(factory[len("IVF") : factory.index(",")])
    assert nprobe / n_lists <= 1 / 16
    # Centroids and rows that a lookup compares.
    assert n_lists + nprobe * n_rows / n_lists < n_rows / 12


def test_a_large_catalog_is_searched_as_well_as_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "FLAT_LIMIT", 3_000)
    monkeypatch.setattr(build, "_CHUNK", 1_000)
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
        # 8 bits per number are enough.
        true_scores = np.einsum("nd,nd->n", queries, everything[exact])
        assert np.abs(scores[:, 0] - true_scores)[found].max() < 0.02
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


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(b"text of another program " * 20)


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "overwritten"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_index_says_how_to_build_it_again(catalog: Catalog, name: str, how: str) -> None:
    folder = publish(catalog).folder
    damage(folder / name, how)
    with pytest.raises(CatalogError) as error:
        FingerprintIndex.open(catalog)
    assert f"earmark index {catalog.path}" in str(error.value)
    assert "damaged" in str(error.value)
    assert publish(catalog).info.n_rows > 0


@pytest.mark.parametrize("how", ["missing", "empty", "truncated"])
def test_damaged_inverted_lists_are_refused(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # Memory-mapped: what is not there must be noticed before it is read.
    monkeypatch.setattr(build, "FLAT_LIMIT", 0)
    add_recordings(catalog, [Recorded("d", Sound(9, 600).reference())])
    folder = publish(catalog).folder
    damage(folder / "fingerprint.faiss", how)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"n_rows": 3}'])
def test_an_index_json_of_something_else_is_refused(catalog: Catalog, content: str) -> None:
    (publish(catalog).folder / "index.json").write_text(content)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("name", ["rows.parquet", "vectors.npy", "fingerprint.faiss"])
def test_files_of_two_generations_do_not_mix(catalog: Catalog, name: str) -> None:
    before = publish(catalog).folder
    add_recordings(catalog, [Recorded("d", Sound(7, 30).reference())])
    after = publish(catalog).folder
    shutil.copy(before / name, after / name)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


def test_no_index_says_how_to_build_one(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=f"no index yet.*earmark index {catalog.path}"):
        FingerprintIndex.open(catalog)
    shutil.rmtree(publish(catalog).folder)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


def test_an_index_of_another_encoder_is_refused(catalog: Catalog) -> None:
    path = publish(catalog).folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encoder_sha256": "cc" * 32}))
    with pytest.raises(CatalogError, match=r"another encoder.*earmark index"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("limit", [100_000, 0], ids=["flat", "inverted lists"])
def test_a_reader_goes_on_when_a_new_generation_is_published(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(build, "FLAT_LIMIT", limit)
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


def test_progress_counts_every_window(catalog: Catalog) -> None:
    seen: list[tuple[int, int]] = []
    with catalog.writer_lock():
        info = build_index(catalog, lambda done, n: seen.append((done, n)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (info.n_rows, info.n_rows)


def test_the_labels_stay_with_the_recording(catalog: Catalog) -> None:
    folder = publish(catalog).folder
    table = pq.read_table(folder / "rows.parquet")
    assert table["n_rows"].to_pylist() == [19, 19, 9]
    assert table["first_row"].to_pylist() == [0, 19, 38]
    assert json.loads((folder / "index.json").read_text())["dim"] == DIM
