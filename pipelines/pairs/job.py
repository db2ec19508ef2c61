"""A stage as a Beam pipeline: numbers of shards in, files out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TextIO

from pipelines.beam_job import run_job, runner_of
from pipelines.pairs.stages import Stage
from pipelines.progress import RunState, parts_display


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
    with parts_display(stage.part(0).parent, len(shards), title, log):
        run_job(todo, StageWork(stage), len(todo), RunState(), threads, beam_args)
