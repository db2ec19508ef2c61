"""An index remembers what the catalog said of its inputs, and opens only parts that are new."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import Recorded, Sound, add_recordings, empty_catalog

from index import inputs
from index.catalog import Catalog
from index.generation import read_info, read_known_inputs
from index.removal import compact_parts, find_recordings, remove_recordings
from index.search import FingerprintIndex
from index.update import update_index
from index.verify import problems


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Four parts; a stands in two of them, b is there under two names."""
    catalog = empty_catalog(tmp_path / "catalog")
    for names in ("ab", "cd", "aef", "g"):
        add(catalog, names)
    twin = Recorded("twin of b", Sound(ord("b"), 20).reference(), "id of b")
    add_recordings(catalog, [twin])
    return catalog


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that have been opened."""
    names: list[str] = []
    read_parts = inputs.read_parts

    def counted(folder: Path, parts: list[str], columns: list[str]) -> object:
        names.extend(parts)
        return read_parts(folder, parts, columns)

    monkeypatch.setattr(inputs, "read_parts", counted)
    return names


def add(catalog: Catalog, names: str) -> None:
    add_recordings(catalog, [Recorded(n, Sound(ord(n), 20).reference()) for n in names])


def update(catalog: Catalog) -> None:
    with catalog.writer_lock():
        update_index(catalog)


def indexed(catalog: Catalog) -> list[str]:
    return sorted(FingerprintIndex.open(catalog).uris())


def test_only_new_parts_are_opened(catalog: Catalog, opened: list[str]) -> None:
    update(catalog)
    assert opened == catalog.parts()
    opened.clear()
    add(catalog, "hi")
    add(catalog, "c")
    remove_recordings(catalog, find_recordings(catalog, ["d"]))
    opened.clear()
    update(catalog)
    assert opened == catalog.parts()[-3:]
    assert indexed(catalog) == sorted("abcefghi")
    index = FingerprintIndex.open(catalog)
    assert index.info.n_at_build == 7 * 39
    assert set(index.uris()) == set(catalog.indexed_recordings()["uri"].to_pylist())
    assert list(problems(catalog)) == []


def test_what_is_known_and_what_is_read_make_the_same_table(catalog: Catalog) -> None:
    whole = catalog.inputs().table
    part = whole["part"].to_numpy()
    for known in (whole[:0], whole[:5], whole[5:], whole[3:6], whole):
        # Of a part all rows are known, or none.
        missing = np.isin(part, np.setdiff1d(part, known["part"].to_numpy()))
        complete = whole.filter(~missing)
        again = catalog.inputs(complete)
        assert again.table.equals(whole)
        assert again.all_known_stay
        assert again.read.num_rows == missing.sum()


def test_a_part_that_has_changed_is_read_again(catalog: Catalog, opened: list[str]) -> None:
    update(catalog)
    opened.clear()
    path = catalog.path / "recordings" / catalog.parts()[1]
    os.utime(path, ns=(1, 1))
    add(catalog, "h")
    update(catalog)
    assert opened == [path.name, catalog.parts()[-1]]
    opened.clear()
    add(catalog, "i")
    update(catalog)
    assert opened == catalog.parts()[-1:]


def test_parts_that_are_gone_are_forgotten(catalog: Catalog) -> None:
    update(catalog)
    before = catalog.parts()
    remove_recordings(catalog, find_recordings(catalog, ["g", "e"]))
    with catalog.writer_lock():
        compact_parts(catalog)
        update_index(catalog)
    folder = catalog.current_generation()
    assert folder is not None
    known = read_known_inputs(folder, read_info(folder))["part"].unique().to_pylist()
    assert sorted(known) == catalog.parts()
    assert set(before) - set(known)
    assert indexed(catalog) == sorted("abcdf")


def test_an_index_that_remembers_nothing_learns_it(
    catalog: Catalog, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As written before there was such a file.
    with monkeypatch.context() as patch:
        patch.setattr("index.build.write_table", lambda table, path: _write_rows(table, path))
        update(catalog)
    folder = catalog.current_generation()
    assert folder is not None
    assert read_info(folder).input_tables == ()
    for names, n_opened in (("h", len(catalog.parts()) + 1), ("i", 1)):
        add(catalog, names)
        opened.clear()
        update(catalog)
        assert len(opened) == n_opened
    assert indexed(catalog) == sorted("abcdefghi")


def _write_rows(table: pa.Table, path: Path) -> None:
    from index.generation import write_table

    if not path.name.startswith("inputs"):
        write_table(table, path)
