"""What runs in the processes of an evaluation: make a query, ask Earmark, judge an answer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import soundfile
import soxr

from index.identify import Identifier
from index.storage import write_atomically
from pipelines.evaluate.answers import Answered
from pipelines.evaluate.conditions import Resources
from pipelines.evaluate.queries import Query
from pipelines.evaluate.references import SAMPLE_RATE, Catalogs, References
from pipelines.evaluate.selection import Selection
from pipelines.evaluate.truth import judge
from pipelines.peers import Answer

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every process needs to know; it has all been prepared.

    Attributes
    ----------
    selection : Selection
    root : Path
        Folder of the corpus.
    catalogs : Catalogs
    encoder : str
        Bundle of the catalogs.
    cache : Path
    with_rooms : bool
        Whether a condition needs them.
    audio : Path or None
        Where queries are written as WAV files.
    """

    selection: Selection
    root: Path
    catalogs: Catalogs
    encoder: str
    cache: Path
    with_rooms: bool
    audio: Path | None

    def clip(self, query: Query) -> Path:
        """The WAV file of a query."""
        assert self.audio is not None
        return self.audio / f"{query.id}.wav"


class Worker:
    """Everything open that a query goes through."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._references = References(plan.catalogs.full, plan.root, plan.cache)
        self._resources = Resources.prepare(plan.selection, plan.cache, plan.with_rooms)

    @functools.cached_property
    def _identifiers(self) -> tuple[Identifier, Identifier]:
        catalogs = self._plan.catalogs
        return Identifier(catalogs.full, self._plan.encoder), Identifier(
            catalogs.half, self._plan.encoder
        )

    def ask(self, query: Query) -> Answered:
        """Put a query to Earmark."""
        identifier = self._identifiers[query.absent]
        heard = query.make(self._references, self._resources).astype(np.float32) / 32767
        signal = soxr.resample(heard, SAMPLE_RATE, identifier.spec.sample_rate)
        scored, seconds = identifier.candidates([signal])
        if not scored:
            return self.judge((query, Answer(None, None, 0.0, False)))
        matches = identifier.matches(query.id, scored, seconds)
        best = matches[0]
        assert best.reference_start_s is not None
        assert best.query_start_s is not None
        speed = best.speed or 1.0
        answer = Answer(
            reference=best.reference,
            start_s=best.reference_start_s - best.query_start_s * speed,
            score=scored[0].score,
            accepted=scored[0].score >= identifier.bundle.calibration.threshold,
            speed=speed,
        )
        right = self._references.recording_id(query.track)
        ranks = (rank for rank, m in enumerate(matches, 1) if m.recording_id == right)
        return dataclasses.replace(
            self.judge((query, answer)),
            similarity=scored[0].evidence.similarity,
            margin=scored[0].evidence.lead,
            rank=next(ranks, None),
        )

    def judge(self, answer_to: tuple[Query, Answer]) -> Answered:
        """Judge an answer of any system."""
        query, answer = answer_to
        outcome = judge(query, answer, self._references)
        if answer.reference is None:
            return Answered(query.id, outcome)
        name = self._references.name(answer.reference)
        return Answered(query.id, outcome, name, answer.start_s, answer.speed)

    def write(self, query: Query) -> Path:
        """Write a query as a WAV file, unless it is there."""
        path = self._plan.clip(query)
        if not path.exists():
            heard = query.make(self._references, self._resources)
            with write_atomically(path) as file:
                soundfile.write(file, heard, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return path


class Workers(Protocol):
    """Runs a method of :class:`Worker` for every item, and gives the results in order."""

    def __call__(self, job: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]: ...


@contextlib.contextmanager
def open_workers(plan: Plan, jobs: int) -> Iterator[Workers]:
    """Workers in processes of their own; a single one works here."""
    if jobs == 1:
        worker = Worker(plan)

        def here(job: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
            return (job(worker, item) for item in items)

        yield here
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start, (plan,)) as pool:

        def there(job: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
            return pool.map(functools.partial(_do, job), items, chunksize=4)

        try:
            yield there
        except BaseException:
            # What nobody has begun is not worth waiting for.
            pool.shutdown(cancel_futures=True)
            raise


_worker: Worker | None = None


def _start(plan: Plan) -> None:
    global _worker
    # Ctrl-C goes to the whole group; the parent ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Worker(plan)


def _do(job: Callable[[Worker, T], R], item: T) -> R:
    assert _worker is not None
    return job(_worker, item)
