from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from events_helpers import DIM, Sounding, catalog_of, sounds_of

from encoders.errors import CatalogError
from encoders.features import FeatureSpec
from index import column_index
from index.catalog import Catalog
from index.column_index import ColumnIndex
from index.scaling import MFCC_SHARE, Scaling

SPEC = FeatureSpec()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    rng = np.random.default_rng(0)
    return catalog_of(
        tmp_path / "catalog",
        [
            Sounding("a.wav", sounds_of([0, 0, 1, None], rng)),
            Sounding("silent.wav", sounds_of([0, 0], rng), peak_db=-90.0),
            Sounding("b.wav", sounds_of([1, None, 2], rng)),
        ],
    )


def test_rows_are_those_of_the_catalog(catalog: Catalog) -> None:
    index = ColumnIndex.open(catalog, "fingerprint")
    assert index.recordings["uri"].to_pylist() == catalog.indexed_recordings()["uri"].to_pylist()
    assert index.info.n_rows == 9
    batches = list(catalog.iter_windows(["fingerprint", "peak_db"]))
    stored = np.concatenate([b["fingerprint"].flatten().to_numpy() for b in batches])
    stored = stored.reshape(-1, DIM)
    peaks = np.concatenate([b["peak_db"].to_numpy() for b in batches])
    np.testing.assert_allclose(index.vectors[peaks > -70], stored[peaks > -70], atol=1e-3)
    assert not index.vectors[peaks < -70].any()
    assert index.recording_of(np.array([0, 3, 4, 8])).tolist() == [0, 0, 1, 2]


def test_it_is_built_once_and_again_when_the_catalog_changes(catalog: Catalog) -> None:
    first = ColumnIndex.open(catalog, "fingerprint")
    made = (first.folder / "index.json").stat().st_mtime_ns
    assert ColumnIndex.open(catalog, "fingerprint").folder == first.folder
    assert (first.folder / "index.json").stat().st_mtime_ns == made
    catalog_of(catalog.path, [Sounding("c.wav", sounds_of([3], np.random.default_rng(1)))])
    second = ColumnIndex.open(Catalog.open(catalog.path), "fingerprint")
    assert second.info.n_rows == first.info.n_rows + 1
    # Nothing old and nothing half-made stays.
    assert [p.name for p in second.folder.parent.iterdir()] == [second.folder.name]
    assert len(first.vectors) == first.info.n_rows


@pytest.mark.parametrize("flat_limit", [20_000, 100])
def test_inverted_lists_find_what_comparing_everything_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat_limit: int
) -> None:
    monkeypatch.setattr("index.column_index.FLAT_LIMIT", flat_limit)
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 40, 3000).tolist()
    recordings = [
        Sounding(f"{i:02d}.wav", sounds_of(kinds[i * 100 : (i + 1) * 100], rng)) for i in range(30)
    ]
    index = ColumnIndex.open(catalog_of(tmp_path / "catalog", recordings), "fingerprint")
    assert (index.info.factory == "Flat") == (flat_limit == 20_000)
    queries = sounds_of([5, 17], rng)
    exact = np.sort(queries @ index.vectors.astype(np.float32).T, axis=1)[:, ::-1][:, :10]
    scores, rows = index.search(queries, 10)
    # Of many that are about as near, it may be others that are found.
    assert (scores > exact - (0.01 if index.info.factory == "Flat" else 0.1)).all()
    only = index.rows_of(np.arange(30) == 7)
    _, rows = index.search(queries, 10, only)
    assert set(index.recording_of(rows[rows >= 0]).tolist()) == {7}


def test_a_folder_that_is_damaged_is_told(catalog: Catalog) -> None:
    folder = ColumnIndex.open(catalog, "fingerprint").folder
    (folder / "index.json").write_text("{}")
    with pytest.raises(CatalogError, match="remove that folder"):
        ColumnIndex.open(catalog, "fingerprint")


def test_an_index_of_another_encoder_is_refused(catalog: Catalog) -> None:
    folder = ColumnIndex.open(catalog, "fingerprint").folder
    content = json.loads((folder / "index.json").read_text())
    content["encoder"]["sha256"] = "bb" * 32
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(CatalogError, match="another encoder"):
        ColumnIndex.open(catalog, "fingerprint")


def test_a_build_that_fails_leaves_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(column_index, "_fill", broken)
    with pytest.raises(RuntimeError):
        ColumnIndex.open(catalog, "fingerprint")
    assert not list((catalog.path / "index-fingerprint").iterdir())


def test_an_unknown_column_is_told(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="has no column 'event'"):
        ColumnIndex.open(catalog, "event")


def test_scaling_gives_unit_vectors_and_keeps_silence() -> None:
    scaling = Scaling(np.array([1.0, 2.0], np.float32), np.array([2.0, 4.0], np.float32), 2)
    vectors = scaling(np.array([[3.0, 2.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(vectors, [[1.0, 0.0], [0.0, 0.0]])
    assert Scaling.from_dict(scaling.to_dict())(np.ones((1, 2), np.float32)).shape == (1, 2)
    # As indexes and models of version 0.2 have it.
    old = {key: value for key, value in scaling.to_dict().items() if key != "dim"}
    assert not Scaling.from_dict(old).takes_mfcc


def test_mfccs_stand_beside_the_embedding_half_as_long() -> None:
    scaling = Scaling.beside_mfcc(4, SPEC)
    assert scaling is not None
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, scaling.width)).astype(np.float32)
    rows[2, :4] = 0.0
    vectors = scaling(rows)
    np.testing.assert_allclose(np.linalg.norm(vectors[:2], axis=1), 1.0, atol=1e-6)
    lengths = np.linalg.norm(vectors[:2, :4], axis=1), np.linalg.norm(vectors[:2, 4:], axis=1)
    np.testing.assert_allclose(lengths[1], MFCC_SHARE * lengths[0], rtol=1e-5)
    assert not vectors[2].any()
    other = dataclasses.replace(SPEC, n_mfcc=13)
    assert Scaling.beside_mfcc(4, other) is None
    measured = Scaling.measured([rng.normal(3.0, 2.0, (500, 6))], 4, embeddings_too=False)
    np.testing.assert_allclose(measured.mean, [0, 0, 0, 0, 3, 3], atol=0.3)
    np.testing.assert_allclose(measured.deviation, [1, 1, 1, 1, 2, 2], atol=0.2)
