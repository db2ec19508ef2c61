"""What a teacher says: read, standardised, and refused if it is something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.corpus import Item
from encoders.errors import EarmarkError
from encoders.teacher import Teacher

NAMES = ["a/x.wav", "a/x.wav", "b.ogg"]


def write(file: Path, **changed: Any) -> Path:
    stored: dict[str, Any] = {
        "path": np.array(NAMES),
        "start_s": np.array([0.0, 1.5, 0.0], np.float32),
        "vector": np.array([[4.0, 0.0, 1.0], [0.0, 9.0, 1.0], [1.0, 1.0, 1.0]], np.float16),
    }
    np.savez(file, **{key: value for key, value in (stored | changed).items() if value is not None})
    return file


def item(path: Path) -> Item:
    return Item(path, "event", "train")


def test_vectors_are_found_by_the_paths_of_the_corpus(tmp_path: Path) -> None:
    teacher = Teacher.read([write(tmp_path / "t.npz")], tmp_path / "corpus" / "corpus.csv")
    assert teacher.of(item(tmp_path / "corpus" / "a" / "x.wav")) == [(0.0, 0), (1.5, 1)]
    assert teacher.of(item(tmp_path / "corpus" / "b.ogg")) == [(0.0, 2)]
    assert teacher.of(item(tmp_path / "b.ogg")) == []
    assert teacher.dim == 3


def test_vectors_are_standardised(tmp_path: Path) -> None:
    vectors = Teacher.read([write(tmp_path / "t.npz")], tmp_path / "corpus.csv").vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    # Roots 2, 0, 1 and 0, 3, 1; the last number never changes, and tells nothing.
    expected = np.array([[1.0, -4 / 3], [-1.0, 5 / 3], [0.0, -1 / 3]])
    expected /= np.array([np.std([2, 0, 1]), np.std([0, 3, 1])])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[:, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(vectors[:, 2], 0.0)


def test_several_teachers_stand_side_by_side_where_all_have_heard(tmp_path: Path) -> None:
    first = write(tmp_path / "first.npz")
    order = [2, 0]
    second = write(
        tmp_path / "second.npz",
        path=np.array(NAMES)[order],
        start_s=np.zeros(2, np.float32),
        vector=np.array([[1.0, 0.0, 4.0, 0.0], [0.0, 1.0, 0.0, 0.0]]),
    )
    both = Teacher.read([first, second], tmp_path / "corpus.csv")
    assert both.dim == 7
    assert both.of(item(tmp_path / "a" / "x.wav")) == [(0.0, 0)]
    assert both.of(item(tmp_path / "b.ogg")) == [(0.0, 1)]
    np.testing.assert_allclose(np.linalg.norm(both.vectors, axis=1), 1.0, rtol=1e-6)
    # Each weighs the same, however many numbers it has.
    np.testing.assert_allclose(np.linalg.norm(both.vectors[:, :3], axis=1), 0.5**0.5, rtol=1e-6)
    one = Teacher.read([second], tmp_path / "corpus.csv")
    np.testing.assert_allclose(both.vectors[0, 3:], one.vectors[1] * 0.5**0.5, rtol=1e-6)


def test_teachers_that_heard_nothing_in_common_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "first.npz")
    second = write(tmp_path / "second.npz", start_s=np.full(3, 7.0, np.float32))
    with pytest.raises(EarmarkError, match="no window in common"):
        Teacher.read([first, second], tmp_path / "corpus.csv")


@pytest.mark.parametrize(
    "changed",
    [
        {"start_s": None},
        {"start_s": np.zeros(2)},
        {"vector": np.zeros((0, 3)), "path": np.array([], str), "start_s": np.zeros(0)},
        {"vector": np.full((3, 3), np.nan)},
        {"path": np.array(NAMES, object)},
    ],
)
def test_what_is_not_whole_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"t\.npz"):
        Teacher.read([write(tmp_path / "t.npz", **changed)], tmp_path / "corpus.csv")


@pytest.mark.parametrize("content", [b"", b"path,start_s\n", b"PK\x03\x04 torn"])
def test_what_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(EarmarkError, match="no vectors of a teacher"):
        Teacher.read([tmp_path / "t.npz"], tmp_path / "corpus.csv")
