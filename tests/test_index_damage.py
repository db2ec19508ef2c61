"""Bytes that are missing, cut off or flipped are named, and the index is healed from Parquet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_helpers import Recorded, Sound, add_recordings, empty_catalog

from encoders.errors import CatalogError
from index import generation, policy
from index.build import build_index
from index.catalog import Catalog
from index.search import FingerprintIndex
from index.update import update_index
from index.verify import problems

FLAT_FILES = ("index.json", "rows-1.parquet", "inputs-1.parquet", "vectors.f16", "signs.u32")
LIST_FILES = (*FLAT_FILES, "trained.faiss", "lists-1.bin")
CASES = [("flat", name) for name in FLAT_FILES] + [("lists", name) for name in LIST_FILES]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two catalogs of the same recordings."""
    folders = {}
    for kind, limit in (("flat", 100_000), ("lists", 0)):
        catalog = empty_catalog(tmp_path_factory.mktemp(kind) / "catalog")
        add_recordings(catalog, [Recorded(n, Sound(ord(n), 60).reference()) for n in "abcde"])
        with pytest.MonkeyPatch.context() as patch, catalog.writer_lock():
            patch.setattr(policy, "FLAT_LIMIT", limit)
            build_index(catalog)
        folders[kind] = catalog.path
    return folders


def copy_of(path: Path, to: Path) -> Catalog:
    shutil.copytree(path, to / "catalog")
    return Catalog.open(to / "catalog")


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "overwritten":
        file.write_bytes(b"text of another program " * 20)
    else:
        # The first pages of a Parquet file are at its beginning, and its end describes them.
        place = 200 if file.parent.name == "recordings" else len(content) // 2
        flipped = bytes([content[place] ^ 4])
        file.write_bytes(content[:place] + flipped + content[place + 1 :])


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "overwritten", "flipped"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_damaged_index_is_named_and_healed(
    built: dict[str, Path], tmp_path: Path, kind: str, name: str, how: str
) -> None:
    catalog = copy_of(built[kind], tmp_path)
    folder = catalog.current_generation()
    assert folder is not None
    assert list(problems(catalog)) == []
    damage(folder / name, how)
    with pytest.raises(CatalogError) as error:
        FingerprintIndex.open(catalog)
    for words in (name, "damaged", f"earmark index {catalog.path} --rebuild"):
        assert words in str(error.value)
    assert list(problems(catalog)) == [str(error.value)]
    with catalog.writer_lock():
        assert update_index(catalog).n_rows > 0
    assert list(problems(catalog)) == []
    query = Sound(ord("c"), 60).reference()[7:8]
    index = FingerprintIndex.open(catalog)
    assert index.uri(int(index.recording_of(index.search(query, 1)[1])[0, 0])) == "c"


@pytest.mark.parametrize("name", ["vectors.f16", "signs.u32", "lists-1.bin"])
def test_large_files_are_hashed_only_to_verify(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    catalog = copy_of(built["lists"], tmp_path)
    monkeypatch.setattr(generation, "_CHECKED_ON_OPEN", 1000)
    folder = catalog.current_generation()
    assert folder is not None
    damage(folder / name, "flipped")
    FingerprintIndex.open(catalog)
    (problem,) = problems(catalog)
    assert f"{name} has changed since it was written" in problem
    damage(folder / name, "truncated")
    with pytest.raises(CatalogError, match=f"{name} holds"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"n_rows": 3}', '{"format_version": 2}'])
def test_an_index_json_of_something_else_is_refused(
    built: dict[str, Path], tmp_path: Path, content: str
) -> None:
    catalog = copy_of(built["flat"], tmp_path)
    folder = catalog.current_generation()
    assert folder is not None
    (folder / "index.json").write_text(content)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


def test_a_number_changed_in_index_json_is_noticed(built: dict[str, Path], tmp_path: Path) -> None:
    catalog = copy_of(built["lists"], tmp_path)
    folder = catalog.current_generation()
    assert folder is not None
    content = json.loads((folder / "index.json").read_text())
    content["kind"]["nprobe"] = 1
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(CatalogError, match=r"index\.json: it has changed"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("name", ["rows-1.parquet", "lists-1.bin", "vectors.f16", "trained.faiss"])
def test_files_of_two_generations_do_not_mix(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(policy, "FLAT_LIMIT", 0)
    catalog = copy_of(built["lists"], tmp_path)
    before = catalog.current_generation()
    add_recordings(catalog, [Recorded("f", Sound(7, 400).reference())])
    with catalog.writer_lock():
        build_index(catalog)
    after = catalog.current_generation()
    assert before is not None and after is not None and before != after  # noqa: PT018
    shutil.copy(before / name, after / name)
    with pytest.raises(CatalogError, match="earmark index"):
        FingerprintIndex.open(catalog)


@pytest.mark.parametrize("folder", ["windows", "recordings"])
@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
def test_a_damaged_part_is_named(
    built: dict[str, Path], tmp_path: Path, folder: str, how: str
) -> None:
    catalog = copy_of(built["flat"], tmp_path)
    add_recordings(catalog, [Recorded("f", Sound(7, 40).reference())])
    live = catalog.current_generation()
    name = catalog.parts()[0]
    if folder == "recordings" and how == "missing":
        # Without its commit a part does not exist.
        return
    damage(catalog.path / folder / name, how)
    found = "\n".join(problems(catalog))
    assert name in found or folder == "recordings"
    assert str(catalog.path / folder) in found
    with pytest.raises(CatalogError, match=folder), catalog.writer_lock():
        build_index(catalog)
    assert catalog.current_generation() == live
    assert np.isfinite(FingerprintIndex.open(catalog).search(Sound(7, 2).reference(), 3)[0]).all()
