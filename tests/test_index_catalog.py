from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from ingest_helpers import small_config

from encoders.errors import CatalogError
from encoders.features import FeatureSpec
from index import storage
from index.catalog import Catalog, part_name
from index.config import CatalogConfig, EncoderInfo
from index.storage import write_atomically


class _Killed(Exception):
    pass


Row = tuple[str, str, int]  # uri, recording id, number of windows


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.create(tmp_path / "catalog", small_config())


def add_part(catalog: Catalog, run: int, rows: list[Row], status: str = "ok") -> str:
    """A part whose windows carry (run, position in the part) as their fingerprints."""
    config = catalog.config
    name = part_name(run, config, rows)
    position = 0
    with catalog.part_writer() as writer:
        for _, recording_id, n in rows:
            places = list(range(position, position + n))
            position += n
            values = {
                "recording_id": [recording_id] * n,
                "start_sample": [8000 * i for i in range(n)],
                "peak_db": [0.0] * n,
                "fingerprint": [[run, place] for place in places],
                "signs": [[0] * math.prod(config.sign_shape)] * n,
                "latent": [[0.0, 0.0]] * n,
                "mfcc": [[0.0, 0.0]] * n,
            }
            arrays = [pa.array(values[f.name], f.type) for f in config.windows_schema]
            writer.write_windows(pa.RecordBatch.from_arrays(arrays, schema=config.windows_schema))
        table = pa.Table.from_pylist(
            [
                {
                    "uri": uri,
                    "recording_id": recording_id,
                    "n_bytes": run,
                    "seconds_decoded": n / 2,
                    "n_windows": n,
                    "status": status,
                    "labels": [("title", uri)],
                }
                for uri, recording_id, n in rows
            ],
            schema=config.recordings_schema,
        )
        writer.commit(name, table)
    return name


def windows_of(catalog: Catalog, batch_size: int = 4096) -> list[tuple[str, list[float]]]:
    columns = ["recording_id", "fingerprint"]
    batches = list(catalog.iter_windows(columns, batch_size))
    assert all(batch.num_rows <= batch_size for batch in batches)
    return [(row["recording_id"], row["fingerprint"]) for b in batches for row in b.to_pylist()]


def test_what_is_written_is_read(catalog: Catalog) -> None:
    add_part(catalog, 1, [("b", "id-b", 2), ("a", "id-a", 1)])
    opened = Catalog.open(catalog.path)
    assert opened.config == catalog.config
    recordings = opened.recordings().to_pylist()
    assert [row["uri"] for row in recordings] == ["a", "b"]
    assert recordings[0]["labels"] == [("title", "a")]
    assert windows_of(opened) == [("id-b", [1, 0]), ("id-b", [1, 1]), ("id-a", [1, 2])]


def test_an_empty_catalog_has_no_rows(catalog: Catalog) -> None:
    assert catalog.recordings().num_rows == 0
    assert catalog.indexed_recordings().num_rows == 0
    assert windows_of(catalog) == []
    assert catalog.next_run() == 1


def test_the_row_of_the_latest_run_wins(catalog: Catalog) -> None:
    for run in (1, 2, 10):
        add_part(catalog, run, [("same", f"id-{run}", 1), (f"only-{run}", f"id-only-{run}", 1)])
    assert catalog.next_run() == 11
    current = {row["uri"]: row["recording_id"] for row in catalog.recordings().to_pylist()}
    assert current["same"] == "id-10"
    assert len(current) == 4
    assert windows_of(catalog) == [
        ("id-only-1", [1, 1]),
        ("id-only-2", [2, 1]),
        ("id-10", [10, 0]),
        ("id-only-10", [10, 1]),
    ]


def test_rows_of_many_parts_keep_their_windows(catalog: Catalog) -> None:
    # Parts are read by several threads: order and offsets must hold all the same.
    for run in range(1, 40):
        rows = [(f"{run}-{i}", f"id-{run}-{i}", (run * i) % 5) for i in range(6)]
        add_part(catalog, run, rows)
    found = windows_of(catalog)
    table = catalog.indexed_recordings().to_pylist()
    expected = [row["recording_id"] for row in table for _ in range(row["n_windows"])]
    assert [recording_id for recording_id, _ in found] == expected
    positions: dict[float, list[float]] = {}
    for recording_id, (run, position) in found:
        assert int(run) == int(recording_id.split("-")[1])
        positions.setdefault(run, []).append(position)
    assert all(p == list(range(len(p))) for p in positions.values())


