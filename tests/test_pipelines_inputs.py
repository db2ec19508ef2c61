from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from ingest_helpers import (
    count_ok,
    rows,
    run,
    write_folder,
    write_tone,
)

from encoders.errors import EarmarkError
from pipelines.inputs import list_inputs, local_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


def manifest(folder: Path, kind: str) -> Path:
    lines = [
        {"uri": "a.wav", "title": "Äpfel, rot", "label": "fruit"},
        {"uri": str(folder / "b.flac"), "title": None, "label": ""},
        {"uri": "sub/c.ogg", "title": "C", "label": "x"},
    ]
    path = folder.parent / "in" / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(lines), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["title", "uri", "label"])
            writer.writeheader()
            writer.writerows(lines)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_manifest_gives_labels(folder: Path, kind: str) -> None:
    listing = list_inputs([str(manifest(folder, kind))])
    assert [(item.uri, dict(item.labels)) for item in listing.inputs] == [
        (str(folder / "a.wav"), {"title": "Äpfel, rot", "label": "fruit"}),
        (str(folder / "b.flac"), {}),
        (str(folder / "sub" / "c.ogg"), {"title": "C", "label": "x"}),
    ]


def test_labels_reach_the_catalog(folder: Path, tmp_path: Path) -> None:
    run([manifest(folder, "csv"), folder], tmp_path / "c")
    row = rows(tmp_path / "c")[str(folder / "a.wav")]
    assert dict(row["labels"]) == {"title": "Äpfel, rot", "label": "fruit"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "file,title\na.wav,A\n", r"row 1 has no 'uri' \(its columns: file, title\)"),
        ("m.csv", "uri,title\na.wav,A\n,B\n", "row 2 has no 'uri'"),
        ("m.jsonl", '{"uri": "a.wav"}\n{"uri": \n', "cannot be read"),
        ("m.jsonl", "[1]\n", "row 1 has no 'uri'"),
        ("m.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_bad_manifest_is_a_clear_error(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EarmarkError, match=words):
        run([tmp_path / name], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_label_that_is_not_unicode_is_repaired(folder: Path, tmp_path: Path) -> None:
    (folder / "m.jsonl").write_text('{"uri": "a.wav", "title": "x\\ud800", "year": 1999}')
    run([folder / "m.jsonl"], tmp_path / "c")
    (row,) = rows(tmp_path / "c").values()
    assert dict(row["labels"]) == {"title": "x?", "year": "1999"}


def test_globs_and_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes.txt").write_text("no audio")
    monkeypatch.chdir(folder.parent)

    def uris(*given: str, **options: Any) -> list[str]:
        return [item.uri for item in list_inputs(given, **options).inputs]

    assert uris("in/*.wav", "in/**/*.ogg") == ["in/a.wav", "in/sub/c.ogg"]
    assert uris("in/") == ["in/a.wav", "in/b.flac", "in/sub/c.ogg"]
    assert uris("./in")[0] == "./in/a.wav"
    assert "in/notes.txt" in uris("in", all_files=True)
    assert list_inputs(["in"]).n_not_audio == 1
    assert uris("in/notes.txt") == ["in/notes.txt"], "a file that is named is tried"
    assert uris(f"file://{folder}/a.wav") == [f"file://{folder}/a.wav"]
    assert uris(f"file://{folder}/sub") == [f"file://{folder}/sub/c.ogg"]
    (folder / "[1].wav").write_bytes(b"x")
    assert uris("in/[1].wav") == ["in/[1].wav"], "a name that exists is no pattern"


def test_links_to_folders_are_followed_once(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "sub" / "up").symlink_to("..")
    outside = folder.parent / "outside"
    write_tone(outside / "o.wav")
    (folder / "way out").symlink_to(outside)
    uris = [item.uri for item in list_inputs([str(folder)]).inputs]
    names = ["a.wav", "b.flac", "sub/c.ogg", "way out/o.wav"]
    assert uris == [str(folder / name) for name in names]


def test_the_catalog_is_not_an_input(folder: Path) -> None:
    inner = folder / "catalog"
    assert count_ok(run([folder], inner)) == 3
    assert run([folder], inner, all_files=True).n_todo == 0


class RemoteFileSystem(LocalFileSystem):
    """Stands for remote storage: local files under the scheme ``fake``."""

    @classmethod
    def scheme(cls) -> str:
        return "fake"

    def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return super().open(path.removeprefix("fake:/"), *args, **kwargs)

    def exists(self, path: str) -> bool:
        return super().exists(path.removeprefix("fake:/"))

    def metadata(self, path: str) -> FileMetadata:
        local = super().metadata(path.removeprefix("fake:/"))
        return FileMetadata(path, local.size_in_bytes, local.last_updated_in_seconds)

    def _list(self, dir_or_prefix: str) -> Any:
        for meta in super()._list(dir_or_prefix.removeprefix("fake:/")):
            yield FileMetadata(
                f"fake:/{meta.path}", meta.size_in_bytes, meta.last_updated_in_seconds
            )


def test_uris_go_through_beams_file_systems(folder: Path, tmp_path: Path) -> None:
    assert RemoteFileSystem.scheme() == "fake"
    (folder / "notes.txt").write_text("no audio")
    assert count_ok(run([f"fake:/{folder}/"], tmp_path / "c")) == 3
    uri = f"fake:/{folder}/a.wav"
    assert rows(tmp_path / "c")[uri]["n_windows"] == 5
    assert run([uri, f"fake:/{folder}/*.flac"], tmp_path / "c").n_todo == 0
    listed = list_inputs([f"fake:/{manifest(folder, 'csv')}"]).inputs
    assert uri in [item.uri for item in listed]
    listing = list_inputs(["fake://nowhere/x.wav", "nosuch://bucket/x.wav"])
    assert [item.problem[0] for item in listing.inputs if item.problem] == ["list", "list"]


def test_an_input_is_opened_where_it_was_listed(tmp_path: Path) -> None:
    for name in ("plain.wav", "with %41 and space.wav"):
        path = tmp_path / name
        assert local_path(str(path)) == path
        assert local_path("file://" + str(path).replace("%", "%25").replace(" ", "%20")) == path
