"""What the benchmarks share: the machine line, tables, JSON, measured processes, files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from encoders.audio import AudioInfo
from encoders.errors import AudioError
from pipelines.evaluate.results import machine
from pipelines.evaluate.selection import measure_audio
from pipelines.inputs import AUDIO_SUFFIXES

CACHE = Path(tempfile.gettempdir()) / "earmark-benchmarks"

json_option = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the result here as well, as JSON.",
)  # fmt: skip
cache_option = click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), default=CACHE, metavar="DIR",
    show_default=True, help="Where catalogs and made audio are kept for the next run.",
)  # fmt: skip
encoder_option = click.option(
    "--encoder", default="fingerprint", show_default=True, metavar="BUNDLE",
    help="Fingerprint encoder: the name of a shipped bundle, or a folder.",
)  # fmt: skip
vae_option = click.option(
    "--vae", default="vae", show_default=True, metavar="BUNDLE",
    help="Autoencoder: the name of a shipped bundle, or a folder.",
)  # fmt: skip
precision_option = click.option(
    "--precision", type=click.Choice(["int8", "float32"]), default="int8", show_default=True,
    help="Arithmetic of the encoders.",
)  # fmt: skip


def report(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    result: dict[str, Any],
    json_path: Path | None,
) -> None:
    """Print the machine line and a table; write ``result`` with the machine to ``json_path``."""
    where = machine()
    click.echo(
        f"{where['cpu']}, {where['cores']} cores, Python {where['python']}, "
        f"load {where['load']:.1f}"
    )
    click.echo(title)
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        content = {"command": sys.argv, "machine": where, **result}
        json_path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Usage(NamedTuple):
    """What a process used, and what it printed."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    output: str


def run_measured(command: Sequence[str], **environment: str) -> Usage:
    """Run a command to its end and measure it, with every process that it waited for.

    Raises
    ------
    click.ClickException
        If it fails.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env={**os.environ, **environment}
        )
        peak = _Peak(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = err.read().decode(errors="replace")[-2000:]
            raise click.ClickException(f"{' '.join(command[:6])} … failed:\n{said}")
        return Usage(wall, used.ru_utime + used.ru_stime, peak.megabytes, out.read().decode())


class _Peak(threading.Thread):
    """Watches the peak memory of a process until it ends.

    Not ``ru_maxrss``: that begins with the size of the process that started it.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            while True:
                peak = self._status.read_text().split("VmHWM:")[1].split()[0]
                self.megabytes = int(peak) * 1024 / 1e6
                time.sleep(0.02)


def run_tool(command: Sequence[str], folder: str | Path) -> None:
    """Run a program of the system in ``folder``; what it says of its failure is told."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def earmark(*arguments: str | Path) -> list[str]:
    """The ``earmark`` command line, with the Python that runs this."""
    start = "from pipelines.cli import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


class AudioFile(NamedTuple):
    """A file that can be opened, and its length in seconds."""

    path: Path
    info: AudioInfo
    seconds: float


def audio_files(
    folders: Sequence[Path], least_seconds: float, seed: int = 0
) -> Iterator[AudioFile]:
    """Files of at least a length, in an order that is random but the same each time."""
    paths = sorted(
        path
        for folder in folders
        for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
        and path.is_file()
        # Nothing that lasts is so small: saves opening thousands of spoken words.
        and path.stat().st_size > 1000 * least_seconds
    )
    random.Random(seed).shuffle(paths)
    for path in paths:
        with contextlib.suppress(AudioError):
            info, seconds = measure_audio(path)
            if seconds >= least_seconds:
                yield AudioFile(path, info, seconds)


def choose_hours(files: Iterator[AudioFile], hours: float) -> list[AudioFile]:
    """The first files, until there are so many hours."""
    chosen: list[AudioFile] = []
    seconds = 0.0
    for file in files:
        if seconds >= 3600 * hours:
            break
        chosen.append(file)
        seconds += file.seconds
    return chosen


def write_one_second(folder: Path) -> Path:
    """A second of noise: what costs as much as ingest does without audio."""
    path = folder / "one-second.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    return path
