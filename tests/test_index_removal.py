"""What is removed is found no more, comes back only when it is asked for, and leaves no windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import Recorded, Sound, add_recordings, empty_catalog
from ingest_helpers import FINGERPRINT, VAE, write_tone

from encoders.errors import CatalogError
from index.catalog import Catalog
from index.removal import compact_parts, find_recordings, remove_recordings
from index.search import FingerprintIndex
from index.update import update_index
from index.verify import problems
from pipelines.cli import main


def sound(name: str) -> np.ndarray:
    return Sound(ord(name), 20).reference()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Recordings a to d in two parts; a also as A."""
    catalog = empty_catalog(tmp_path / "catalog")
    add_recordings(catalog, [Recorded(n, sound(n)) for n in "ab"])
    add_recordings(catalog, [Recorded("A", sound("a"), "id of a")])
    add_recordings(catalog, [Recorded(n, sound(n)) for n in "cd"])
    return catalog


def remove(catalog: Catalog, *names: str) -> None:
    with catalog.writer_lock():
        remove_recordings(catalog, find_recordings(catalog, names))
        update_index(catalog)


def uris(catalog: Catalog) -> list[str]:
    return sorted(FingerprintIndex.open(catalog).uris())


def test_a_name_is_removed_but_not_its_copy(catalog: Catalog) -> None:
    remove(catalog, "A")
    assert uris(catalog) == ["a", "b", "c", "d"]
    remove(catalog, "c")
    assert uris(catalog) == ["a", "b", "d"]
    row = {r["uri"]: r for r in catalog.recordings().to_pylist()}["c"]
    assert (row["status"], row["n_windows"], row["recording_id"]) == ("removed", 0, "id of c")


def test_an_id_stands_for_all_its_names(catalog: Catalog) -> None:
    remove(catalog, "id of a")
    assert uris(catalog) == ["b", "c", "d"]
    with pytest.raises(CatalogError, match=r"not in .*'id of a'"):
        remove(catalog, "id of a")


def test_removed_stays_removed_when_the_index_is_built_again(catalog: Catalog) -> None:
    remove(catalog, "b", "d")
    (FingerprintIndex.open(catalog).folder / "index.json").unlink()
    with catalog.writer_lock():
        update_index(catalog)
    assert uris(catalog) == ["A", "c"]
    assert list(problems(catalog)) == []


def test_compacting_drops_the_windows(catalog: Catalog) -> None:
    remove(catalog, "b", "c", "d")
    before = list(FingerprintIndex.open(catalog).fingerprints(0))
    with catalog.writer_lock():
        # b, c, d; a is still under both names.
        assert compact_parts(catalog) == 3
        assert compact_parts(catalog) == 0
        update_index(catalog)
    columns = catalog.config.windows_schema.names
    stored = [
        pa.parquet.read_table(catalog.path / "windows" / name, columns=columns)
        for name in catalog.parts()
    ]
    ids = [i for table in stored for i in table["recording_id"].to_pylist()]
    assert set(ids) == {"id of a"}
    assert uris(catalog) == ["A"]
    np.testing.assert_array_equal(FingerprintIndex.open(catalog).fingerprints(0), before)
    states = {r["uri"]: r["status"] for r in catalog.recordings().to_pylist()}
    assert states == {"a": "ok", "A": "ok", "b": "removed", "c": "removed", "d": "removed"}
    assert list(problems(catalog)) == []


