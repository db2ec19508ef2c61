"""The Beam pipeline of event detection: parts of a catalog in, events in Parquet out.

Works on stored embeddings; nothing is decoded. A part that is done stays done, so that a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import CatalogError, EarmarkError
from index.catalog import Catalog
from index.columns import find_column
from index.event_model import EventModel
from index.event_search import CatalogPart, catalog_parts, detect_part
from index.schema import EVENTS
from index.storage import write_atomically
from pipelines.beam_options import quiet_logging
from pipelines.progress import task_display

# Parts in one element when this process does all the work: enough to keep its threads busy.
_PARTS_PER_ELEMENT = 64


@dataclasses.dataclass(frozen=True)
class DetectJob:
    """What all parts of a run have in common.

    Parameters
    ----------
    catalog, model : str
        Folders, as every worker sees them.
    out : str
        Folder of the parts that are done.
    min_score : float or None
    """

    catalog: str
    model: str
    out: str
    min_score: float | None


def detect_catalog(
    catalog: Catalog,
    model_folder: Path,
    min_score: float | None = None,
    beam_args: Sequence[str] = (),
    log: TextIO | None = None,
) -> pa.Table:
    """Find the events of all recordings of a catalog.

    Parameters
    ----------
    catalog : Catalog
    model_folder : Path
    min_score : float, optional
        [default: the threshold of each class]
    beam_args : sequence of str
        Options of Beam; without a runner the embedded one is used.
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Returns
    -------
    events : pa.Table
        Of ``index.schema.EVENTS``, by uri and in time order.

    Raises
    ------
    EarmarkError
        If the model is not for this catalog, or an output cannot be written.
    """
    model = EventModel.load(model_folder)
    column, encoder = find_column(catalog, model.column)
    model.check(column, encoder, catalog.config.spec)
    parts = list(catalog_parts(catalog))
    if not parts:
        return EVENTS.empty_table()
    out = catalog.path / "events" / f".detected-{_key(catalog, model_folder, min_score)}"
    out.mkdir(parents=True, exist_ok=True)
    job = DetectJob(str(catalog.path), str(model_folder), str(out), min_score)
    _run(parts, job, beam_args, log)
    tables = []
    for part in parts:
        try:
            tables.append(pq.read_table(out / part.name))
        except (OSError, pa.ArrowInvalid) as error:
            raise EarmarkError(
                f"the events of {part.name} are not in {out} ({error}): do all workers see the "
                "same folder there?"
            ) from None
    shutil.rmtree(out, ignore_errors=True)
    order = [("uri", "ascending"), ("onset_s", "ascending"), ("offset_s", "ascending")]
    return pa.concat_tables(tables).sort_by([*order, ("label", "ascending")])


def process_parts(parts: Sequence[CatalogPart], job: DetectJob, threads: int = 1) -> int:
    """Detect the events of some parts. Doing it twice is the same as once.

    Returns
    -------
    n : int
        Parts done.
    """
    catalog, model = Catalog.open(job.catalog), EventModel.load(Path(job.model))

    def process(part: CatalogPart) -> None:
        path = Path(job.out) / part.name
        if not path.exists():
            events = detect_part(catalog, model, part, job.min_score)
            with write_atomically(path) as file:
                pq.write_table(events, file, compression="zstd")

    with ThreadPoolExecutor(threads, thread_name_prefix="detect") as pool:
        futures = [pool.submit(process, part) for part in parts]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(parts)


def _run(
    parts: Sequence[CatalogPart], job: DetectJob, beam_args: Sequence[str], log: TextIO | None
) -> None:
    with quiet_logging():
        import apache_beam as beam

        from pipelines.beam_job import make_pipeline, runner_of

    runner = runner_of(beam_args)
    threads = (os.cpu_count() or 1) if runner is None else 1
    size = _PARTS_PER_ELEMENT if runner is None else 1
    elements = [list(parts[i : i + size]) for i in range(0, len(parts), size)]
    errors: list[EarmarkError] = []
    with task_display("Detecting events in parts", log) as show, _watch(job.out, len(parts), show):
        try:
            with quiet_logging(runner is None):
                pipeline = make_pipeline(runner, beam_args)
                _ = (
                    pipeline
                    | "Parts" >> beam.Create(elements, reshuffle=False)
                    | "Spread" >> beam.Reshuffle()
                    | "Detect" >> beam.Map(_process, job, threads)
                    | "Count" >> beam.CombineGlobally(sum)
                    | "Check" >> beam.Map(_check, len(parts))
                )
                pipeline.run().wait_until_finish()
        except Exception as error:
            # Beam wraps what a function raises, and its own words tell little.
            for cause in _causes(error):
                if isinstance(cause, EarmarkError):
                    errors.append(cause)
            if not errors:
                raise
    if errors:
        raise errors[0] from None


def _process(parts: Sequence[CatalogPart], job: DetectJob, threads: int) -> int:
    return process_parts(parts, job, threads)


def _check(n: int, expected: int) -> None:
    if n != expected:
        raise RuntimeError(f"{expected} parts gave {n} results")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _key(catalog: Catalog, model_folder: Path, min_score: float | None) -> str:
    try:
        meta = (model_folder / "model.json").read_bytes()
    except OSError as error:
        raise CatalogError(f"cannot read {model_folder}: {error.strerror}") from None
    content = json.dumps([catalog.content_key, hashlib.sha256(meta).hexdigest(), min_score])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


@contextlib.contextmanager
def _watch(folder: str, n: int, show: object) -> Iterator[None]:
    # The parts that are done are counted where they lie, whoever does them.
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            show(sum(1 for _ in Path(folder).glob("part-*.parquet")), n, {})  # type: ignore[operator]

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
