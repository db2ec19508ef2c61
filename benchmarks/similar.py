"""How long a search for similar sounds takes in a catalog of many windows.

Ingests the folders, or takes a catalog as it is, and repeats the embeddings of a column, a little
changed each time, until there are as many windows as asked for; builds the index of them, and
searches it with clips of real recordings: from the path of a clip to ranked regions, decoding and
embedding included, in one process on one core. Exact search says how good the answers are.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from _common import cache_option, json_option, report

from encoders.features import FeatureSpec
from index.catalog import Catalog, part_name
from index.column_index import ColumnIndex
from index.similar import SimilarSounds
from pipelines.inputs import local_path

_ROWS_PER_RECORDING = 240
# Two windows of one kind of sound are about so alike.
_SPREAD = 0.6


def write_many(source: Catalog, column: str, n_windows: int, folder: Path, seed: int) -> Catalog:
    """A catalog of ``n_windows`` windows, like those of a column of ``source``.

    It has the same encoders; what is not the column is zero.
    """
    index = ColumnIndex.open(source, column)
    base = index.vectors[index.vectors.any(axis=1)].astype(np.float32)
    scaling = index.info.scaling
    further = {n: e for n, e in source.config.columns.items() if n == index.info.column}
    config = dataclasses.replace(source.config, columns=further)
    catalog = Catalog.create(folder, config)
    rng = np.random.default_rng(seed)
    n_recordings = n_windows // _ROWS_PER_RECORDING
    with catalog.writer_lock(), contextlib.ExitStack() as stack:
        # Makes the folder of the column too.
        catalog.clean()
        writer = stack.enter_context(catalog.part_writer())
        rows = []
        for number in range(n_recordings):
            vectors = base[rng.integers(len(base), size=_ROWS_PER_RECORDING)]
            noise = rng.normal(size=vectors.shape).astype(np.float32) / vectors.shape[1] ** 0.5
            raw = (vectors + _SPREAD * noise) * scaling.deviation + scaling.mean
            name, vectors = f"{number:032x}", raw[:, : scaling.dim]
            stored = {index.info.column: vectors, "mfcc": raw[:, scaling.dim :]}
            writer.write_windows(
                _batch(config.windows_schema, config.spec, stored, name),
                {n: _batch(s, config.spec, {"embedding": vectors}, name)
                 for n, s in config.column_schemas.items()},
            )  # fmt: skip
            rows.append(_row(config.spec, number))
        name = part_name(catalog.next_run(), config, ["benchmark", n_windows, seed])
        writer.commit(name, pa.Table.from_pylist(rows, schema=config.recordings_schema))
    return catalog


def _batch(
    schema: pa.Schema, spec: FeatureSpec, stored: dict[str, np.ndarray], name: str
) -> pa.RecordBatch:
    n, arrays = _ROWS_PER_RECORDING, []
    for field in schema:
        if field.name == "recording_id":
            arrays.append(pa.array([name] * n))
        elif field.name == "start_sample":
            arrays.append(pa.array(np.arange(n) * spec.window_hop))
        elif field.name == "peak_db":
            arrays.append(pa.array(np.zeros(n, np.float32)))
        else:
            width = field.type.list_size
            values = stored.get(field.name, np.empty(0))
            values = values if values.size else np.zeros((n, width), np.float32)
            flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, width))
    return pa.RecordBatch.from_arrays(
        [a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema
    )


def _row(spec: FeatureSpec, number: int) -> dict[str, Any]:
    return {
        "uri": f"made/{number:08d}.wav",
        "recording_id": f"{number:032x}",
        "seconds_decoded": _ROWS_PER_RECORDING * spec.window_hop / spec.sample_rate + 0.5,
        "n_windows": _ROWS_PER_RECORDING,
        "status": "ok",
    }


def measure(sounds: SimilarSounds, clips: list[Path], top: int) -> dict[str, Any]:
    """Times of whole searches and of the search alone, and how many of the best are found."""
    whole, cpu, alone, shared = [], [], [], []
    for clip in clips[:3]:
        sounds.find(clip, top=top)
    for clip in clips:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        sounds.find(clip, top=top)
        whole.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
        queries = sounds.query_vectors(sounds.encoder.load(clip))
        begin = time.perf_counter()
        found = sounds.regions(queries, top)
        alone.append(time.perf_counter() - begin)
        shared.append(_recall(sounds.index, queries, [r.recording for r in found], top))
    return {
        "p50_ms": 1000 * float(np.percentile(whole, 50)),
        "p99_ms": 1000 * float(np.percentile(whole, 99)),
        "cpu_p50_ms": 1000 * float(np.percentile(cpu, 50)),
        "search_p50_ms": 1000 * float(np.percentile(alone, 50)),
        "recall": float(np.mean(shared)),
        "n_clips": len(whole),
    }


def _recall(index: ColumnIndex, queries: np.ndarray, found: list[int], top: int) -> float:
    best = np.empty(index.info.n_rows, np.float32)
    for start in range(0, len(best), 65_536):
        chunk = index.vectors[start : start + 65_536].astype(np.float32)
        best[start : start + len(chunk)] = (chunk @ queries.T).max(axis=1)
    by_recording = np.maximum.reduceat(best, index.first_rows)
    exact = np.argsort(-by_recording)[:top]
    return len(set(exact.tolist()) & set(found)) / top


@click.command(help=__doc__)
@click.argument("catalog_dir", metavar="CATALOG",
                type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.option("--windows", default=1_000_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--clips", "n_clips", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--encoder", default="vae", show_default=True, metavar="NAME",
              help="Column: vae, fingerprint, or a further one such as event.")  # fmt: skip
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@cache_option
@json_option
def main(
    catalog_dir: Path,
    windows: int,
    n_clips: int,
    encoder: str,
    top: int,
    seed: int,
    cache: Path,
    json_path: Path | None,
) -> None:
    source = Catalog.open(catalog_dir)
    folder = cache / f"similar-{encoder}-{windows}-{seed}-{source.content_key}"
    if not Catalog.exists(folder) or not Catalog.open(folder).parts():
        cache.mkdir(parents=True, exist_ok=True)
        write_many(source, encoder, windows, folder, seed)
    begin = time.perf_counter()
    sounds = SimilarSounds(folder, encoder)
    opened = time.perf_counter() - begin
    rows = source.recordings(["uri", "seconds_decoded", "status"]).to_pylist()
    usable = [
        path
        for row in rows
        if row["status"] == "ok" and 0.3 <= row["seconds_decoded"] <= 5
        for path in [local_path(row["uri"])]
        if path is not None
    ]
    chosen = np.random.default_rng(seed).permutation(len(usable))[: n_clips + 20]
    clips = [usable[i] for i in chosen][:n_clips]
    figures = measure(sounds, clips, top)
    info = sounds.index.info
    report(
        f"{figures['n_clips']} clips of 0.3 to 5 s, {info.n_rows:,} windows of {info.encoder.dim} "
        f"numbers ({info.factory}, {info.nprobe} lists probed), column {info.column}, one core",
        ["Similar", "Figure"],
        [
            ["From path to regions, p50", f"{figures['p50_ms']:.1f} ms"],
            ["From path to regions, p99", f"{figures['p99_ms']:.1f} ms"],
            ["From path to regions, p50 of CPU time", f"{figures['cpu_p50_ms']:.1f} ms"],
            ["Search alone, p50", f"{figures['search_p50_ms']:.1f} ms"],
            [f"Of the exact best {top}, found", f"{figures['recall']:.1%}"],
            ["Opening the catalog, or building its index", f"{opened:.1f} s"],
        ],
        {"windows": info.n_rows, "index": info.factory, "nprobe": info.nprobe, **figures},
        json_path,
    )


if __name__ == "__main__":
    main()
