"""What ingest costs: CPU seconds per hour of audio beside decoding alone, and peak memory.

Takes an hour each of real vorbis and mp3 from FOLDER and measures, one after the other and several
times over: decoding alone to mono 16 kHz in one thread; the whole ingest, listing and index
included, with one thread and with one per core, and with the event encoder's column as well; and
audfprint (PyPI audfprint2, plain defaults) where it is installed. What the same command costs on
one second of audio, its start-up, is taken off and shown apart. Ratios are medians of the ratios
within one repeat.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import hashlib
import importlib.util
import io
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import av
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
    write_one_second,
)

from encoders.audio import open_audio
from encoders.features import mfcc_summary, stream_windows
from pipelines.evaluate.selection import measure_audio
from pipelines.ingest import IngestOptions, ingest
from pipelines.shard import load_encoders

T = TypeVar("T")

# Shorter files are mostly effects, where what a file costs by itself would count double.
LEAST_SECONDS = 30.0
LONG_RATE = 22_050


def choose_files(
    folders: Sequence[Path], hours: float, cache: Path
) -> tuple[dict[str, list[Path]], dict[str, float], list[str]]:
    """Vorbis and mp3 files of ``hours`` each; mp3 is made where there is too little.

    Returns
    -------
    paths : dict
        By format.
    seconds : dict
        By format.
    notes : list of str
        What a reader of the figures has to know.
    """
    files = list(audio_files(folders, LEAST_SECONDS))
    vorbis = choose_hours((f for f in files if f.info.codec == "vorbis"), hours)
    mp3 = choose_hours((f for f in files if f.info.codec == "mp3"), hours)
    paths = {"vorbis": [f.path for f in vorbis], "mp3": [f.path for f in mp3]}
    notes = []
    missing = 3600 * hours - sum(f.seconds for f in mp3)
    made = 0.0
    for file in vorbis:
        if made >= missing:
            break
        paths["mp3"].append(mp3_copy(file.path, cache))
        made += file.seconds
    if made:
        notes.append(f"{made / 3600:.2f} h of the mp3 are copies of the vorbis at 128 kbit/s")
    seconds = {n: sum(measure_audio(p)[1] for p in chosen) for n, chosen in paths.items()}
    notes += [f"only {s / 3600:.2f} h of {n}" for n, s in seconds.items() if s < 3600 * hours]
    return {n: p for n, p in paths.items() if p}, seconds, notes


def mp3_copy(path: Path, cache: Path) -> Path:
    """The same audio as mp3 at 128 kbit/s, made once."""
    cache.mkdir(parents=True, exist_ok=True)
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    copy = cache / f"{name}.mp3"
    if not copy.exists():
        partial = copy.with_suffix(".tmp")
        with av.open(str(path)) as source, av.open(str(partial), "w", format="mp3") as out:
            audio = source.streams.audio[0]
            # MPEG-1 and 2 know these rates and no more than two channels.
            rate = audio.rate if audio.rate in (44_100, 48_000, 32_000, 22_050, 24_000) else 44_100
            layout = "mono" if audio.codec_context.channels == 1 else "stereo"
            stream = out.add_stream("libmp3lame", rate=rate, layout=layout)
            stream.bit_rate = 128_000
            frame_size = stream.codec_context.frame_size or 1152
            resampler = av.AudioResampler("fltp", layout, rate, frame_size)
            for frame in source.decode(audio):
                frame.pts = None
                for piece in resampler.resample(frame):
                    out.mux(stream.encode(piece))
            for piece in resampler.resample(None):
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
        partial.replace(copy)
    return copy


def long_file(sources: Sequence[Path], seconds: float, cache: Path) -> Path:
    """Real audio, repeated to a length: mono vorbis, made once."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"long-{seconds:.0f}.ogg"
    if path.exists():
        return path
    partial, written = path.with_suffix(".tmp"), 0
    with soundfile.SoundFile(partial, "w", LONG_RATE, 1, format="OGG", subtype="VORBIS") as out:
        while written < seconds * LONG_RATE:
            for source in sources:
                with open_audio(source, LONG_RATE) as stream:
                    for block in stream.blocks():
                        left = round(seconds * LONG_RATE) - written
                        # libsndfile's vorbis encoder overflows the stack on large blocks.
                        for start in range(0, min(len(block), left), 8192):
                            out.write(block[start : min(start + 8192, left)])
                        written += min(len(block), left)
                if written >= seconds * LONG_RATE:
                    break
    partial.replace(path)
    return path


