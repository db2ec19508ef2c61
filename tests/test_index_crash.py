"""Killed at any step, a writer leaves the old index or the new one, and never anything between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from index_helpers import Recorded, Sound, add_recordings, empty_catalog

from encoders.errors import CatalogError
from index import policy, storage
from index.build import build_index
from index.catalog import Catalog
from index.removal import compact_parts, find_recordings, remove_recordings
from index.search import FingerprintIndex
from index.update import compact_index, update_index
from index.verify import problems

EVENTS = {"os.link", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate"}


class _Killed(BaseException):
    pass


class Death:
    """Kills the process, as far as its files can tell, before its n-th change to the disk.

    Python's audit events come before every file operation. From then on none has any effect: no
    ``finally`` tidies up after ``kill -9``.
    """

    def __init__(self) -> None:
        self.at: int | None = None
        self.n_changes = 0
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        mode = args[1] if event == "open" else None
        if event in EVENTS or (isinstance(mode, str) and set(mode) & set("wxa+")):
            self.change()

    def change(self) -> None:
        """Count a change, or die."""
        if self.at is not None:
            self.n_changes += 1
            if self.n_changes >= self.at:
                raise _Killed

    def comes(self, at: int, work: Callable[[], object]) -> bool:
        """Do some work; whether it was killed."""
        self.at, self.n_changes = at, 0
        try:
            work()
        except _Killed:
            return True
        finally:
            self.at = None
        return False


@pytest.fixture(scope="module")
def death() -> Death:
    return Death()


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch, death: Death) -> None:
    """Lists of four bits for catalogs of any size; syncs count as changes."""
    kind = policy.IndexKind("IVF4,PQ64x4fs", 4, 10)
    monkeypatch.setattr(policy, "choose", lambda n_rows, dim: kind)
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        death.change()
        fsync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", counted)


def sound(name: str) -> np.ndarray:
    return Sound(ord(name), 30).reference()


def add(catalog: Catalog, names: str) -> None:
    add_recordings(catalog, [Recorded(name, sound(name)) for name in names])


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog whose index has two generations, with c and d new and a gone since."""
    catalog = empty_catalog(tmp_path_factory.mktemp("crash") / "catalog")
    with pytest.MonkeyPatch.context() as patch, catalog.writer_lock():
        kind = policy.IndexKind("IVF4,PQ64x4fs", 4, 10)
        patch.setattr(policy, "choose", lambda n_rows, dim: kind)
        add(catalog, "abefgh")
        update_index(catalog)
        add(catalog, "i")
        update_index(catalog)
    add(catalog, "cd")
    remove_recordings(catalog, find_recordings(catalog, ["a"]))
    return catalog.path


WORK = {
    "build": build_index,
    "update and compact": lambda catalog: (
        compact_parts(catalog),
        update_index(catalog),
        compact_index(catalog),
    ),
}


def found(catalog: Catalog) -> str:
    """Names that the live index knows; each is found by its own sound."""
    index = FingerprintIndex.open(catalog)
    names = "".join(sorted(index.uris()))
    for name in names:
        _, rows = index.search(sound(name)[3:4], 1)
        assert index.uri(int(index.recording_of(rows)[0, 0])) == name
    return names


@pytest.mark.parametrize("work", list(WORK))
def test_killed_at_any_step_the_index_is_the_old_or_the_new(
    before: Path, tmp_path: Path, death: Death, work: str
) -> None:
    states = []
    for at in range(1, 1000):
        path = tmp_path / str(at)
        # With its hard links, as the catalog is.
        subprocess.run(["cp", "-a", before, path], check=True)
        catalog = Catalog.open(path)
        reader = FingerprintIndex.open(catalog)
        killed = death.comes(at, lambda catalog=catalog: WORK[work](catalog))  # type: ignore[misc]
        states.append(found(catalog))
        assert [p for p in problems(catalog) if "older than" not in p] == []
        assert reader.search(sound("b"), 1)[0].min() > 0.99
        with catalog.writer_lock():
            catalog.clean()
            update_index(catalog)
        assert found(catalog) == "bcdefghi"
        assert list(problems(catalog)) == []
        assert not list(path.rglob("*.tmp"))
        shutil.rmtree(path)
        if not killed:
            break
    assert states[0] == "abefghi"
    assert states[-1] == "bcdefghi"
    assert sorted(states) == states, "once published it stays"
    assert 10 < len(states) < 200


