"""How the index scales: time, memory and recall of search in 0.1, 1 and 10 million windows.

Takes a catalog of real audio, and clips cut from it with noise added. Where more windows are
wanted than it holds, they are made of its own: every further copy of all of them is reflected in
half of their principal axes, chosen at random, and so are the clips that belong to it. Reflections
change no similarity within a copy or between it and its clips, nor the second moments of the
whole, but one copy is not found for another. The first table shows how true that is: real windows
beside as many that are made from a quarter of them.

Search is measured in one thread on one core; index and row store are memory-mapped. The floor is
the time that reading takes at the memory's full speed: of the centroids, of the lists that are
looked into, and of the rows that are compared in full.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import dataclasses
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from _collection import Clip, Collection, make_clips, read_collection
from _common import cache_option, encoder_option, json_option, report, run_measured
from identify import SNR_DB, pin_to_one_core

from encoders.features import FeatureSpec
from encoders.signs import sign_shape
from index.build import index_rows, row_table
from index.catalog import Catalog
from index.nearest import Inverted
from index.policy import IndexKind, from_factory
from index.row_store import RowWriter
from index.search import FingerprintIndex

K = 20
"""Neighbours asked for, as identification does."""

_CHUNK = 65_536
_TOLERANCE = 2e-3


def build(
    collection: Collection, n_windows: int, folder: Path, kind: IndexKind | None
) -> dict[str, float]:
    """Build the index of a collection in ``folder``; gives the CPU seconds of each step."""
    known = folder.with_name(f"{folder.name}.json")
    if known.exists():
        return dict(json.loads(known.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts: defaultdict[int, int] = defaultdict(int)
    cpu = {"Making windows": time.process_time()}
    signs = sign_shape(FeatureSpec())
    with RowWriter(folder, collection.vectors.shape[1], signs) as writer:
        for vectors, recordings in collection.blocks(n_windows):
            # They take their room, but nothing here looks at them.
            writer.append(vectors, np.zeros((len(vectors), *signs), np.uint32))
            for number, n in zip(*np.unique(recordings, return_counts=True), strict=True):
                counts[int(number)] += int(n)
    names = pa.array([f"recording {number}" for number in counts])
    table = {
        "recording_id": names,
        "uri": names,
        "seconds": pa.array([0.5 * (n + 1) for n in counts.values()]),
        "n_windows": pa.array(list(counts.values())),
        "labels": pa.nulls(len(names), pa.map_(pa.string(), pa.string())),
    }
    began, last = time.process_time(), ""
    cpu["Making windows"] = began - cpu["Making windows"]

    def progress(step: str, done: int, total: int) -> None:
        nonlocal last
        if step != last:
            click.echo(f"{time.strftime('%X')} {folder.name}: {step} {total:,}", err=True)
        last = step
        if done == total:
            cpu[step] = time.process_time() - began - sum(list(cpu.values())[1:])

    index_rows(folder, writer, row_table(pa.table(table)), "", kind, progress)
    cpu["Writing and checking"] = time.process_time() - began - sum(list(cpu.values())[1:])
    known.write_text(json.dumps(cpu))
    return cpu


def exact(
    vectors: np.ndarray, queries: np.ndarray, recordings: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What comparing everything finds.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n_windows, dim)]
    queries : np.ndarray [shape=(n, dim)]
    recordings : np.ndarray [shape=(n_windows,)]
    own : np.ndarray [shape=(n,)]
        The recording that each query is from.

    Returns
    -------
    best, others : np.ndarray [shape=(n,)]
        The best score, and the best of another recording.
    found : np.ndarray [shape=(n,)]
        Recording of the best.
    """
    best, others = (np.full(len(queries), -np.inf, np.float32) for _ in range(2))
    found, lines = np.full(len(queries), -1), np.arange(len(queries))
    for start in range(0, len(vectors), _CHUNK):
        chunk = vectors[start : start + _CHUNK].astype(np.float32)
        numbers = recordings[start : start + _CHUNK]
        scores = queries @ chunk.T
        places = scores.argmax(axis=1)
        better = scores[lines, places] > best
        best = np.where(better, scores[lines, places], best)
        found = np.where(better, numbers[places], found)
        first, last = (np.searchsorted(numbers, own, side=side) for side in ("left", "right"))
        for i in np.flatnonzero(last > first):
            scores[i, first[i] : last[i]] = -np.inf
        np.maximum(others, scores.max(axis=1), out=others)
    return best, others, found


