"""How long identifying a clip takes, warm and cold.

Ingests the folders once (or takes a catalog as it is), cuts clips from what is in it at random,
adds a little noise and writes them as 44.1 kHz stereo ogg, mp3 and wav. Warm: one process that
holds the catalog open, on one core, from the path of a clip to its matches, decoding included.
Cold: the command ``earmark identify`` as a new process, on all cores.

With ``--peer`` audfprint (docs/peers.md) is asked for the same clips on the same core: what all of
them take less what one takes, so that its start and the reading of its table do not count.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import json
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
from _common import (
    audio_files,
    cache_option,
    choose_hours,
    earmark,
    encoder_option,
    json_option,
    precision_option,
    report,
    run_measured,
    vae_option,
)

from encoders.audio import load_audio, open_audio
from encoders.degrade import add_noise, colored_noise
from index.catalog import Catalog
from index.identify import Identifier
from pipelines.evaluate.references import catalog_key
from pipelines.inputs import local_path
from pipelines.peers import Answer, Audfprint

CLIP_RATE = 44_100
SNR_DB = 10.0
FORMATS = {
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
}
STAGES = ("decode", "features", "encode", "search", "match")


class Clip(NamedTuple):
    """A clip on disk, and where it is from."""

    path: Path
    recording_id: str
    start_s: float


def prepare_catalog(
    sources: Sequence[Path], hours: float, cache: Path, encoder: str, vae: str, precision: str
) -> Path:
    """The catalog that is given, or one of ``hours`` of the folders that are."""
    if len(sources) == 1 and Catalog.exists(sources[0]):
        return sources[0]
    files = choose_hours(audio_files(sources, 30.0), hours)
    if not files:
        raise click.ClickException("no audio of half a minute or more in these folders")
    uris = [str(f.path.resolve()) for f in files]
    path = cache / f"identify-{catalog_key(uris, encoder, vae, precision)}"
    cache.mkdir(parents=True, exist_ok=True)
    # A manifest: the files are too many for a command line.
    manifest = cache / f"{path.name}.jsonl"
    manifest.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    options = ["--encoder", encoder, "--vae", vae, "--precision", precision]
    run_measured(earmark("ingest", manifest, "--catalog", path, *options))
    return path


def make_clips(catalog: Catalog, folder: Path, n: int, seconds: float, seed: int) -> list[Clip]:
    """Cut ``n`` clips from the files of a catalog, and write them in turn as ogg, mp3 and wav."""
    columns = ["uri", "recording_id", "seconds_decoded", "status"]
    rows = [
        row
        for row in catalog.recordings(columns).to_pylist()
        if row["status"] == "ok" and row["seconds_decoded"] > seconds + 1 and local_path(row["uri"])
    ]
    if not rows:
        raise click.ClickException(f"no recording in the catalog is longer than {seconds:g} s")
    rng = np.random.default_rng(seed)
    clips = []
    for number in range(n):
        row = rows[int(rng.integers(len(rows)))]
        start = float(rng.uniform(0, row["seconds_decoded"] - seconds - 0.5))
        signal = excerpt(Path(local_path(row["uri"]) or ""), start, seconds)
        noise = colored_noise(len(signal), 1.0, rng)
        heard = add_noise(signal, noise, SNR_DB)
        heard *= np.float32(0.8 / max(float(np.abs(heard).max()), 1e-6))
        suffix, form = list(FORMATS.items())[number % len(FORMATS)]
        path = folder / f"clip-{number:03d}.{suffix}"
        with soundfile.SoundFile(path, "w", CLIP_RATE, 2, **form) as out:
            # libsndfile's vorbis encoder overflows the stack on large blocks.
            for at in range(0, len(heard), 8192):
                out.write(np.stack([heard[at : at + 8192]] * 2, axis=1))
        clips.append(Clip(path, row["recording_id"], start))
    return clips


def excerpt(path: Path, start_s: float, seconds: float) -> np.ndarray:
    """A stretch of a file, mono at ``CLIP_RATE``."""
    first, last = round(start_s * CLIP_RATE), round((start_s + seconds) * CLIP_RATE)
    blocks, n = [], 0
    with open_audio(path, CLIP_RATE) as stream:
        for block in stream.blocks():
            blocks.append(block[max(0, first - n) :])
            n += len(block)
            if n >= last:
                break
    return np.concatenate(blocks)[: last - first]


class Stopwatch:
    """Times the parts of :meth:`Identifier.identify` from outside.

    Parameters
    ----------
    identifier : Identifier
        Its encoder and index are wrapped while :meth:`running`.
    """

    def __init__(self, identifier: Identifier) -> None:
        self.identifier = identifier
        self.taken: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the CPU time spent in the encoder and in the index."""
        encode, search = self.identifier.bundle.encode, self.identifier.index.search

        def timed(name: str, function: Any) -> Any:
            def call(*args: Any) -> Any:
                begin = time.process_time()
                result = function(*args)
                self.taken[name] += time.process_time() - begin
                return result

            return call

        self.identifier.bundle.encode = timed("encode", encode)  # type: ignore[method-assign]
        self.identifier.index.search = timed("search", search)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.identifier.bundle.encode, self.identifier.index.search

    def split(self, path: Path) -> dict[str, float]:
        """CPU seconds of every stage of one clip."""
        self.taken.clear()
        rate = self.identifier.spec.sample_rate
        begin = time.process_time()
        signal = load_audio(path, rate)
        decoded = time.process_time()
        with self.running():
            self.identifier.fingerprint([signal], coarse=True)
            features = time.process_time() - decoded - self.taken["encode"]
            self.taken.clear()
            begin_all = time.process_time()
            self.identifier.candidates([signal])
            in_all = time.process_time() - begin_all
        encoded, searched = self.taken["encode"], self.taken["search"]
        return {
            "decode": decoded - begin,
            "features": features,
            "encode": encoded,
            "search": searched,
            "match": in_all - features - encoded - searched,
        }