def test_the_same_bytes_are_indexed_once_under_the_first_name(catalog: Catalog) -> None:
    add_part(catalog, 1, [("z", "twin", 2), ("m", "other", 1), ("b", "twin", 2)])
    add_part(catalog, 2, [("c", "twin", 2)])
    table = catalog.indexed_recordings().to_pylist()
    assert [(row["uri"], row["n_windows"]) for row in table] == [("m", 1), ("b", 2)]
    assert windows_of(catalog) == [("other", [1, 2]), ("twin", [1, 3]), ("twin", [1, 4])]
    assert catalog.recordings().num_rows == 4


def test_failed_rows_have_nothing_to_index(catalog: Catalog) -> None:
    add_part(catalog, 1, [("a", "id", 3)], status="failed")
    assert windows_of(catalog) == []


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10_000])
def test_windows_come_in_batches_of_any_size(catalog: Catalog, batch_size: int) -> None:
    add_part(catalog, 1, [("a", "a", 5), ("b", "b", 9_000), ("c", "c", 2), ("d", "d", 1)])
    add_part(catalog, 2, [("c", "c2", 3)])
    if batch_size == 1:
        first = next(catalog.iter_windows(["recording_id"], 1))
        assert first.num_rows == 1
        return
    found = windows_of(catalog, batch_size)
    places = [int(place) for _, (run, place) in found if run == 1]
    assert places == [*range(9_005), 9_007]
    assert [recording_id for recording_id, _ in found[-3:]] == ["c2"] * 3


def test_windows_without_their_recordings_do_not_exist(catalog: Catalog) -> None:
    name = add_part(catalog, 1, [("a", "a", 1)])
    orphan = add_part(catalog, 2, [("b", "b", 1)])
    (catalog.path / "recordings" / orphan).unlink()
    temporary = catalog.path / "windows" / ".part.0123.tmp"
    temporary.write_bytes(b"half")
    building = catalog.path / "index" / ".000001-x.0123.tmp"
    building.mkdir()
    (building / "file").write_bytes(b"half")
    assert [recording_id for recording_id, _ in windows_of(catalog)] == ["a"]
    catalog.clean()
    assert [p.name for p in (catalog.path / "windows").iterdir()] == [name]
    assert not building.exists()


def test_a_missing_or_damaged_part_is_an_error(catalog: Catalog) -> None:
    name = add_part(catalog, 1, [("a", "a", 1)])
    windows = catalog.path / "windows" / name
    whole = windows.read_bytes()
    windows.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CatalogError, match="damaged"):
        windows_of(catalog)
    windows.unlink()
    with pytest.raises(CatalogError, match="missing"):
        windows_of(catalog)
    (catalog.path / "recordings" / name).write_bytes(b"PAR1 not")
    with pytest.raises(CatalogError, match="damaged"):
        catalog.recordings()


def test_a_part_of_another_catalog_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    other = EncoderInfo("f", "cc" * 32, "int8", 2)
    stranger = Catalog.create(tmp_path / "other", small_config(fingerprint=other))
    name = add_part(stranger, 1, [("a", "a", 1)])
    for folder in ("windows", "recordings"):
        (stranger.path / folder / name).rename(catalog.path / folder / name)
    with pytest.raises(CatalogError, match="other settings"):
        windows_of(catalog)


