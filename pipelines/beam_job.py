"""The Beam pipeline of ingest: references to inputs in, one small status record per shard out."""

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
from pipelines.inputs import Input
from pipelines.progress import RunState
from pipelines.shard import Job, load_encoders, process_shards

# Shards in one element when this process does all the work: enough to keep its threads busy.
_SHARDS_PER_ELEMENT = 64

# The state of a run is shared between threads, not between machines: a worker elsewhere finds
# nothing under the token and counts for itself.
_STATES: dict[str, RunState] = {}

Shards = list[list[Input]]


class ProcessShards(beam.DoFn):
    """Shards in, (inputs, status rows) out.

    Flushes inside ``process``: some runners lose what ``finish_bundle`` emits.
    """

    def __init__(self, job: Job, threads: int, token: str) -> None:
        self._job = job
        self._threads = threads
        self._token = token

    def setup(self) -> None:
        """Load the encoders."""
        precision = self._job.config.fingerprint.precision
        load_encoders(self._job.fingerprint, self._job.vae, precision)

    def process(self, shards: Shards) -> Iterator[tuple[int, int]]:
        """Turn every shard into a part of the catalog."""
        state = state_of(self._token)
        n_rows = process_shards(shards, self._job, state, self._threads)
        yield sum(map(len, shards)), sum(n_rows)


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
            "the DaskRunner loses records, so ingest refuses it: use another runner, or none"
        )
    return runner


def run_job(
    shards: Shards, job: Job, state: RunState, threads: int, beam_args: Sequence[str]
) -> None:
    """Run the pipeline to its end.

    Returns early, without an error, when too many failures stopped it.

    Parameters
    ----------
    shards : list of list of Input
    job : Job
    state : RunState
    threads : int
        Shards at a time in one worker.
    beam_args : sequence of str
        Options of Beam, as on its command line.

    Raises
    ------
    EarmarkError
        If the catalog cannot be written.
    KeyboardInterrupt
    """
    with shared_state(state) as token:
        stage = ProcessShards(job, threads, token)
        run_elements(shards, stage, sum(map(len, shards)), state, threads, beam_args)


@contextlib.contextmanager
def shared_state(state: RunState) -> Iterator[str]:
    """A token under which the threads of this process find the state of a run."""
    token = uuid.uuid4().hex
    _STATES[token] = state
    try:
        yield token
    finally:
        del _STATES[token]


def state_of(token: str) -> RunState:
    """The state behind a token; on other machines, one of their own."""
    return _STATES.get(token) or RunState()


def run_elements(
    shards: Sequence[Any],
    stage: beam.DoFn,
    n_inputs: int,
    state: RunState,
    threads: int,
    beam_args: Sequence[str],
) -> None:
    """Hand shards to a DoFn, many in an element, and check what comes back.

    Parameters
    ----------
    shards : sequence
    stage : beam.DoFn
        Lists of shards in, (inputs, inputs done) out.
    n_inputs : int
        Of all shards.
    state, threads, beam_args
        As for :func:`run_job`.
    """
    runner = runner_of(beam_args)
    per_element = _SHARDS_PER_ELEMENT if threads > 1 else 1
    elements = [shards[i : i + per_element] for i in range(0, len(shards), per_element)]
    try:
        with quiet_logging(runner is None), _on_interrupt(state):
            pipeline = _pipeline(runner, beam_args)
            _ = (
                pipeline
                | "Shards" >> beam.Create(elements, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "Process" >> beam.ParDo(stage)
                | "Done" >> beam.Map(lambda status: status[1])
                | "Count" >> beam.CombineGlobally(sum)
                | "Check" >> beam.Map(_check_rows, n_inputs)
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


def _pipeline(runner: str | None, beam_args: Sequence[str]) -> beam.Pipeline:
    options = PipelineOptions(list(beam_args))
    try:
        return beam.Pipeline(FnApiRunner() if runner is None else None, options)
    except (ValueError, ImportError, AttributeError) as error:
        raise EarmarkError(f"Beam cannot use the runner {runner}: {error}") from None


def _check_rows(n_rows: int, n_inputs: int) -> None:
    if n_rows != n_inputs:
        raise RuntimeError(f"{n_inputs} inputs gave {n_rows} status rows")


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
