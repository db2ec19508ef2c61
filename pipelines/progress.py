"""How far a run is: counters that the threads share, and their live display."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from index.schema import Status

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds between two looks at the counters: on a terminal, and between plain lines.
_LIVE_INTERVAL = 0.25
_PLAIN_INTERVAL = 10.0
# And between two looks at what lies on the disk.
_PARTS_INTERVAL = 0.5


class Interrupted(Exception):
    """The run ends now; what a shard has not committed is given up."""


@dataclasses.dataclass
class Counts:
    """Inputs done so far."""

    files: int = 0
    failed: int = 0
    seconds: float = 0.0


class RunState:
    """What the threads of one run share in one process.

    Parameters
    ----------
    max_failures : int, optional
        More failed inputs than that end the run after the files in hand.
    """

    def __init__(self, max_failures: int | None = None) -> None:
        self.max_failures = max_failures
        self.stopped = False
        self.interrupted = False
        self.error: BaseException | None = None
        self._aborted = False
        self._counts = Counts()
        self._lock = threading.Lock()

    def add_seconds(self, seconds: float) -> None:
        """Count decoded audio."""
        with self._lock:
            self._counts.seconds += seconds

    def add_file(self, status: str) -> None:
        """Count an input; too many failures stop the run."""
        with self._lock:
            self._counts.files += 1
            self._counts.failed += status == Status.FAILED
            if self.max_failures is not None and self._counts.failed > self.max_failures:
                self.stopped = True

    def counts(self) -> Counts:
        """A consistent copy of the counters."""
        with self._lock:
            return dataclasses.replace(self._counts)

    def abort(self, error: BaseException) -> None:
        """End all shards at their next batch of windows; the first error is the one to tell."""
        if isinstance(error, KeyboardInterrupt):
            self.interrupted = True
        elif self.error is None and not isinstance(error, Interrupted):
            self.error = error
        self._aborted = True

    def check(self) -> None:
        """Raise :class:`Interrupted` once the run has been aborted."""
        if self._aborted:
            raise Interrupted


@contextlib.contextmanager
def live_display(
    n_inputs: int,
    counts: Callable[[], Counts],
    stream: TextIO | None = None,
    description: str = "Ingesting",
) -> Iterator[None]:
    """Show the counters while the body runs: a bar on a terminal, else a line every 10 s.

    Parameters
    ----------
    n_inputs : int
    counts : callable
        Gives the counters; called from a thread of its own.
    stream : TextIO, optional
        [default: standard error]
    description : str
        What the bar says.
    """
    stream = stream or sys.stderr
    ended = threading.Event()
    show = functools.partial(_bar, description) if stream.isatty() else _lines
    thread = threading.Thread(target=show, args=(n_inputs, counts, stream, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5.0)


@contextlib.contextmanager
def task_display(
    description: str, stream: TextIO | None = None
) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Show one task that reports its own steps: a bar on a terminal, else a line every 10 s.

    Yields
    ------
    show : callable
        ``show(done, total, figures)``.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        with _progress(stream, "{task.fields[figures]} · ETA") as progress:
            task = progress.add_task(description, total=None, figures="")

            def update(done: int, total: int, figures: Mapping[str, float]) -> None:
                words = _figures(figures)
                progress.update(task, completed=done, total=total, figures=words)

            yield update
        return
    last = time.monotonic()

    def line(done: int, total: int, figures: Mapping[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_INTERVAL or done == total:
            last = time.monotonic()
            words = _figures(figures)
            print(f"{description}: {done:,} of {total:,} {words}".rstrip(), file=stream, flush=True)

    yield line


@contextlib.contextmanager
def parts_display(
    folder: Path, n_parts: int, description: str, stream: TextIO | None = None
) -> Iterator[None]:
    """Show how many of the parts of a run lie in its folder, whoever writes them: threads, other
    processes, other machines."""
    ended = threading.Event()
    with task_display(description, stream) as show:

        def watch() -> None:
            while not ended.wait(_PARTS_INTERVAL):
                done = sum(1 for _ in folder.glob("part-*"))
                show(min(done, n_parts - 1), n_parts, {})

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        show(n_parts, n_parts, {})


def _figures(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in figures.items())


def format_hours(seconds: float) -> str:
    """Audio time for a person: ``"0.25 h"``."""
    return f"{seconds / 3600:.2f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def format_span(seconds: float) -> str:
    """A length of time for a person: ``"0.42 s"``, ``"3.5 min"``, ``"12.0 h"``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _describe(counts: Counts, elapsed: float) -> str:
    speed = counts.seconds / max(elapsed, 1e-3)
    return f"{format_hours(counts.seconds)} audio · {speed:,.0f} × real time"


def _lines(
    n_inputs: int, counts: Callable[[], Counts], stream: TextIO, ended: threading.Event
) -> None:
    begin = time.monotonic()
    while not ended.wait(_PLAIN_INTERVAL):
        now, elapsed = counts(), time.monotonic() - begin
        eta = elapsed * (n_inputs - now.files) / now.files if now.files else None
        print(
            f"{now.files:,} of {n_inputs:,} files · {now.failed:,} failed · "
            f"{_describe(now, elapsed)}" + (f" · {eta:,.0f} s to go" if eta is not None else ""),
            file=stream,
            flush=True,
        )


def _bar(
    description: str,
    n_inputs: int,
    counts: Callable[[], Counts],
    stream: TextIO,
    ended: threading.Event,
) -> None:
    begin = time.monotonic()
    columns = "files · {task.fields[failed]} failed · {task.fields[audio]} · ETA"
    with _progress(stream, columns) as progress:
        task = progress.add_task(description, total=n_inputs, failed=0, audio="")
        last = False
        while not last:
            last = ended.wait(_LIVE_INTERVAL)
            now = counts()
            audio = _describe(now, time.monotonic() - begin)
            progress.update(task, completed=now.files, failed=now.failed, audio=audio)


def _progress(stream: TextIO, columns: str) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(columns),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
    )
