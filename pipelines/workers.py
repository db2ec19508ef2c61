"""Shards side by side in one worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipelines.progress import RunState

Shard = TypeVar("Shard")
Result = TypeVar("Result")


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
