"""Files are put aside and brought back, whatever happens in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import EarmarkError
from index.keep import FileFacts
from pipelines.dedup import apply as module
from pipelines.dedup.apply import Action, apply, hash_file, undo
from pipelines.dedup.journal import JOURNAL_FILE, Journal, State

Copies = list[tuple[FileFacts, FileFacts]]


class Crash(BaseException):
    """The machine stops here."""


def facts(path: Path) -> FileFacts:
    status = path.stat()
    return FileFacts(str(path), hash_file(path), status.st_size, status.st_mtime_ns, seconds=1.0)


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Two clusters: keep.wav with two copies of the same bytes, one in a folder; and one more."""
    music = tmp_path / "music"
    (music / "sub").mkdir(parents=True)
    names = {
        "keep.wav": b"one",
        "a.wav": b"one",
        "sub/b.wav": b"one",
        "k.flac": b"22",
        "c.mp3": b"3",
    }
    for age, (name, content) in enumerate(names.items()):
        (music / name).write_bytes(content * 1000)
        os.utime(music / name, ns=(age * 10**9, age * 10**9))
    (music / "a.wav").chmod(0o640)
    (tmp_path / "out").mkdir()
    found = {name: facts(music / name) for name in names}
    return [
        (found["a.wav"], found["keep.wav"]),
        (found["sub/b.wav"], found["keep.wav"]),
        (found["c.mp3"], found["k.flac"]),
    ]


