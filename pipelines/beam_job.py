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
from pipelines.columns import Gap, fill_gaps
from pipelines.inputs import Input
from pipelines.progress import RunState
from pipelines.shard import Job, process_shards

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
        self._job.load_encoders()

    def process(self, shards: Shards) -> Iterator[tuple[int, int]]:
        """Turn every shard into a part of the catalog."""
        state = _STATES.get(self._token) or RunState()
        n_rows = process_shards(shards, self._job, state, self._threads)
        yield sum(map(len, shards)), sum(n_rows)


class FillGaps(beam.DoFn):
    """Gaps of further columns in, (gaps, gaps filled) out. As :class:`ProcessShards` otherwise."""

    def __init__(self, job: Job, threads: int, token: str) -> None:
        self._job = job
        self._threads = threads
        self._token = token

    def setup(self) -> None:
        """Load the encoders."""
        self._job.load_encoders()

    def process(self, gaps: list[Gap]) -> Iterator[tuple[int, int]]:
        """Write every part that is missing."""
        state = _STATES.get(self._token) or RunState()
        yield len(gaps), sum(fill_gaps(gaps, self._job, state, self._threads))


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
    """Run the pipeline of ingest to its end.

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
    _run(shards, ProcessShards, sum(map(len, shards)), job, state, threads, beam_args)


def run_gaps(
    gaps: Sequence[Gap], job: Job, state: RunState, threads: int, beam_args: Sequence[str]
) -> None:
    """Run the pipeline that adds columns to its end. Parameters as of :func:`run_job`."""
    _run(list(gaps), FillGaps, len(gaps), job, state, threads, beam_args)


def _run(
    work: list[Any],
    step: type[ProcessShards | FillGaps],
    n_expected: int,
    job: Job,
    state: RunState,
    threads: int,
    beam_args: Sequence[str],
) -> None:
    runner = runner_of(beam_args)
    token = uuid.uuid4().hex
    _STATES[token] = state
    per_element = _SHARDS_PER_ELEMENT if threads > 1 else 1
    elements = [work[i : i + per_element] for i in range(0, len(work), per_element)]
    try:
        with quiet_logging(runner is None), _on_interrupt(state):
            pipeline = make_pipeline(runner, beam_args)
            _ = (
                pipeline
                | "Shards" >> beam.Create(elements, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "Ingest" >> beam.ParDo(step(job, threads, token))
                | "Rows" >> beam.Map(lambda status: status[1])
                | "Count" >> beam.CombineGlobally(sum)
                | "Check" >> beam.Map(_check_rows, n_expected)
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


def _check_rows(n_rows: int, n_expected: int) -> None:
    if n_rows != n_expected:
        raise RuntimeError(f"{n_expected} inputs gave {n_rows} status rows")


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