def cpu_of(action: Callable[..., object], *arguments: Any) -> float:
    """CPU seconds of all threads of this process."""
    begin = time.process_time()
    action(*arguments)
    return time.process_time() - begin


def decode_all(paths: Iterable[Path], sample_rate: int) -> int:
    """Decode alone, as ingest does; the samples that came out."""
    n_samples = 0
    for path in paths:
        with open_audio(path, sample_rate) as stream:
            n_samples += sum(map(len, stream.blocks()))
    return n_samples


def ingest_all(paths: Sequence[Path], options: IngestOptions) -> None:
    """The whole ingest, into a catalog that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        summary = ingest([str(p) for p in paths], Path(scratch) / "catalog", options, io.StringIO())
        if summary.failed or summary.ok + summary.partial != len(set(paths)):
            raise click.ClickException(f"ingest of the benchmark's files failed: {summary.reasons}")


def peer_cpu(paths: Sequence[Path]) -> float:
    """CPU seconds of ``audfprint new``, ffmpeg's included."""
    with tempfile.TemporaryDirectory() as scratch:
        database = str(Path(scratch) / "peer.db")
        command = [sys.executable, "-m", "audfprint2", "--dbase", database, "new"]
        return run_measured([*command, *map(str, paths)]).cpu_s


def measure(
    paths: Sequence[Path], one_second: Path, options: IngestOptions, repeats: int, peer: bool
) -> dict[str, list[float]]:
    """CPU seconds of every way, interleaved; those of ingest and peer without their start-up."""
    encoders = load_encoders(options.fingerprint, options.vae, options.precision or "int8")
    sample_rate = encoders.fingerprint.spec.sample_rate
    one_thread = IngestOptions(options.fingerprint, options.vae, options.precision, threads=1)
    ways = {
        "ingest": options,
        "ingest, 1 thread": one_thread,
        "ingest with the column event, 1 thread": dataclasses.replace(
            one_thread, encoders=f"vae={options.vae},event"
        ),
    }
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        taken["decode"].append(cpu_of(decode_all, paths, sample_rate))
        for name, settings in ways.items():
            fixed = cpu_of(ingest_all, [one_second], settings)
            whole = cpu_of(ingest_all, paths, settings)
            taken[name].append(whole - fixed)
            taken["fixed cost of a run"].append(fixed)
        if peer:
            taken["audfprint"].append(peer_cpu(paths) - peer_cpu([one_second]))
    return dict(taken)


def stages(paths: Sequence[Path], options: IngestOptions) -> dict[str, float]:
    """CPU seconds of the pure functions that ingest calls, one thread, file by file."""
    encoders = load_encoders(options.fingerprint, options.vae, options.precision or "int8")
    spec = encoders.fingerprint.spec
    taken: dict[str, float] = defaultdict(float)

    def timed(name: str, action: Callable[..., T], *arguments: Any) -> T:
        begin = time.thread_time()
        result = action(*arguments)
        taken[name] += time.thread_time() - begin
        return result

    def drawn(name: str, items: Iterable[T]) -> Iterator[T]:
        iterator = iter(items)
        while (item := timed(name, next, iterator, None)) is not None:
            yield item

    for path in paths:
        timed("hash", _hash, path)
        stream = timed("decode", open_audio, path, spec.sample_rate)
        with stream:
            blocks = drawn("decode", stream.blocks())
            for _, windows in drawn("features", stream_windows(blocks, spec)):
                timed("fingerprint", encoders.fingerprint.encode, windows)
                if encoders.vae is not None:
                    timed("latent", encoders.vae.encode, windows)
                timed("MFCC summary", mfcc_summary, windows, spec)
    # Blocks are decoded while windows are drawn.
    taken["features"] -= taken["decode"]
    return dict(taken)


def _hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def start_up(one_second: Path, options: IngestOptions) -> dict[str, float]:
    """CPU and wall seconds of ``earmark ingest`` on a second of audio, process and imports too."""
    with tempfile.TemporaryDirectory() as scratch:
        used = run_measured(_command([one_second], Path(scratch) / "catalog", options))
    return {"cpu_s": used.cpu_s, "wall_s": used.wall_s, "peak_rss_mb": used.peak_rss_mb}