def measure_warm(identifier: Identifier, clips: Sequence[Clip], repeats: int) -> dict[str, Any]:
    """Decode alone, the whole and its stages, clip by clip in turn."""
    rate = identifier.spec.sample_rate
    stopwatch = Stopwatch(identifier)
    wall, cpu, decode, ratios = [], [], [], []
    stages: dict[str, list[float]] = defaultdict(list)
    n_right = 0
    for clip in clips[:3]:
        identifier.identify(clip.path)
    for repeat in range(repeats):
        for clip in clips:
            begin = time.perf_counter()
            load_audio(clip.path, rate)
            decode.append(time.perf_counter() - begin)
            begin, begin_cpu = time.perf_counter(), time.process_time()
            matches = identifier.identify(clip.path)
            wall.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - begin_cpu)
            ratios.append(wall[-1] / decode[-1])
            for stage, taken in stopwatch.split(clip.path).items():
                stages[stage].append(taken)
            if repeat == 0 and matches:
                n_right += matches[0].recording_id == clip.recording_id
    return {
        "p50_ms": 1000 * float(np.percentile(wall, 50)),
        "mean_ms": 1000 * statistics.fmean(wall),
        "p99_ms": 1000 * float(np.percentile(wall, 99)),
        "cpu_p50_ms": 1000 * float(np.percentile(cpu, 50)),
        "decode_alone_p50_ms": 1000 * statistics.median(decode),
        "ratio_to_decode": statistics.median(ratios),
        "stages_p50_ms": {s: 1000 * statistics.median(stages[s]) for s in STAGES},
        "n_measured": len(wall),
        "n_right": n_right,
    }


def measure_cold(catalog: Path, clip: Path, encoder: str, runs: int) -> dict[str, float]:
    """A new ``earmark identify`` process each time."""
    arguments = ["--encoder", encoder, "--format", "jsonl"]
    used = [run_measured(earmark("identify", catalog, clip, *arguments)) for _ in range(runs)]
    return {
        "wall_s": statistics.median(u.wall_s for u in used),
        "cpu_s": statistics.median(u.cpu_s for u in used),
        "peak_rss_mb": max(u.peak_rss_mb for u in used),
    }


def measure_peer(catalog: Catalog, clips: Sequence[Clip], cache: Path) -> dict[str, float]:
    """Seconds that audfprint takes for a clip; its data base of the catalog's files is kept."""
    rows = catalog.recordings(["uri", "recording_id", "status"]).to_pylist()
    rows = [row for row in rows if row["status"] == "ok" and local_path(row["uri"])]
    references = [Path(local_path(row["uri"]) or "") for row in rows]
    known = {str(path): row["recording_id"] for path, row in zip(references, rows, strict=True)}
    peer = Audfprint()
    peer.index(references, cache / "peers")
    paths = [clip.path for clip in clips]
    # The first time its table comes from the disk.
    peer.query(paths[:1])
    one, _ = _timed_query(peer, paths[:1])
    every, answers = _timed_query(peer, paths)
    right = (
        a.accepted and known[a.reference or ""] == clip.recording_id
        for a, clip in zip(answers, clips, strict=True)
    )
    wall, cpu = ((many - few) / (len(clips) - 1) for many, few in zip(every, one, strict=True))
    return {"wall_s": wall, "cpu_s": cpu, "start_s": one[0] - wall, "n_right": sum(right)}


