"""What it costs to add a hundredth to an index, and to remove a recording, beside building it.

Works on a copy of the catalog: builds the index of all but the last parts, puts those back and
brings the index up to date, then removes the longest recording.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from _common import json_option, report

from index.build import build_index
from index.catalog import Catalog
from index.generation import GenerationInfo
from index.removal import find_recordings, remove_recordings
from index.update import update_index


def take_parts(catalog: Catalog, share: float, aside: Path) -> list[str]:
    """Move the last parts that hold at least a share of the windows out of a catalog."""
    rows = catalog.all_rows()
    n_windows, part = rows["n_windows"].to_numpy(), rows["part"].to_numpy()
    names, taken = catalog.parts(), 0
    for first in range(len(names) - 1, 0, -1):
        taken += int(n_windows[part == first].sum())
        if taken >= share * n_windows.sum():
            break
    for name in names[first:]:
        shutil.move(catalog.path / "recordings" / name, aside / name)
    return names[first:]


def measure(catalog: Catalog, work: Callable[[Catalog], GenerationInfo]) -> dict[str, Any]:
    """Seconds of some work on the index, and the bytes of the files that it made or added to."""
    before = _files(catalog)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    info = work(catalog)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    written = sum(size - before.get(file, 0) for file, size in _files(catalog).items())
    return {
        "cpu_s": cpu, "wall_s": seconds, "written_mb": written / 1e6, "windows": info.n_rows,
        "segments": len(info.segments), "factory": info.factory,
    }  # fmt: skip


def _files(catalog: Catalog) -> dict[int, int]:
    folder = catalog.current_generation()
    stats = [path.stat() for path in folder.iterdir()] if folder else []
    return {stat.st_ino: stat.st_size for stat in stats}


def grow(source: Path, share: float, folder: Path) -> dict[str, dict[str, Any]]:
    """Build, add and remove, on a copy in ``folder``."""
    path, aside = folder / "catalog", folder / "aside"
    ignored = shutil.ignore_patterns("index", ".lock")
    shutil.copytree(source, path, ignore=ignored, copy_function=shutil.copyfile)
    aside.mkdir()
    catalog = Catalog.open(path)
    names = take_parts(catalog, share, aside)
    figures = {"build": measure(catalog, build_index)}
    for name in names:
        shutil.move(aside / name, path / "recordings" / name)
    figures["add"] = measure(catalog, update_index)
    longest = catalog.indexed_recordings().sort_by([("n_windows", "descending")])
    remove_recordings(catalog, find_recordings(catalog, [longest["uri"][0].as_py()]))
    figures["remove"] = measure(catalog, update_index)
    return figures


@click.command(help=__doc__)
@click.argument("catalog_dir", metavar="CATALOG", type=click.Path(exists=True, path_type=Path))
@click.option("--share", default=0.01, show_default=True, help="Of the windows, to be added.")
@json_option
def main(catalog_dir: Path, share: float, json_path: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=catalog_dir.parent) as scratch:
        figures = grow(catalog_dir, share, Path(scratch))
    build = figures["build"]
    rows = [
        [
            name,
            f"{f['windows']:,}",
            f"{f['cpu_s']:.2f} s",
            f"{f['cpu_s'] / build['cpu_s']:.1%}",
            f"{f['wall_s']:.2f} s",
            f"{f['written_mb']:.2f} MB",
        ]
        for name, f in figures.items()
    ]
    report(
        f"{build['factory']}, {share:.1%} added, the longest recording removed",
        ["Work", "Windows after", "CPU", "Of building", "Wall", "Written"],
        rows,
        figures,
        json_path,
    )


if __name__ == "__main__":
    main()