def measure_recall(index: FingerprintIndex, clips: Sequence[Clip], most: int) -> dict[str, float]:
    """Recall against exact search, and what exact search is worth."""
    queries = np.concatenate([clip.queries for clip in clips])
    own = np.concatenate([np.full(len(clip.queries), clip.recording) for clip in clips])
    chosen = np.random.default_rng(0).permutation(len(queries))[:most]
    queries, own = queries[chosen], own[chosen]
    recordings = index.recording_of(np.arange(len(index.vectors)))
    best, others, found = exact(index.vectors, queries, recordings, own)
    scores, rows = index.search(queries, K)
    return {
        "recall": float(np.mean(scores[:, 0] >= best - _TOLERANCE)),
        "right": float(np.mean(index.recording_of(rows[:, 0]) == own)),
        "right_exact": float(np.mean(found == own)),
        "similarity": float(np.median(best)),
        "similarity_others": float(np.median(others)),
        "similarity_others_p90": float(np.percentile(others, 90)),
        "n_queries": len(queries),
    }


def measure_time(search: Callable[[np.ndarray], Any], batches: Sequence[np.ndarray]) -> np.ndarray:
    """Wall and CPU milliseconds of each batch of queries [shape=(2, n)], the second time round."""
    for queries in batches:
        search(queries)
    taken = []
    for queries in batches:
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        search(queries)
        taken.append((time.perf_counter() - begin, time.thread_time() - begin_cpu))
    return 1000 * np.array(taken).T


def bandwidth() -> float:
    """Bytes a second that one core reads from memory, at best."""
    block = np.ones(64 << 20, np.float32)
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        np.dot(block, block)
        seconds.append(time.perf_counter() - begin)
    return block.nbytes / min(seconds)


def bytes_read(index: FingerprintIndex, queries: np.ndarray) -> float:
    """Bytes of centroids, codes and rows that a search of these queries goes through."""
    dim, kind = index.info.dim, index.info.kind
    if kind.is_flat:
        return index.info.n_vectors * dim * 4
    nearest = index._nearest
    assert isinstance(nearest, Inverted)
    total = len(queries) * K * kind.rerank * dim * 2
    n_lists = nearest.lists_searched(queries, K)
    for lists in nearest._segments:
        _, probed = lists.quantizer.search(queries, kind.nprobe)
        sizes = np.array([lists.invlists.list_size(i) for i in range(lists.nlist)])[probed]
        read = sizes[np.arange(kind.nprobe) < n_lists[:, None]].sum()
        total += lists.nlist * dim * 4 + int(read) * lists.code_size
    return float(total)


_COLD = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from index.search import FingerprintIndex
folder = Path(sys.argv[1])
total = 0
for path in folder.iterdir():
    with path.open("rb") as file:
        total += os.fstat(file.fileno()).st_size
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
def read():
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])
def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
before, memory, begin = read(), resident(), time.perf_counter()
index = FingerprintIndex(folder)
opened = time.perf_counter() - begin
index.search(np.load(sys.argv[2]), 20)
answered = time.perf_counter() - begin
print(json.dumps({"open_s": opened, "answer_s": answered, "read_mb": (read() - before) / 1e6,
                  "resident_mb": (resident() - memory) / 1e6, "total_mb": total / 1e6}))
