"""The Beam pipeline of event detection: parts of a catalog in, events in Parquet out.

Works on stored embeddings; nothing is decoded. A part that is done stays done, so that a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
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
from pipelines.progress import RunState, parts_display


@dataclasses.dataclass(frozen=True)
class DetectJob:
    """What all parts of a run have in common: a :class:`~pipelines.workers.Work`.

    Parameters
    ----------
    catalog, model : str
        Folders, as every worker sees them.
    out : str
        Folder of the parts that are done; its name tells the content of catalog and model.
    min_score : float or None
    """

    catalog: str
    model: str
    out: str
    min_score: float | None

    def prepare(self) -> None:
        """Open the catalog and load the model, once per process."""
        _opened(self)

    def process(self, part: CatalogPart, state: RunState) -> int:
        """Detect the events of a part. Doing it twice is the same as once."""
        state.check()
        path = Path(self.out) / part.name
        if not path.exists():
            catalog, model = _opened(self)
            events = detect_part(catalog, model, part, self.min_score)
            with write_atomically(path) as file:
                pq.write_table(events, file, compression="zstd")
        return 1


# A job names its folder by the content of catalog and model: another content is another job.
@functools.lru_cache(maxsize=2)
def _opened(job: DetectJob) -> tuple[Catalog, EventModel]:
    return Catalog.open(job.catalog), EventModel.load(Path(job.model))


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
    with quiet_logging():
        from pipelines.beam_job import run_job, runner_of

    threads = (os.cpu_count() or 1) if runner_of(beam_args) is None else 1
    with parts_display(out, len(parts), "Detecting events in parts", log):
        run_job(parts, job, len(parts), RunState(), threads, beam_args)
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


def _key(catalog: Catalog, model_folder: Path, min_score: float | None) -> str:
    try:
        meta = (model_folder / "model.json").read_bytes()
    except OSError as error:
        raise CatalogError(f"cannot read {model_folder}: {error.strerror}") from None
    content = json.dumps([catalog.content_key, hashlib.sha256(meta).hexdigest(), min_score])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