def peak_memory(path: Path, options: IngestOptions) -> float:
    """MB of an ``earmark ingest`` process on one file."""
    with tempfile.TemporaryDirectory() as scratch:
        return run_measured(_command([path], Path(scratch) / "catalog", options)).peak_rss_mb


def _command(paths: Sequence[Path], catalog: Path, options: IngestOptions) -> list[str]:
    arguments = ["--encoder", options.fingerprint, "--vae", options.vae]
    arguments += ["--precision", options.precision or "int8"]
    return earmark("ingest", *paths, "--catalog", catalog, *arguments)


@click.command(help=__doc__)
@click.argument(
    "folders", metavar="FOLDER...", nargs=-1, required=True,
    type=click.Path(exists=True, path_type=Path),
)  # fmt: skip
@click.option("--hours", default=1.0, show_default=True, help="Audio of each format.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--long-hours", default=3.0, show_default=True,
    help="Length of the long file whose memory is measured beside that of a 10-minute file.",
)  # fmt: skip
@click.option("--peer/--no-peer", default=True, help="Measure audfprint, if it is installed.")
@encoder_option
@vae_option
@precision_option
@cache_option
@json_option
def main(
    folders: tuple[Path, ...],
    hours: float,
    repeats: int,
    long_hours: float,
    peer: bool,
    encoder: str,
    vae: str,
    precision: str,
    cache: Path,
    json_path: Path | None,
) -> None:
    options = IngestOptions(encoder, vae, precision)
    paths, seconds, notes = choose_files(folders, hours, cache)
    if not paths:
        raise click.ClickException("no vorbis or mp3 files of half a minute or more")
    if peer and importlib.util.find_spec("audfprint2") is None:
        peer = False
        notes.append("audfprint2 is not installed: pip install audfprint2")
    result: dict[str, Any] = {"precision": precision, "hours": {}, "cpu_s_per_hour": {}}
    columns = ["CPU s per hour of audio", *paths]
    table: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        one_second = write_one_second(Path(scratch))
        ingest_all([one_second], options)  # Imports and bundles.
        for name, chosen in paths.items():
            taken = measure(chosen, one_second, options, repeats, peer)
            in_hours = seconds[name] / 3600
            fixed = statistics.median(taken.pop("fixed cost of a run"))
            ratios = {
                way: statistics.median(np.divide(figures, taken["decode"]))
                for way, figures in taken.items()
            }
            per_hour = {way: statistics.median(f) / in_hours for way, f in taken.items()}
            parts = {k: v / in_hours for k, v in stages(chosen, options).items()}
            result["hours"][name] = in_hours
            result["cpu_s_per_hour"][name] = {
                "median": per_hour,
                "ratio_to_decode": ratios,
                "all": {way: [f / in_hours for f in figures] for way, figures in taken.items()},
                "stages": parts,
                "fixed_cost_of_a_run_s": fixed,
            }
            rest = per_hour["ingest, 1 thread"] - sum(parts.values())
            for way, figure in per_hour.items():
                table[way].append(f"{figure:.2f} ({ratios[way]:.2f} ×)")
                if way == "ingest, 1 thread":
                    for stage, part in {**parts, "Arrow, Parquet, Beam, index": rest}.items():
                        table[f"  of it {stage}"].append(f"{part:.2f}")
        result["start_up"] = start_up(one_second, options)
    sources = next(iter(paths.values()))
    lengths = {"10 min": 600.0, f"{long_hours:g} h": 3600 * long_hours}
    result["peak_rss_mb"] = {
        name: peak_memory(long_file(sources, length, cache), options)
        for name, length in lengths.items()
    }
    result["notes"] = notes
    n_hours = ", ".join(f"{h:.2f} h of {name}" for name, h in result["hours"].items())
    report(
        f"{n_hours}; {precision}; median of {repeats}; in brackets the ratio to decoding alone",
        columns,
        [[way, *figures] for way, figures in table.items()],
        result,
        json_path,
    )
    begun = result["start_up"]
    click.echo(f"Start-up: {begun['cpu_s']:.1f} CPU s, {begun['wall_s']:.1f} s wall (taken off)")
    memory = ", ".join(f"{mb:.0f} MB for {name}" for name, mb in result["peak_rss_mb"].items())
    click.echo(f"Peak memory of an ingest of one file: {memory}")
    for note in notes:
        click.echo(f"Note: {note}")


if __name__ == "__main__":
    main()