def changed(config: CatalogConfig, **encoder: str) -> CatalogConfig:
    return dataclasses.replace(
        config, fingerprint=dataclasses.replace(config.fingerprint, **encoder)
    )


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (changed(small_config(), sha256="dd" * 32), "fingerprint encoder: f (aaaaaaaaaaaa), not f"),
        (changed(small_config(), precision="float32"), "precision: int8, not float32"),
        (small_config(spec=FeatureSpec(n_mfcc=1, n_mels=64)), "n_mels: 128, not 64"),
        (small_config(keep_mfcc="full"), "MFCCs kept: summary, not full"),
    ],
)
def test_other_settings_are_refused(catalog: Catalog, expected: CatalogConfig, words: str) -> None:
    with pytest.raises(CatalogError) as error:
        Catalog.open(catalog.path, expected)
    assert words in str(error.value)
    assert "ingest into a new folder" in str(error.value)


def test_the_name_of_a_bundle_does_not_matter(catalog: Catalog) -> None:
    Catalog.open(catalog.path, changed(small_config(), name="renamed"))


def test_another_format_version_is_refused(catalog: Catalog) -> None:
    path = catalog.path / "catalog.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(CatalogError, match=r"format 99.*ingest again into a new folder"):
        Catalog.open(catalog.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', "null"])
def test_a_damaged_catalog_json_is_refused(catalog: Catalog, text: str) -> None:
    (catalog.path / "catalog.json").write_text(text)
    with pytest.raises(CatalogError):
        Catalog.open(catalog.path)


def test_no_catalog_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="earmark ingest"):
        Catalog.open(tmp_path / "nothing")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CatalogError, match=r"thesis\.txt"):
        Catalog.create(tmp_path, small_config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_creation_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".catalog.json.0123.tmp").write_text("{")
    (tmp_path / "recordings").mkdir()
    Catalog.create(tmp_path, small_config())
    assert Catalog.open(tmp_path).config == small_config()


def test_a_second_writer_is_refused(catalog: Catalog) -> None:
    program = (
        "import sys; from index.catalog import Catalog\n"
        "with Catalog.open(sys.argv[1]).writer_lock(): print('in')"
    )
    command = [sys.executable, "-c", program, str(catalog.path)]

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    with catalog.writer_lock():
        refused = other()
    assert "CatalogError: another process is writing" in refused.stderr
    assert other().stdout == "in\n"


def test_a_generation_is_published_whole(catalog: Catalog) -> None:
    add_part(catalog, 1, [("a", "a", 1)])
    assert catalog.current_generation() is None
    with catalog.new_generation() as folder:
        (folder / "x.faiss").write_bytes(b"1")
        assert catalog.current_generation() is None
    first = catalog.current_generation()
    assert first is not None
    assert (first / "x.faiss").read_bytes() == b"1"
    assert catalog.index_is_current()
    add_part(catalog, 2, [("b", "b", 1)])
    assert not catalog.index_is_current()
    with contextlib.suppress(_Killed), catalog.new_generation() as folder:
        (folder / "x.faiss").write_bytes(b"2")
        raise _Killed
    assert catalog.current_generation() == first
    assert [p.name for p in (catalog.path / "index").iterdir() if p.is_dir()] == [first.name]


def test_the_generation_before_stays_for_its_readers(catalog: Catalog) -> None:
    published = []
    for _ in range(3):
        with catalog.new_generation() as folder:
            (folder / "x").write_bytes(b"")
        published.append(catalog.current_generation())
    assert published[-1] != published[-2]
    assert [p.exists() for p in published] == [False, True, True]


def test_write_atomically_leaves_the_old_file_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with contextlib.suppress(_Killed), write_atomically(path) as file:
        file.write(b"new")
        raise _Killed
    assert path.read_bytes() == b"old"
    with write_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    # The sync of the windows, then that of the recordings.
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    monkeypatch.setattr(storage, "sync_folder", lambda folder: None)
    with pytest.raises(CatalogError, match="disk full: free space"):
        add_part(catalog, 1, [("a", "a", 1)])
    assert catalog.parts() == []
    assert list(catalog.path.rglob("*.tmp")) == []


def test_every_file_says_what_made_it(catalog: Catalog) -> None:
    name = add_part(catalog, 1, [("a", "a", 1)])
    for folder in ("windows", "recordings"):
        metadata = pq.read_schema(catalog.path / folder / name).metadata
        assert json.loads(metadata[b"earmark"]) == catalog.config.to_dict()
