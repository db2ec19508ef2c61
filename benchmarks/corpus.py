"""Make a corpus for training and evaluation from packages of Debian.

Uses apt-get and dpkg-deb as any user may; no root is needed once apt's lists are there. Which file
is what (music, speech, noise, event; train or dev) is listed in corpus.csv.gz beside this script;
what kind of sound an event is, labels.py tells from its name.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
from _common import run_tool
from labels import label_of
from rich.console import Console
from rich.table import Table

from encoders.errors import AudioError
from pipelines.evaluate.selection import measure_audio

LIST = Path(__file__).parent / "corpus.csv.gz"

# Small: 3 h of music to train on with noise, 1.3 h for dev.
QUICK = (
    "wesnoth-1.16-music", "singularity-music", "ufoai-sound", "drascula-music", "pushover-data",
)  # fmt: skip

# An archive inside a package becomes a folder of its name and this.
_UNPACKED = ".d"

Member = tuple[str, Callable[[], bytes]]


class Entry(NamedTuple):
    """A file of the corpus: its path below the package, and what it is for."""

    path: str
    role: str
    split: str


def read_list() -> dict[str, list[Entry]]:
    """The entries of every package."""
    packages: dict[str, list[Entry]] = defaultdict(list)
    with gzip.open(LIST, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            packages[row["package"]].append(Entry(row["path"], row["role"], row["split"]))
    return dict(packages)


def choose_packages(packages: dict[str, list[Entry]], name: str) -> list[str]:
    """The packages of a set: quick, music or train (all of them)."""
    if name == "quick":
        return list(QUICK)
    if name == "music":
        return sorted(
            p for p, entries in packages.items() if any(e.role == "music" for e in entries)
        )
    return sorted(packages)


def unpack(members: Iterable[Member], wanted: set[str], target: Path) -> None:
    """Write the wanted members, those of archives among them too.

    Parameters
    ----------
    members : iterable of (name, read)
    wanted : set of str
        Paths; ``a.zip.d/b.ogg`` is ``b.ogg`` in ``a.zip``.
    target : Path
    """
    archives: dict[str, set[str]] = defaultdict(set)
    for path in wanted:
        outer, found, inner = path.partition(f"{_UNPACKED}/")
        while found and not Path(outer).suffix:  # A folder that is called so, not an archive.
            more, found, inner = inner.partition(f"{_UNPACKED}/")
            outer = f"{outer}{_UNPACKED}/{more}"
        if found:
            archives[outer].add(inner)
    for name, read in members:
        if name in wanted:
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(read())
        elif name in archives:
            unpack(_open_archive(read()), archives[name], target / (name + _UNPACKED))


def _open_archive(content: bytes) -> Iterator[Member]:
    file = io.BytesIO(content)
    if content[:4] == b"qres":
        yield from _qt_resources(content)
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                yield name, functools.partial(archive.read, name)
    else:
        with tarfile.open(fileobj=file) as archive:
            yield from _tar_members(archive)


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for member in archive:
        if member.isfile() and (file := archive.extractfile(member)):
            yield member.name.removeprefix("./"), file.read


def _qt_resources(content: bytes) -> Iterator[Member]:
    # Qt's binary resource format: a tree of nodes, a table of names, and the data.
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_size = 22 if version >= 2 else 14
    compressed, directory = 1, 2

    def name_of(node: int) -> str:
        at = names + struct.unpack_from(">I", content, node)[0]
        length = struct.unpack_from(">H", content, at)[0]
        return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")

    def read(node: int, flags: int) -> bytes:
        at = data + struct.unpack_from(">I", content, node + 10)[0]
        length = struct.unpack_from(">I", content, at)[0]
        blob = content[at + 4 : at + 4 + length]
        # Four bytes with the size come before the zlib stream.
        return zlib.decompress(blob[4:]) if flags & compressed else blob

    def walk(number: int, folder: str) -> Iterator[Member]:
        node = tree + number * node_size
        flags = struct.unpack_from(">H", content, node + 4)[0]
        path = folder + name_of(node) if number else ""
        if flags & directory:
            count, first = struct.unpack_from(">2I", content, node + 6)
            for child in range(first, first + count):
                yield from walk(child, f"{path}/" if path else "")
        else:
            yield path, functools.partial(read, node, flags)

    yield from walk(0, "")


def fetch_package(package: str, entries: list[Entry], target: Path) -> list[Entry]:
    """Download one package and keep its listed audio and its copyright file.

    Returns
    -------
    missing : list of Entry
        Listed, but not in the version of the package that apt offers.

    Raises
    ------
    click.ClickException
        If it cannot be downloaded or opened.
    """
    home = target / package
    missing = [e for e in entries if not (home / e.path).exists()]
    if not missing:
        return []
    wanted = {e.path for e in missing} | {f"usr/share/doc/{package}/copyright"}
    with tempfile.TemporaryDirectory() as scratch:
        run_tool(["apt-get", "-q", "download", package], scratch)
        for deb in Path(scratch).glob("*.deb"):
            with (
                subprocess.Popen(
                    ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE
                ) as unpacking,
                tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
            ):
                unpack(_tar_members(archive), wanted, home)
    return [e for e in missing if not (home / e.path).exists()]


def write_corpus(target: Path, packages: dict[str, list[Entry]]) -> dict[tuple[str, str], float]:
    """Write corpus.csv with every listed file that is in ``target``; events have a label.

    Returns
    -------
    seconds : dict
        By role and split.
    """
    total: dict[tuple[str, str], float] = defaultdict(float)
    with (target / "corpus.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "role", "split", "seconds", "label"])
        for package, entries in sorted(packages.items()):
            for entry in entries:
                seconds = _seconds(target / package / entry.path)
                if seconds:
                    path = f"{package}/{entry.path}"
                    label = label_of(package, entry.path) if entry.role == "event" else ""
                    out.writerow([path, entry.role, entry.split, f"{seconds:.3f}", label])
                    total[entry.role, entry.split] += seconds
    return total


def _seconds(path: Path) -> float:
    if not path.exists():
        return 0.0
    try:
        return measure_audio(path)[1]
    except AudioError as error:
        click.echo(f"left out: {path}: {error.reason}", err=True)
        return 0.0


@click.group()
def cli() -> None:
    """Real audio with roles and splits, from packages that are free."""


@cli.command()
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--packages", metavar="NAME,NAME…", help="Only these; see the command 'packages'.")
@click.option(
    "--set", "name", type=click.Choice(["quick", "music", "train"]), default="quick",
    show_default=True, help="A few packages; all that have music; all.",
)  # fmt: skip
def fetch(target: Path, packages: str | None, name: str) -> None:
    """Download packages into TARGET and write TARGET/corpus.csv.

    What is there already is not fetched again. The set quick is 0.3 GB to download; train is
    several, of which 2.6 GB are kept.

    \b
    Then: earmark train siamese --corpus TARGET/corpus.csv --out runs/fingerprint
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise click.ClickException(f"{tool} is needed: run this on Debian or Ubuntu")
    listed = read_list()
    chosen = packages.split(",") if packages else choose_packages(listed, name)
    if unknown := [p for p in chosen if p not in listed]:
        raise click.BadParameter(
            f"not in {LIST.name}: {', '.join(unknown)}", param_hint="--packages"
        )
    target.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, package in enumerate(chosen, 1):
        try:
            missing = fetch_package(package, listed[package], target)
        except click.ClickException as error:
            failed.append(package)
            click.echo(f"[{number}/{len(chosen)}] {package}: {error.message}", err=True)
            continue
        note = f", {len(missing)} not in this version" if missing else ""
        click.echo(f"[{number}/{len(chosen)}] {package}: {len(listed[package])} files{note}")
    total = write_corpus(target, listed)
    table = Table("Role", "Split", "Hours")
    for (role, split), seconds in sorted(total.items()):
        table.add_row(role, split, f"{seconds / 3600:.2f}")
    click.echo(f"In {target / 'corpus.csv'}:")
    Console().print(table)
    if failed:
        raise click.ClickException(f"could not be fetched: {', '.join(failed)}")


@cli.command("packages")
def list_packages() -> None:
    """List the packages with their files by role and split."""
    table = Table("Package", "Files")
    for package, entries in sorted(read_list().items()):
        counts = Counter((e.role, e.split) for e in entries)
        table.add_row(package, ", ".join(f"{n} {r} {s}" for (r, s), n in sorted(counts.items())))
    Console().print(table)


if __name__ == "__main__":
    cli()
