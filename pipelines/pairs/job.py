"""A stage as a Beam pipeline: numbers of shards in, files out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

from pipelines.beam_job import run_job, runner_of
from pipelines.pairs.stages import Stage
from pipelines.progress import RunState, task_display

# Seconds between two looks at what is done.
_POLL_INTERVAL = 0.5


@dataclasses.dataclass(frozen=True)
class StageWork:
    """The shards of a stage by their numbers: a :class:`~pipelines.workers.Work`."""

    stage: Stage

    def prepare(self) -> None:
        """A stage loads what it needs shard by shard."""

    def process(self, shard: int, state: RunState) -> int:
        """Write the file of a shard, unless it is there."""
        if not self.stage.part(shard).exists():
            self.stage.process(shard, state)
        return int(self.stage.part(shard).exists())


def run_stage(
    stage: Stage,
    shards: Sequence[int],
    title: str,
    threads: int | None,
    beam_args: Sequence[str],
    log: TextIO,
) -> None:
    """Run the shards of a stage that have not been done yet.

    Parameters
    ----------
    stage : Stage
    shards : sequence of int
    title : str
        What the progress is called.
    threads : int, optional
        Shards at a time in one worker. [default: one per core in the embedded runner, else 1]
    beam_args : sequence of str
    log : TextIO

    Raises
    ------
    EarmarkError
        If a file cannot be written.
    KeyboardInterrupt
    """
    if threads is None:
        threads = (os.cpu_count() or 1) if runner_of(beam_args) is None else 1
    if shards:
        stage.part(shards[0]).parent.mkdir(parents=True, exist_ok=True)
    todo = [shard for shard in shards if not stage.part(shard).exists()]
    if not todo:
        return
    with _display(stage, len(shards), title, log):
        run_job(todo, StageWork(stage), len(todo), RunState(), threads, beam_args)


@contextlib.contextmanager
def _display(stage: Stage, n_shards: int, title: str, log: TextIO) -> Iterator[None]:
    # What is done is counted on disk: the workers may be other processes, on other machines.
    ended = threading.Event()
    folder = stage.part(0).parent

    with task_display(title, log) as show:

        def watch() -> None:
            while not ended.wait(_POLL_INTERVAL):
                done = sum(1 for _ in folder.glob("part-*"))
                show(min(done, n_shards - 1), n_shards, {})

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5.0)
        show(n_shards, n_shards, {})
