"""What is done with the shards of a run, and how: side by side in one worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from pipelines.progress import RunState

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Work(Protocol):
    """What is done with every shard of a run: ingest's, a bulk match's. Travels to the workers."""

    def prepare(self) -> None:
        """Load, once per process, what all shards need."""

    def process(self, shard: Any, state: RunState) -> int:
        """Do a shard; doing it twice is the same as once.

        Returns
        -------
        n_done : int
            What is done of it, of the number that the run expects of all shards.
        """


def in_threads(
    process: Callable[[Shard], Result], shards: Sequence[Shard], state: RunState, threads: int
) -> list[Result]:
    """Process several shards, ``threads`` at a time; the first error ends all of them.

    Parameters
    ----------
    process : callable
    shards : sequence
    state : RunState
        Told of the error.
    threads : int

    Returns
    -------
    results : list
        In the order of the shards.
    """

    def guarded(shard: Shard) -> Result:
        try:
            return process(shard)
        except BaseException as error:
            state.abort(error)
            raise

    if threads == 1:
        return [guarded(shard) for shard in shards]
    with ThreadPoolExecutor(threads, thread_name_prefix="shard") as pool:
        futures = [pool.submit(guarded, shard) for shard in shards]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            state.abort(error)
            pool.shutdown(cancel_futures=True)
            raise
