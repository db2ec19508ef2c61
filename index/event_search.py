"""Sound events of a catalog, from its stored embeddings: nothing is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoders.features import FeatureSpec
from index.catalog import Catalog
from index.column_index import ColumnIndex
from index.columns import find_column, read_part
from index.event_model import EventModel
from index.event_regions import RegionOptions, find_regions, window_span
from index.scaling import stored_rows
from index.schema import EVENTS, Event

_ROWS_PER_BATCH = 65_536

STORED = RegionOptions(gap_s=0.5)
"""How scores of stored windows, every half second, become events."""


def model_folder(catalog: Path, name: str = "default") -> Path:
    """Where a catalog keeps an event model of that name."""
    return catalog / "events" / name


def recording_events(
    model: EventModel,
    vectors: np.ndarray,
    seconds: float,
    spec: FeatureSpec,
    min_score: float | None = None,
    options: RegionOptions = STORED,
) -> list[tuple[str, float, float, float]]:
    """Events of one recording.

    Parameters
    ----------
    model : EventModel
    vectors : np.ndarray [shape=(n, dim)]
        Unit vectors of all its windows, in time order; zero where it is silent.
    seconds : float
    spec : FeatureSpec
    min_score : float, optional
        [default: the threshold of each class]
    options : RegionOptions

    Returns
    -------
    events : list of (label, onset_s, offset_s, score)
        In time order.
    """
    thresholds = model.thresholds if min_score is None else np.full(len(model.classes), min_score)
    step = spec.window_hop / spec.sample_rate
    found = []
    by_class = find_regions(model.scores(vectors), thresholds, step, options)
    for name, regions in zip(model.names, by_class, strict=True):
        for region in regions:
            onset, offset = window_span(region.first, region.last, len(vectors), seconds, spec)
            found.append((name, round(onset, 3), round(offset, 3), round(region.score, 4)))
    return sorted(found, key=lambda event: event[1:])


def find_events(
    index: ColumnIndex,
    model: EventModel,
    label: str,
    spec: FeatureSpec,
    *,
    top: int | None = None,
    min_score: float | None = None,
    rows: np.ndarray | None = None,
) -> list[Event]:
    """All events of one class in a catalog.

    Parameters
    ----------
    index : ColumnIndex
    model : EventModel
    label : str
        One of its classes.
    spec : FeatureSpec
        Of the catalog.
    top : int, optional
        At most this many. [default: all]
    min_score : float, optional
        [default: the threshold of the class]
    rows : np.ndarray of bool [shape=(n_rows,)], optional
        Only the recordings with these rows.

    Returns
    -------
    events : list of Event
        Best first.

    Raises
    ------
    EarmarkError
        If the model does not know the class, or was learned from other embeddings.
    """
    model.check(index.info.column, index.info.encoder, spec, index.info.scaling)
    one = model.select([label])
    least = one.thresholds[0] if min_score is None else min_score
    found = []
    for recording in _promising(index, one, float(least), rows):
        row = index.recordings.slice(recording, 1).to_pylist()[0]
        for _, onset, offset, score in recording_events(
            one, index.of_recording(recording), row["seconds"], spec, float(least)
        ):
            found.append((score, row["uri"], row["recording_id"], onset, offset))
    found.sort(key=lambda event: (-event[0], *event[1:]))
    return [
        Event(label, rank, uri, recording_id, onset, offset, label, score)
        for rank, (score, uri, recording_id, onset, offset) in enumerate(found[:top], 1)
    ]


def _promising(
    index: ColumnIndex, model: EventModel, least: float, rows: np.ndarray | None
) -> Iterator[int]:
    # Recordings with a window that reaches the score.
    n = index.info.n_rows
    seen = -1
    for start in range(0, n, _ROWS_PER_BATCH):
        end = min(n, start + _ROWS_PER_BATCH)
        hits = model.scores(index.vectors[start:end])[:, 0] >= least
        if rows is not None:
            hits &= rows[start:end]
        for recording in np.unique(index.recording_of(start + np.flatnonzero(hits))):
            if recording > seen:
                seen = int(recording)
                yield seen


@dataclasses.dataclass(frozen=True)
class CatalogPart:
    """What is to be read of one part of a catalog.

    Attributes
    ----------
    name : str
    spans : list of (int, int)
        Rows of its windows.
    recordings : pa.Table
        recording_id, uri, seconds and n_windows of the recordings that these are, in their order.
    """

    name: str
    spans: list[tuple[int, int]]
    recordings: pa.Table


def catalog_parts(catalog: Catalog) -> Iterator[CatalogPart]:
    """The parts of a catalog that hold windows, in their order."""
    table = catalog.indexed_recordings()
    firsts = 0
    columns = ["recording_id", "uri", "seconds", "n_windows"]
    names = table["part"].to_numpy()
    for name, spans in catalog.window_spans():
        n = int(np.searchsorted(names[firsts:], name, side="right"))
        yield CatalogPart(name, spans, table.slice(firsts, n).select(columns))
        firsts += n


def detect_part(
    catalog: Catalog, model: EventModel, part: CatalogPart, min_score: float | None = None
) -> pa.Table:
    """Events of the recordings of one part of a catalog.

    Parameters
    ----------
    catalog : Catalog
    model : EventModel
    part : CatalogPart
    min_score : float, optional
        [default: the threshold of each class]

    Returns
    -------
    events : pa.Table
        Of ``index.schema.EVENTS``; those of a recording in time order.
    """
    spec = catalog.config.spec
    name, _ = find_column(catalog, model.column)
    batches = read_part(catalog, name, part.name, part.spans, mfcc=model.scaling.takes_mfcc)
    rows = []
    stored = _by_recording(batches, part.recordings)
    for recording, found in zip(part.recordings.to_pylist(), stored, strict=True):
        vectors = model.scaling(found)
        for label, onset, offset, score in recording_events(
            model, vectors, recording["seconds"], spec, min_score
        ):
            rows.append(
                {
                    "recording_id": recording["recording_id"],
                    "uri": recording["uri"],
                    "onset_s": onset,
                    "offset_s": offset,
                    "label": label,
                    "score": score,
                }
            )
    return pa.Table.from_pylist(rows, schema=EVENTS)


def _by_recording(batches: Iterable[pa.RecordBatch], recordings: pa.Table) -> Iterator[np.ndarray]:
    # What is stored of one recording after the other.
    held: list[np.ndarray] = []
    n_held = 0
    stream = iter(batches)
    for n in recordings["n_windows"].to_pylist():
        while n_held < n:
            held.append(stored_rows(next(stream)))
            n_held += len(held[-1])
        together = np.concatenate(held)
        yield together[:n]
        held, n_held = [together[n:]], n_held - n