"""


def measure_cold(folder: Path, queries: np.ndarray) -> dict[str, float]:
    """Open an index in a new process, nothing of it in memory, and put one clip to it."""
    path = folder.with_name(f"{folder.name}-clip.npy")
    np.save(path, queries)
    used = run_measured([sys.executable, "-c", _COLD, str(folder), str(path)])
    return dict(json.loads(used.output))


def measure(
    collection: Collection,
    clips: Sequence[Clip],
    n_windows: int,
    folder: Path,
    speed: float,
    kind: IndexKind | None = None,
) -> dict[str, Any]:
    """All figures of one size."""
    if n_windows < len(collection.vectors):
        collection = collection.first(n_windows)
    cpu = build(collection, n_windows, folder, kind)
    index = FingerprintIndex(folder)
    moved = collection.spread(clips, n_windows)
    most = max(500, min(4000, 1_500_000_000 // n_windows))
    figures: dict[str, Any] = {"windows": n_windows, "factory": index.info.factory}
    figures |= {"nprobe": index.info.kind.nprobe, "rerank": index.info.kind.rerank}
    figures |= measure_recall(index, moved, most)
    figures["build_cpu_s"] = {step: s for step, s in cpu.items() if step != "Making windows"}
    if not index.info.kind.is_flat:
        queries = np.concatenate([clip.queries for clip in moved[:40]])
        figures["lists"] = float(index._nearest.lists_searched(queries, K).mean())  # type: ignore
    figures["recall_between"] = index.info.recall
    figures["bytes_per_window"] = index.info.bytes_per_window
    singles = [clip.queries[i : i + 1] for clip in moved for i in (0, len(clip.queries) // 2)]
    for name, batches in (("query", singles), ("clip", [clip.queries for clip in moved])):
        wall, used = measure_time(lambda queries: index.search(queries, K), batches)
        floor = 1000 * float(np.median([bytes_read(index, q) for q in batches[:20]])) / speed
        figures[name] = {
            "p50_ms": float(np.percentile(wall, 50)),
            "p99_ms": float(np.percentile(wall, 99)),
            "cpu_p50_ms": float(np.percentile(used, 50)),
            "cpu_p99_ms": float(np.percentile(used, 99)),
            "floor_ms": floor,
            "ratio": float(np.percentile(used, 50)) / floor,
        }
    figures["cold"] = measure_cold(folder, moved[0].queries)
    return figures


def fidelity(
    collection: Collection, clips: Sequence[Clip], n_windows: int, cache: Path, speed: float
) -> list[dict[str, Any]]:
    """The same figures of real windows, and of as many made from a quarter of them."""
    real, quarter = collection.first(n_windows), collection.first(n_windows // 4)
    n = len(real.vectors)
    return [
        measure(real, clips, n, cache / f"search-real-{n}", speed),
        measure(quarter, clips, n, cache / f"search-made-{n}", speed),
    ]


@click.command(help=__doc__)
@click.argument("catalog_dir", metavar="CATALOG", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--windows", "sizes", multiple=True, type=click.IntRange(min=1000),
    default=(100_000, 1_000_000, 10_000_000), show_default=True,
)  # fmt: skip
@click.option("--clips", "n_clips", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=10.0, show_default=True, help="Length of the clips.")
@click.option("--factory", metavar="STRING", help="FAISS factory string.  [default: by size]")
@click.option("--probes", type=click.IntRange(min=1), help="With --factory: lists looked into.")
@encoder_option
@cache_option
@json_option
def main(
    catalog_dir: Path,
    sizes: tuple[int, ...],
    n_clips: int,
    seconds: float,
    factory: str | None,
    probes: int | None,
    encoder: str,
    cache: Path,
    json_path: Path | None,
) -> None:
    catalog = Catalog.open(catalog_dir)
    collection, uris = read_collection(catalog)
    clips = make_clips(catalog, encoder, collection, uris, n_clips, seconds, cache)
    pin_to_one_core()
    speed = bandwidth()
    compared = fidelity(collection, clips, min(100_000, len(collection.vectors)), cache, speed)
    names = ("real", "made from a quarter")
    report(
        f"{compared[0]['windows']:,} windows, {compared[0]['factory']}",
        ["Windows", *names],
        [
            [title, *(f"{figures[key]:.3f}" for figures in compared)]
            for title, key in (
                ("Recall@1 against exact", "recall"),
                ("Right recording", "right"),
                ("Right recording, exact", "right_exact"),
                ("Similarity of the nearest, median", "similarity"),
                ("… in another recording, median", "similarity_others"),
                ("… in another recording, 9 of 10 below", "similarity_others_p90"),
            )
        ],
        {},
        None,
    )
    kind, suffix = None, ""
    if factory is not None:
        kind = from_factory(factory)
        kind = dataclasses.replace(kind, nprobe=probes or kind.nprobe)
        suffix = f"-{factory}-{kind.nprobe}"
    results = [
        measure(collection, clips, n, cache / f"search-{n}{suffix}", speed, kind) for n in sizes
    ]
    report(
        f"{n_clips} clips of {seconds:g} s with noise at {SNR_DB:g} dB, {K} neighbours; one core "
        f"reads {speed / 1e9:.1f} GB/s",
        ["Windows", *(f"{n:,}" for n in sizes)],
        _rows(results),
        {"bandwidth": speed, "fidelity": dict(zip(names, compared, strict=True)), "sizes": results},
        json_path,
    )


def _rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    def line(title: str, words: Callable[[dict[str, Any]], str]) -> list[str]:
        return [title, *(words(figures) for figures in results)]

    rows = [
        line("Audio", lambda f: f"{f['windows'] / 7200:,.0f} h"),
        line("Index", lambda f: f["factory"]),
        line("Lists looked into, mean; most", lambda f: f"{f.get('lists', 0):.0f}; {f['nprobe']}"),
        line("Build, CPU", lambda f: f"{sum(f['build_cpu_s'].values()):,.0f} s"),
    ]
    for step in ("Training on windows", "Indexing windows", "Writing and checking"):
        rows.append(line(f"  {step}", lambda f, s=step: f"{f['build_cpu_s'].get(s, 0):,.0f} s"))
    rows += [
        line("Bytes a window", lambda f: f"{f['bytes_per_window']:.1f}"),
        line("MB an audio hour", lambda f: f"{7200 * f['bytes_per_window'] / 1e6:.2f}"),
        line("Recall@1 against exact", lambda f: f"{f['recall']:.3f}"),
        line("  of places between windows", lambda f: f"{f['recall_between']:.3f}"),
        line("Right recording", lambda f: f"{f['right']:.3f}"),
        line("Right recording, exact", lambda f: f"{f['right_exact']:.3f}"),
    ]
    for name, title in (("query", "One query"), ("clip", "Clip")):
        for key in ("p50_ms", "p99_ms", "cpu_p50_ms", "cpu_p99_ms", "floor_ms"):
            words = key.removesuffix("_ms").replace("_", " ").replace("cpu", "CPU")
            rows.append(line(f"{title}, {words}", lambda f, n=name, k=key: f"{f[n][k]:.2f} ms"))
        rows.append(line(f"{title}, CPU p50 / floor", lambda f, n=name: f"{f[n]['ratio']:.1f} ×"))
    rows += [
        line("First answer of a new process", lambda f: f"{f['cold']['answer_s']:.2f} s"),
        line(
            "  read, of", lambda f: f"{f['cold']['read_mb']:.0f} of {f['cold']['total_mb']:.0f} MB"
        ),
        line("  resident", lambda f: f"{f['cold']['resident_mb']:.0f} MB"),
    ]
    return rows


if __name__ == "__main__":
    main()
