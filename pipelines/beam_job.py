"""The Beam pipeline of every job: references to shards in, a count of what is done out.

What is done with a shard is a :class:`~pipelines.workers.Work`; audio and vectors never travel.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from encoders.errors import EarmarkError
from pipelines.beam_options import quiet_logging
from pipelines.progress import RunState
from pipelines.workers import Work, in_threads

# Shards in one element when this process does all the work: enough to keep its threads busy.
_SHARDS_PER_ELEMENT = 64

# The state of a run is shared between threads, not between machines: a worker elsewhere finds
# nothing under the token and counts for itself.
_STATES: dict[str, RunState] = {}


class ProcessShards(beam.DoFn):
    """Lists of shards in, what is done of each list out.

    Flushes inside ``process``: some runners lose what ``finish_bundle`` emits.
    """

    def __init__(self, work: Work, threads: int, token: str) -> None:
        self._work = work
        self._threads = threads
        self._token = token

    def setup(self) -> None:
        """Load what the work needs."""
        self._work.prepare()

    def process(self, shards: Sequence[Any]) -> Iterator[int]:
        """Turn every shard into its output."""
        state = _STATES.get(self._token) or RunState()
        yield sum(in_threads(lambda s: self._work.process(s, state), shards, state, self._threads))


def runner_of(beam_args: Sequence[str]) -> str | None:
    """The runner asked for; None is the embedded one.

    Raises
    ------
    EarmarkError
        If it is one that loses data.
    """
    runner: str | None = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner
    if runner is not None and runner.rpartition(".")[2].lower() == "daskrunner":
        raise EarmarkError(
            "the DaskRunner loses records, so earmark refuses it: use another runner, or none"
        )
    return runner


def run_job(
    shards: Sequence[Any],
    work: Work,
    n_expected: int,
    state: RunState,
    threads: int,
    beam_args: Sequence[str],
) -> None:
    """Run the pipeline to its end.

    Returns early, without an error, when too many failures stopped it.

    Parameters
    ----------
    shards : sequence
        What ``work`` takes one by one; small, and picklable.
    work : Work
    n_expected : int
        What has to be done in all, as ``work`` counts it: its inputs, say.
    state : RunState
    threads : int
        Shards at a time in one worker.
    beam_args : sequence of str
        Options of Beam, as on its command line.

    Raises
    ------
    EarmarkError
        If the output cannot be written.
    KeyboardInterrupt
    """
    runner = runner_of(beam_args)
    token = uuid.uuid4().hex
    _STATES[token] = state
    per_element = _SHARDS_PER_ELEMENT if threads > 1 else 1
    elements = [shards[i : i + per_element] for i in range(0, len(shards), per_element)]
    try:
        with quiet_logging(runner is None), _on_interrupt(state):
            pipeline = make_pipeline(runner, beam_args)
            _ = (
                pipeline
                | "Shards" >> beam.Create(elements, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "Process" >> beam.ParDo(ProcessShards(work, threads, token))
                | "Count" >> beam.CombineGlobally(sum)
                | "Check" >> beam.Map(_check_done, n_expected)
            )
            pipeline.run().wait_until_finish()
    except BaseException:
        # Beam wraps what a DoFn raises.
        if state.interrupted:
            raise KeyboardInterrupt from None
        if state.error is not None:
            raise state.error from None
        if not state.stopped:
            raise
    finally:
        del _STATES[token]


def make_pipeline(runner: str | None, beam_args: Sequence[str]) -> beam.Pipeline:
    """A pipeline for a runner; None is the embedded one.

    Raises
    ------
    EarmarkError
        If Beam does not know it, or not its options.
    """
    options = PipelineOptions(list(beam_args))
    try:
        return beam.Pipeline(FnApiRunner() if runner is None else None, options)
    except (ValueError, ImportError, AttributeError) as error:
        raise EarmarkError(f"Beam cannot use the runner {runner}: {error}") from None


def _check_done(n_done: int, n_expected: int) -> None:
    if n_done != n_expected:
        raise RuntimeError(f"only {n_done} of {n_expected} were done")


@contextlib.contextmanager
def _on_interrupt(state: RunState) -> Iterator[None]:
    # Ctrl-C may come while Beam's own code runs, which turns it into other exceptions.
    def handle(number: int, frame: FrameType | None) -> None:
        state.abort(KeyboardInterrupt())
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