def test_where_all_must_hold(tmp_path: Path) -> None:
    catalog = empty_catalog(tmp_path / "catalog")
    schema = catalog.config.recordings_schema
    rows = [
        {
            "uri": f"{album}/{kind}", "recording_id": f"{album}/{kind}", "container": kind,
            "seconds_decoded": 0.0, "n_windows": 0, "status": "ok", "labels": [("album", album)],
        }
        for album in ("x", "y") for kind in ("mp3", "ogg")
    ]  # fmt: skip
    with catalog.part_writer() as writer:
        writer.commit("part-000001-0.parquet", pa.Table.from_pylist(rows, schema=schema))

    def found(**where: str) -> list[str]:
        return find_recordings(catalog, where=where)["uri"].to_pylist()

    assert found(album="x") == ["x/mp3", "x/ogg"]
    assert found(album="x", container="ogg") == ["x/ogg"]
    assert found(artist="x") == []
    assert find_recordings(catalog, ["y/ogg"], {"container": "mp3"}).num_rows == 0


def earmark(*args: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(arg) for arg in args])
    return int(exit_.value.code or 0)


def test_remove_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("abc"):
        write_tone(Path(f"in/{name}.wav"), 2.0 + number, 300 + 100 * number)
    settings = ("--catalog", "c", "--encoder", FINGERPRINT, "--vae", VAE)
    assert earmark("ingest", "in", *settings) == 0

    def info() -> dict[str, object]:
        capfd.readouterr()
        assert earmark("info", "c", "--format", "jsonl") == 0
        described: dict[str, object] = json.loads(capfd.readouterr().out)
        return described

    assert earmark("remove", "c", "--recording", "in/a.wav", "--dry-run") == 0
    assert "1 would be removed" in capfd.readouterr().out
    assert info()["recordings"] == 3
    assert earmark("remove", "c", "--recording", "in/a.wav", "--format", "jsonl") == 0
    assert json.loads(capfd.readouterr().out)["uri"] == "in/a.wav"
    after = info()
    assert (after["recordings"], after["removed"]) == (2, 1)
    assert after["index"]["n_recordings"] == 2  # type: ignore[index]
    assert after["index"]["up_to_date"]  # type: ignore[index]
    # Its folder does not bring it back, nor does building again.
    assert earmark("ingest", "in", *settings) == 0
    assert earmark("index", "c", "--rebuild") == 0
    assert info()["recordings"] == 2
    assert earmark("index", "c", "--compact") == 0
    assert earmark("index", "c", "--verify") == 0
    assert "All is well" in capfd.readouterr().out
    assert info()["windows"] == 5 + 7
    # Its name does.
    assert earmark("ingest", "in/a.wav", *settings) == 0
    assert info()["recordings"] == 3
    assert earmark("remove", "c", "--where", "container=wav") == 0
    assert info()["recordings"] == 0
    assert earmark("remove", "c") == 2
    assert earmark("remove", "c", "--where", "container") == 2
    assert earmark("remove", "c", "--recording", "in/z.wav") == 2
    assert "not in c: 'in/z.wav'" in capfd.readouterr().err


def test_index_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = empty_catalog(Path("c"))
    add_recordings(catalog, [Recorded(n, sound(n)) for n in "abcd"])
    assert earmark("index", "c", "--verify") == 1
    assert "has no index" in capfd.readouterr().err
    assert earmark("index", "c") == 0
    assert "Flat index of 156 windows of 4 recordings" in capfd.readouterr().out
    assert earmark("index", "c", "--factory", "IVF4,PQ64x4fs") == 0
    assert earmark("index", "c", "--rebuild") == 0
    assert capfd.readouterr().out.count("IVF4,PQ64x4fs index") == 2, "kept"
    folder = catalog.current_generation()
    assert folder is not None
    content = (folder / "lists-1.bin").read_bytes()
    (folder / "lists-1.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert earmark("index", "c", "--verify") == 1
    assert "lists-1.bin has changed" in capfd.readouterr().err
    assert earmark("index", "c", "--rebuild") == 0
    assert earmark("index", "c", "--verify") == 0
    assert earmark("index", "c", "--factory", "auto") == 0
    assert "Flat index" in capfd.readouterr().out
    assert earmark("index", "c", "--factory", "HNSW32") == 2
    assert earmark("index", "c", "--verify", "--compact") == 2