def _timed_query(
    peer: Audfprint, paths: Sequence[Path]
) -> tuple[tuple[float, float], list[Answer]]:
    # Wall and CPU time of its processes.
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    answers = peer.query(paths)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (wall, cpu), answers


def pin_to_one_core() -> int | None:
    """Run on one core from here on; None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@click.command(help=__doc__)
@click.argument(
    "sources", metavar="CATALOG|FOLDER...", nargs=-1, required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)  # fmt: skip
@click.option("--hours", default=12.0, show_default=True, help="To ingest from the folders.")
@click.option("--clips", "n_clips", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=10.0, show_default=True, help="Length of the clips.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--cold-runs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--peer", is_flag=True, help="Compare with audfprint on the same files.")
@encoder_option
@vae_option
@precision_option
@cache_option
@json_option
def main(
    sources: tuple[Path, ...],
    hours: float,
    n_clips: int,
    seconds: float,
    repeats: int,
    cold_runs: int,
    seed: int,
    peer: bool,
    encoder: str,
    vae: str,
    precision: str,
    cache: Path,
    json_path: Path | None,
) -> None:
    if peer and (n_clips < 2 or not Audfprint.is_installed()):
        raise click.UsageError("--peer takes two clips, audfprint2 and ffmpeg (docs/peers.md)")
    path = prepare_catalog(sources, hours, cache, encoder, vae, precision)
    catalog = Catalog.open(path)
    in_hours = sum(catalog.recordings(["seconds_decoded"])["seconds_decoded"].to_pylist()) / 3600
    with tempfile.TemporaryDirectory() as scratch:
        clips = make_clips(catalog, Path(scratch), n_clips, seconds, seed)
        cold = measure_cold(path, clips[0].path, encoder, cold_runs)
        core = pin_to_one_core()
        identifier = Identifier(path, encoder)
        warm = measure_warm(identifier, clips, repeats)
        other = measure_peer(catalog, clips, cache) if peer else None
    rows = [
        ["Warm, p50", f"{warm['p50_ms']:.1f} ms"],
        ["Warm, p99", f"{warm['p99_ms']:.1f} ms"],
        ["Warm, p50 of CPU time", f"{warm['cpu_p50_ms']:.1f} ms"],
        *([f"  of it {s}", f"{ms:.1f} ms"] for s, ms in warm["stages_p50_ms"].items()),
        ["Decoding alone, p50", f"{warm['decode_alone_p50_ms']:.1f} ms"],
        ["Ratio to decoding alone", f"{warm['ratio_to_decode']:.2f} ×"],
        ["Cold, new process", f"{cold['wall_s']:.2f} s ({cold['cpu_s']:.2f} CPU s)"],
        ["Cold, peak memory", f"{cold['peak_rss_mb']:.0f} MB"],
        ["Right, at default threshold", f"{warm['n_right']} of {n_clips}"],
    ]
    if other is not None:
        rows += [
            ["audfprint, a clip", f"{1000 * other['wall_s']:.0f} ms"],
            ["  against warm", f"{1000 * other['wall_s'] / warm['mean_ms']:.1f} ×"],
            ["  of it CPU time", f"{1000 * other['cpu_s']:.0f} ms"],
            ["  start and table, once", f"{other['start_s']:.1f} s"],
            ["  right, at its threshold", f"{other['n_right']} of {n_clips}"],
        ]
    where = "no core pinned" if core is None else "one core"
    info = identifier.index.info
    report(
        f"{n_clips} clips of {seconds:g} s, {in_hours:.1f} h, {info.n_rows:,} windows "
        f"({info.factory}), {identifier.bundle.precision}, {where}",
        ["Identify", "Time"],
        rows,
        {
            "hours": in_hours,
            "index": info.factory,
            "windows": info.n_rows,
            "precision": identifier.bundle.precision,
            "clip_seconds": seconds,
            "core": core,
            "warm": warm,
            "cold": cold,
            "audfprint": other,
        },
        json_path,
    )


if __name__ == "__main__":
    main()