def test_removing_is_done_or_not(before: Path, tmp_path: Path, death: Death) -> None:
    for at in range(1, 100):
        path = tmp_path / str(at)
        shutil.copytree(before, path)
        catalog = Catalog.open(path)
        rows = find_recordings(catalog, ["b", "id of c"])
        killed = death.comes(at, lambda c=catalog, r=rows: remove_recordings(c, r))  # type: ignore[misc]
        catalog.clean()
        left = set(catalog.indexed_recordings()["uri"].to_pylist())
        assert left in (set("bcdefghi"), set("defghi"))
        if not killed:
            break
    assert left == set("defghi")
    assert at > 3


WRITER = """
import sys, time
import numpy as np
sys.path.insert(0, "tests")
from index_helpers import Recorded, Sound, add_recordings
from index.catalog import Catalog
from index.update import update_index
from encoders.errors import CatalogError
catalog, refused = Catalog.open(sys.argv[1]), 0
for number in range(8):
    while True:
        try:
            with catalog.writer_lock():
                catalog.clean()
                name = f"{sys.argv[2]} {number}"
                add_recordings(catalog, [Recorded(name, Sound(hash(name) % 999, 8).reference())])
                update_index(catalog)
                time.sleep(0.05)
            break
        except CatalogError as error:
            assert "another process is writing" in str(error), error
            refused += 1
            time.sleep(0.02)
print("refused", refused)
"""

READER = """
import sys, time
import numpy as np
sys.path.insert(0, "tests")
from index_helpers import Sound
from index.catalog import Catalog
from index.search import FingerprintIndex
catalog, n = Catalog.open(sys.argv[1]), 0
query = Sound(ord("b"), 30).reference()[3:4]
print("ready", flush=True)
while True:
    index = FingerprintIndex.open(catalog)
    _, rows = index.search(query, 1)
    assert index.uri(int(index.recording_of(rows)[0, 0])) == "b"
    n += 1
    if len(index.uris()) == int(sys.argv[2]):
        print("read", n)
        break
"""


def start(program: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_write_and_many_read(before: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    shutil.copytree(before, path)
    n = len("bcdefghi") + 2 * 8
    readers = [start(READER, path, n) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    writers = [start(WRITER, path, name) for name in ("x", "y")]
    for process in (*writers, *readers):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.split()[0] in ("refused", "read")
    assert list(problems(Catalog.open(path))) == []


@pytest.mark.slow
def test_kill_9_frees_the_lock_and_leaves_a_whole_index(before: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    shutil.copytree(before, path)
    catalog = Catalog.open(path)
    writer = start(WRITER, path, "x")
    deadline = time.monotonic() + 120
    while not any(u.startswith("x 1") for u in uris(catalog)) and time.monotonic() < deadline:
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert [p for p in problems(catalog) if "older than" not in p] == []
    with catalog.writer_lock():
        catalog.clean()
        update_index(catalog)
    assert {"b", "x 0", "x 1"} <= set(FingerprintIndex.open(catalog).uris())


def uris(catalog: Catalog) -> Iterator[str]:
    yield from FingerprintIndex.open(catalog).uris()


def test_a_full_disk_is_told_and_leaves_the_old_index(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalog"
    shutil.copytree(before, path)
    catalog = Catalog.open(path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("index.build.write_lists", full)
    with pytest.raises(CatalogError, match="disk full"), catalog.writer_lock():
        update_index(catalog)
    assert found(catalog) == "abefghi"
    assert not list(path.rglob("*.tmp"))