def state(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Every file: content, time, mode, number of names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            s = path.stat()
            name = str(path.relative_to(folder))
            found[name] = (path.read_bytes(), s.st_mtime_ns, s.st_mode, s.st_nlink)
    return found


def no_links(*args: Any, **kwargs: Any) -> None:
    raise OSError(18, "Invalid cross-device link")


@pytest.mark.parametrize("across", [False, True], ids=["same disk", "other disk"])
def test_move_and_undo(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, across: bool
) -> None:
    if across:
        monkeypatch.setattr(os, "link", no_links)
    before, out = state(tmp_path / "music"), tmp_path / "out"
    action = Action.parse(f"move:{tmp_path / 'aside'}")
    outcome = apply(copies, action, out)
    assert (len(outcome.done), outcome.n_bytes, outcome.skipped) == (3, 7000, [])
    assert set(state(tmp_path / "music")) == {"keep.wav", "k.flac"}
    moved = state(tmp_path / "aside")
    names = {Path(name).name: facts for name, facts in moved.items()}
    assert {"a.wav", "b.wav", "c.mp3"} == set(names)
    assert names["a.wav"] == before["a.wav"]

    again = apply(copies, action, out)
    assert (again.done, again.n_before, again.skipped) == ([], 3, [])
    back = undo(out)
    assert (len(back.done), back.skipped) == (3, [])
    assert state(tmp_path / "music") == before
    assert not (tmp_path / "aside").exists()
    assert undo(out).done == []
    assert len(apply(copies, action, out).done) == 3, "and once more"


def test_hardlink_and_undo(copies: Copies, tmp_path: Path) -> None:
    before, out = state(tmp_path / "music"), tmp_path / "out"
    outcome = apply(copies, Action("hardlink"), out)
    assert len(outcome.done) == 2
    assert outcome.skipped == [(copies[2][0].uri, "only files of the same bytes become hard links")]
    after = state(tmp_path / "music")
    assert after["keep.wav"][3] == 3
    assert {name: row[0] for name, row in after.items()} == {n: row[0] for n, row in before.items()}
    assert apply(copies, Action("hardlink"), out).n_before == 2
    assert len(undo(out).done) == 2
    assert state(tmp_path / "music") == before


def run(job: Callable[[], Any], crash_at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run until the n-th call that changes the disk; whether it crashed there."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == crash_at:
                raise Crash
            return function(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        for owner, name in (
            (os, "link"), (os, "fsync"), (os, "utime"), (shutil, "copy2"), (Path, "unlink"),
            (Path, "replace"), (Path, "chmod"), (Path, "mkdir"), (Path, "rmdir"),
        ):  # fmt: skip
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            job()
        except Crash:
            return True
    return False


@pytest.mark.parametrize("across", [False, True], ids=["same disk", "other disk"])
@pytest.mark.parametrize("how", ["move", "hardlink"])
def test_a_crash_at_any_step_loses_nothing(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, across: bool
) -> None:
    if across and how == "move":
        monkeypatch.setattr(os, "link", no_links)
    out, music, aside = (tmp_path / name for name in ("out", "music", "aside"))
    action = Action(how, aside if how == "move" else None)
    before = state(music)
    contents = sorted(row[0] for row in before.values())
    n = 0
    while True:
        n += 1
        crashed = run(lambda: apply(copies, action, out), n, monkeypatch)
        here = {name: row[0] for f in (music, aside) for name, row in state(f).items()}
        assert set(contents) <= set(here.values()), "every content is somewhere"
        assert {"keep.wav", "k.flac"} <= set(here)
        if not (out / JOURNAL_FILE).exists():
            assert state(music) == before, "nothing is done without the journal"
            continue
        if n % 2:  # Go on, and then back.
            assert len(apply(copies, action, out).skipped) == (how == "hardlink")
            assert len(Journal(out / JOURNAL_FILE).in_state(State.DONE)) == (
                2 if how[0] == "h" else 3
            )
        undo_crashed = run(lambda: undo(out), max(1, n - 3), monkeypatch)
        if undo_crashed:
            undo(out)
        assert state(music) == before, f"crash {n}"
        assert not state(aside)
        (out / JOURNAL_FILE).unlink()
        shutil.rmtree(aside, ignore_errors=True)
        if not crashed:
            break
    assert n > 10


def test_what_has_changed_is_left_alone(copies: Copies, tmp_path: Path) -> None:
    a, b, c = (Path(file.uri) for file, _ in copies)
    a.write_bytes(b"other bytes")  # another size
    b.touch()  # another time, the same bytes
    c.write_bytes(b"9" * 1000)  # the same size, another time
    outcome = apply(copies, Action("move", tmp_path / "aside"), tmp_path / "out")
    assert outcome.done == [str(b)]
    assert dict(outcome.skipped) == {
        str(path): "it has changed since it was ingested" for path in (a, c)
    }
    assert a.exists()
    assert c.exists()


def test_nothing_is_moved_without_the_one_to_keep(copies: Copies, tmp_path: Path) -> None:
    keep = Path(copies[0][1].uri)
    k = Path(copies[2][1].uri)
    keep.unlink()
    k.write_bytes(b"0" * 2000)
    outcome = apply(copies, Action("move", tmp_path / "aside"), tmp_path / "out")
    assert outcome.done == []
    reasons = [reason for _, reason in outcome.skipped]
    assert reasons[0] == reasons[1] == f"the file to keep is not there: {keep}"
    assert reasons[2] == "the file to keep has changed since it was ingested"


def test_links_and_strangers_are_left_alone(copies: Copies, tmp_path: Path) -> None:
    a, b, _ = (Path(file.uri) for file, _ in copies)
    keep = Path(copies[0][1].uri)
    a.unlink()
    a.symlink_to(keep)
    b.unlink()
    os.link(keep, b)
    remote = FileFacts("s3://bucket/x.wav", "id", 1)
    gone = FileFacts(str(tmp_path / "gone.wav"), "id", 1)
    todo = [*copies[:2], (remote, copies[0][1]), (gone, copies[0][1])]
    outcome = apply(todo, Action("move", tmp_path / "aside"), tmp_path / "out")
    assert outcome.done == []
    assert [reason for _, reason in outcome.skipped] == [
        "it is a symbolic link",
        "it is the same file on disk as the one to keep",
        "it is not on a local file system",
        "it is not there",
    ]


def test_a_file_in_the_way_is_never_overwritten(copies: Copies, tmp_path: Path) -> None:
    out, action = tmp_path / "out", Action("move", tmp_path / "aside")
    source = Path(copies[2][0].uri)
    place = tmp_path / "aside" / source.relative_to("/")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    outcome = apply(copies, action, out)
    assert outcome.skipped == [(str(source), f"there is a file already at {place}")]
    assert place.read_bytes() == b"mine"

    a = Path(copies[0][0].uri)
    a.write_bytes(b"a new file of that name")
    back = undo(out)
    assert [uri for uri, _ in back.skipped] == [str(a)]
    assert "another file is in its place" in back.skipped[0][1]
    assert a.read_bytes() == b"a new file of that name"
    a.unlink()
    assert undo(out).done == [str(a)], "it can still be brought back"
    assert a.read_bytes() == b"one" * 1000


def test_a_hard_link_that_was_written_to_is_told(copies: Copies, tmp_path: Path) -> None:
    apply(copies, Action("hardlink"), tmp_path / "out")
    Path(copies[0][1].uri).write_bytes(b"changed")
    back = undo(tmp_path / "out")
    assert back.done == []
    assert all("has changed" in reason for _, reason in back.skipped)


def test_relative_names_keep_their_folders(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep = copies[0][1]
    relative = FileFacts(**{**vars(copies[1][0]), "uri": "music/sub/b.wav"})
    apply([(relative, keep)], Action.parse("move:aside"), tmp_path / "out")
    assert set(state(tmp_path / "aside")) == {"music/sub/b.wav"}
    monkeypatch.chdir("/")
    assert len(undo(tmp_path / "out").done) == 1, "from any folder"


def test_a_cut_journal_is_read_and_a_damaged_one_is_not(copies: Copies, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apply(copies, Action("move", tmp_path / "aside"), out)
    path = out / JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"state": "beg')
    assert len(Journal(path).in_state(State.DONE)) == 3
    assert path.read_bytes() == whole
    path.write_bytes(b'{"state": "done", "number": 7}\n' + whole)
    with pytest.raises(EarmarkError, match="damaged"):
        undo(out)
    with pytest.raises(EarmarkError, match="nothing was ever applied"):
        undo(tmp_path / "aside")


def test_one_at_a_time(copies: Copies, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with module._open_journal(out), pytest.raises(EarmarkError, match="another process"):
        apply(copies, Action("hardlink"), out)


@pytest.mark.parametrize("text", ["move", "move:", "hardlink:x", "delete"])
def test_other_actions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Action.parse(text)
