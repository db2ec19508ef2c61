from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from encoders.errors import LabelError
from index.label_files import Label, read_audacity, read_csv, read_labels, resolve_labels

RECORDINGS = pa.table(
    {
        "uri": ["field/north/walk.flac", "field/south/walk.flac", "field/dog.wav", "cat.ogg"],
        "seconds": [60.0, 30.0, 2.0, 1.5],
        "labels": pa.array(
            [None, [("site", "south")], [("label", "dog"), ("site", "home")], [("label", "cat")]],
            pa.map_(pa.string(), pa.string()),
        ),
    }
)


def labels_of(path: Path, text: str) -> list[Label]:
    path.write_text(text, encoding="utf-8")
    return read_labels(str(path), RECORDINGS)


def test_a_csv(tmp_path: Path) -> None:
    labels = labels_of(
        tmp_path / "l.csv",
        "\ufeffURI,label,onset,offset,remark\nnorth/walk.flac,dog,1.5,2.25,far\ncat.ogg,cat,,,\n",
    )
    found = resolve_labels(labels, RECORDINGS)
    assert [(f.recording, f.onset_s, f.offset_s, f.label, f.whole) for f in found] == [
        (0, 1.5, 2.25, "dog", False),
        (3, 0.0, 1.5, "cat", True),
    ]


def test_what_earmark_writes_can_be_read_again(tmp_path: Path) -> None:
    labels = labels_of(tmp_path / "l.csv", "reference,onset_s,offset_s,label\ncat.ogg,0,1,cat\n")
    assert labels == [Label("cat.ogg", 0.0, 1.0, "cat", f"{tmp_path / 'l.csv'}, line 2")]


def test_an_audacity_label_track(tmp_path: Path) -> None:
    text = "0.250000\t1.000000\tdog bark\n\\\t100.0\t200.0\n1.25\t1.5\tdog bark\n"
    labels = labels_of(tmp_path / "dog.txt", text)
    found = resolve_labels(labels, RECORDINGS)
    assert [(f.recording, f.onset_s, f.offset_s, f.label) for f in found] == [
        (2, 0.25, 1.0, "dog bark"),
        (2, 1.25, 1.5, "dog bark"),
    ]


def test_a_folder_of_label_tracks(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").write_text("0\t1\tdog\n")
    (tmp_path / "cat.txt").write_text("0\t1\tcat\n")
    assert [label.name for label in read_labels(str(tmp_path), RECORDINGS)] == ["cat", "dog"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match="no label tracks"):
        read_labels(str(tmp_path / "empty"), RECORDINGS)


def test_the_manifest_and_folders() -> None:
    labels = [(x.name, x.label) for x in read_labels("manifest", RECORDINGS)]
    assert labels == [("field/dog.wav", "dog"), ("cat.ogg", "cat")]
    sites = [x.label for x in read_labels("manifest:site", RECORDINGS)]
    assert sites == ["south", "home"]
    with pytest.raises(LabelError, match=r"no recording has a label 'species'.*known: label, site"):
        read_labels("manifest:species", RECORDINGS)
    folders = [x.label for x in read_labels("folders", RECORDINGS)]
    assert folders == ["north", "south", "field"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line has to name the columns uri, label"),
        ("a,b\n1,2\n", "it says a, b"),
        ("uri,label,onset\ncat.ogg,cat,0\n", "needs both"),
        ("uri,label,onset,offset\ncat.ogg,cat,zero,1\n", "line 2: 'zero' is not a time"),
        ("uri,label,onset,offset\ncat.ogg,cat,0,nan\n", "'nan' is not a time"),
        ("uri,label,onset,offset\ncat.ogg,cat,-1,1\n", "before the start"),
        ("uri,label,onset,offset\ncat.ogg,cat,1,1\n", "is not after the onset"),
        ("uri,label,onset,offset\ncat.ogg,cat,1,\n", "and no other"),
        ("uri,label,onset,offset\ncat.ogg,,0,1\n", "line 2: no label"),
        ("uri,label,onset,offset\n,cat,0,1\n", "line 2: no uri"),
        ("uri,label,onset,offset\ncat.ogg\n", "line 2: "),
    ],
)
def test_a_bad_csv_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        labels_of(tmp_path / "bad.csv", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 dog\n", "line 1: not onset, tab"),
        ("0\tx\tdog\n", "not a time"),
        ("0\t1\t\n", "no label"),
    ],
)
def test_a_bad_label_track_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dog.txt").write_text(text)
    with pytest.raises(LabelError, match=message):
        read_audacity(tmp_path / "dog.txt")


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot read the labels"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(LabelError, match="not a text file"):
        read_csv(tmp_path / "binary.csv")


def label(name: str, onset: float, offset: float, what: str = "dog") -> Label:
    return Label(name, onset, offset, what, f"l.csv, {name} {onset:g}")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([label("wolf.wav", 0, 1)], "no recording 'wolf.wav'"),
        ([label("walk.flac", 0, 1)], "2 recordings are called 'walk.flac'"),
        ([label("dog.wav", 1.0, 2.5)], "2.5 s is beyond the end of field/dog.wav, .* 2.00 s"),
        ([label("dog.wav", 0, 1, "wolf")], "unknown class 'wolf'; known: cat, dog"),
        ([label("dog.wav", 0, 1), label("dog.wav", 0.5, 2)], "dog from 0.5 s overlaps dog until 1"),
        ([label("dog.wav", 0, 2), label("dog.wav", 0.5, 1)], "overlaps dog until 2 s"),
    ],
)
def test_labels_that_cannot_be_true(labels: list[Label], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        resolve_labels(labels, RECORDINGS, classes=["dog", "cat"])


def test_different_sounds_may_overlap_unless_they_must_not() -> None:
    labels = [label("dog.wav", 0, 1), label("dog.wav", 0.5, 1.5, "cat")]
    assert len(resolve_labels(labels, RECORDINGS)) == 2
    with pytest.raises(LabelError, match=r"cat from 0.5 s overlaps dog"):
        resolve_labels(labels, RECORDINGS, exclusive=True)
    touching = [label("dog.wav", 0, 1), label("dog.wav", 1, 2)]
    assert len(resolve_labels(touching, RECORDINGS, exclusive=True)) == 2


def test_an_end_just_beyond_is_the_end_and_background_is_always_known() -> None:
    found = resolve_labels([label("dog.wav", 1, 2.05, "background")], RECORDINGS, classes=["dog"])
    assert found[0].offset_s == 2.0


def test_many_problems_are_counted() -> None:
    labels = [label("wolf.wav", i, i + 1) for i in range(9)]
    with pytest.raises(LabelError, match="and 4 more"):
        resolve_labels(labels, RECORDINGS)
