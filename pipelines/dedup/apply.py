"""Put copies aside, and bring them back: move them to a folder, or make them hard links.

Nothing here ever deletes the last name of bytes that have no other. Every step is in the journal
before it is taken, and a step that was cut off is settled before anything else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock

from encoders.errors import EarmarkError
from index.keep import FileFacts
from index.storage import publish, sync_folder, temporary_name
from pipelines.dedup.journal import JOURNAL_FILE, Journal, State, Step
from pipelines.inputs import local_path

MOVE, HARDLINK = "move", "hardlink"
_LOCK = ".journal.lock"
_HASH_BLOCK = 1 << 20
# File systems without hard links, or another file system.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES}

Show = Callable[[int, int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class Action:
    """What to do with copies.

    Parameters
    ----------
    name : str
        ``"move"`` or ``"hardlink"``.
    folder : Path, optional
        Where copies are moved to.
    """

    name: str
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Action:
        """Read ``move:DIR`` or ``hardlink``.

        Raises
        ------
        ValueError
        """
        name, _, folder = text.partition(":")
        if name == MOVE and folder:
            return cls(MOVE, Path(folder).absolute())
        if text == HARDLINK:
            return cls(HARDLINK)
        raise ValueError(f"{text!r} is neither move:DIR nor hardlink")


@dataclasses.dataclass
class Outcome:
    """What became of the files.

    Attributes
    ----------
    done : list of str
        Files that were moved, linked or brought back.
    n_bytes : int
        Of these.
    n_before : int
        Files that an earlier run had put aside.
    skipped : list of (str, str)
        Files that were left as they are, and why.
    """

    done: list[str] = dataclasses.field(default_factory=list)
    n_bytes: int = 0
    n_before: int = 0
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class _Skip(Exception):
    """A file is left as it is; the message says why."""


def apply(
    copies: list[tuple[FileFacts, FileFacts]], action: Action, out: Path, show: Show | None = None
) -> Outcome:
    """Put copies aside. Files that are not as ingest saw them are left alone.

    Parameters
    ----------
    copies : list of (FileFacts, FileFacts)
        The file to put aside, and the one to keep in its stead.
    action : Action
        Only files of the same bytes become hard links.
    out : Path
        Folder of the journal.
    show : callable, optional
        Takes the number of files done, of all files, and figures.

    Raises
    ------
    EarmarkError
        If another process is at it, or the journal cannot be written.
    """
    outcome = Outcome()
    with _open_journal(out) as journal:
        _settle_all(journal, outcome)
        before = {step.source for step in journal.in_state(State.DONE)}
        for number, (file, keep) in enumerate(copies, start=1):
            try:
                source = _path_of(file)
                if str(source) in before and not _is_back(source, action, keep):
                    outcome.n_before += 1
                else:
                    step = _plan(file, keep, action, journal.next_number())
                    _take(step, journal)
                    outcome.done.append(file.uri)
                    outcome.n_bytes += file.n_bytes
            except _Skip as reason:
                outcome.skipped.append((file.uri, str(reason)))
            except OSError as error:
                outcome.skipped.append((file.uri, error.strerror or str(error)))
            if show:
                show(number, len(copies), {})
    return outcome


def undo(out: Path, show: Show | None = None) -> Outcome:
    """Bring everything back that :func:`apply` put aside, the last step first.

    Parameters
    ----------
    out : Path
        Folder of the journal.
    show : callable, optional
        As for :func:`apply`.

    Raises
    ------
    EarmarkError
        If there is no journal, or another process is at it.
    """
    if not (out / JOURNAL_FILE).is_file():
        raise EarmarkError(f"nothing was ever applied from {out}: it has no {JOURNAL_FILE}")
    outcome = Outcome()
    with _open_journal(out) as journal:
        _settle_all(journal, outcome)
        steps = journal.in_state(State.DONE)[::-1]
        for number, step in enumerate(steps, start=1):
            try:
                _take_back(step)
                journal.mark(step, State.UNDONE)
                outcome.done.append(step.source)
                outcome.n_bytes += Path(step.source).stat().st_size
            except _Skip as reason:
                outcome.skipped.append((step.source, str(reason)))
            except OSError as error:
                outcome.skipped.append((step.source, error.strerror or str(error)))
            if show:
                show(number, len(steps), {})
    return outcome


@contextlib.contextmanager
def _open_journal(out: Path) -> Iterator[Journal]:
    try:
        with filelock.FileLock(out / _LOCK, timeout=0):
            yield Journal(out / JOURNAL_FILE)
    except filelock.Timeout:
        raise EarmarkError(f"another process is applying or undoing {out}") from None


def _plan(file: FileFacts, keep: FileFacts, action: Action, number: int) -> Step:
    source, kept = _path_of(file), _path_of(keep)
    if source.is_symlink():
        raise _Skip("it is a symbolic link")
    if not kept.exists():
        raise _Skip(f"the file to keep is not there: {kept}")
    if not source.exists():
        raise _Skip("it is not there")
    if source.samefile(kept):
        raise _Skip("it is the same file on disk as the one to keep")
    linking = action.name == HARDLINK
    if linking and file.recording_id != keep.recording_id:
        raise _Skip("only files of the same bytes become hard links")
    for what, path, facts in (("it", source, file), ("the file to keep", kept, keep)):
        if not _is_unchanged(path, facts, hash_anyway=linking):
            raise _Skip(f"{what} has changed since it was ingested")
    target = kept if linking else _place(source, file, action)
    status = source.stat()
    temporary = temporary_name(source if linking else target)
    return Step(
        number, action.name, str(source), str(target), str(temporary), file.recording_id or "",
        status.st_mtime_ns, status.st_mode & 0o7777, str(action.folder or ""),
    )  # fmt: skip


def _path_of(file: FileFacts) -> Path:
    path = local_path(file.uri)
    if path is None:
        raise _Skip("it is not on a local file system")
    return path.absolute()


def _place(source: Path, file: FileFacts, action: Action) -> Path:
    # The same for a file in every run, and never the same for two.
    assert action.folder is not None
    given = local_path(file.uri)
    assert given is not None
    inside = given if not given.is_absolute() and ".." not in given.parts else source
    target = action.folder / (inside.relative_to(inside.anchor) if inside.anchor else inside)
    if target.exists() or target.is_symlink():
        raise _Skip(f"there is a file already at {target}")
    return target


def _is_unchanged(path: Path, facts: FileFacts, hash_anyway: bool) -> bool:
    status = path.stat()
    if status.st_size != facts.n_bytes:
        return False
    if status.st_mtime_ns == facts.modified_ns and not hash_anyway:
        return True
    return facts.recording_id is not None and hash_file(path) == facts.recording_id


def _is_back(source: Path, action: Action, keep: FileFacts) -> bool:
    # Whether there is again a file of its own where one was put aside.
    if not source.exists():
        return False
    return action.name != HARDLINK or not source.samefile(_path_of(keep))


def _take(step: Step, journal: Journal) -> None:
    if step.action == MOVE:
        Path(step.target).parent.mkdir(parents=True, exist_ok=True)
    journal.begin(step)
    try:
        if step.action == MOVE:
            _move(Path(step.source), Path(step.target), Path(step.temporary))
        else:
            _link(Path(step.source), Path(step.target), Path(step.temporary))
    except FileExistsError:
        journal.mark(step, State.UNDONE)  # A file that came there is not ours to remove.
        raise
    except OSError:
        _settle(step, journal)
        raise
    journal.mark(step, State.DONE)


def _move(source: Path, target: Path, temporary: Path) -> None:
    # A new link first: it never overwrites a file that came there in the meantime.
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(source, temporary)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "a file has come there", str(target)) from None
        publish(temporary, target)
    sync_folder(target.parent)
    source.unlink()
    sync_folder(source.parent)


def _link(source: Path, keep: Path, temporary: Path) -> None:
    os.link(keep, temporary)
    publish(temporary, source)


def _copy(source: Path, temporary: Path) -> None:
    shutil.copy2(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if hash_file(temporary) != hash_file(source):
        temporary.unlink()
        raise OSError(errno.EIO, "the copy differs from the file")


def _settle_all(journal: Journal, outcome: Outcome) -> None:
    for step in journal.in_state(State.BEGUN):
        try:
            _settle(step, journal)
        except OSError as error:
            outcome.skipped.append((step.source, error.strerror or str(error)))


def _settle(step: Step, journal: Journal) -> None:
    # Make a step that was cut off done or undone, whichever is nearer.
    source, target, temporary = Path(step.source), Path(step.target), Path(step.temporary)
    temporary.unlink(missing_ok=True)
    if step.action == HARDLINK:
        done = source.exists() and target.exists() and source.samefile(target)
    elif source.exists() and target.exists():
        if _are_same(source, target):
            target.unlink()
        done = False
    else:
        done = target.exists()
    journal.mark(step, State.DONE if done else State.UNDONE)


def _take_back(step: Step) -> None:
    source, target = Path(step.source), Path(step.target)
    temporary = source.with_name(Path(step.temporary).name)
    temporary.unlink(missing_ok=True)
    if step.action == MOVE:
        if source.exists() and target.exists() and _are_same(source, target):
            target.unlink()  # Undoing was cut off after the first half.
        elif source.exists() and not target.exists():
            return
        elif source.exists():
            raise _Skip(f"another file is in its place now; it stays at {target}")
        elif not target.exists():
            raise _Skip(f"it is not at {target} any more")
        else:
            source.parent.mkdir(parents=True, exist_ok=True)
            _move(target, source, temporary)
        _remove_empty(target.parent, Path(step.folder))
        return
    if not source.exists() and not target.exists():
        raise _Skip(f"neither it nor {target} is there any more")
    if source.exists() and not (target.exists() and source.samefile(target)):
        # It has become a file of its own: restored before, or the kept one was replaced.
        return
    origin = source if source.exists() else target
    if hash_file(origin) != step.recording_id:
        raise _Skip(f"{target}, which it shares its bytes with, has changed")
    _copy(origin, temporary)
    os.utime(temporary, ns=(step.modified_ns, step.modified_ns))
    temporary.chmod(step.mode)
    publish(temporary, source)


def _are_same(a: Path, b: Path) -> bool:
    return a.samefile(b) or hash_file(a) == hash_file(b)


def _remove_empty(folder: Path, root: Path) -> None:
    with contextlib.suppress(OSError):
        while folder.is_relative_to(root):
            folder.rmdir()
            folder = folder.parent


def hash_file(path: Path) -> str:
    """The recording id of a file: blake2b of its bytes, 128 bits, hex."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
