"""Labels of a catalog to an event model on disk, and again when somebody has judged more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from encoders.features import FeatureSpec
from index.column_index import ColumnIndex
from index.event_examples import training_set
from index.event_model import LABELS, EventModel
from index.event_training import fit_events
from index.label_files import Labelled


def learn(
    index: ColumnIndex,
    spec: FeatureSpec,
    labels: Sequence[Labelled],
    folder: Path,
    refuted: Sequence[Labelled] = (),
    seed: int = 0,
) -> EventModel:
    """Fit a model to labels and save it with them.

    Parameters
    ----------
    index : ColumnIndex
    spec : FeatureSpec
        Of the catalog.
    labels : sequence of Labelled
    folder : Path
        Of the model; one that is there is replaced.
    refuted : sequence of Labelled
        Stretches that do not hold the sound.
    seed : int

    Raises
    ------
    LabelError
        If there is nothing to learn from.
    """
    info = index.info
    data = training_set(index, labels, spec, refuted, seed)
    model = fit_events(data, spec, info.column, info.encoder, info.scaling)
    table = pa.concat_tables([_table(index, labels, True), _table(index, refuted, False)])
    model.save(folder, table)
    return model


def known_labels(index: ColumnIndex, table: pa.Table) -> tuple[list[Labelled], list[Labelled]]:
    """Labels that a model was learned from, as far as the catalog still has their recordings.

    Parameters
    ----------
    index : ColumnIndex
    table : pa.Table
        From :func:`index.event_model.load_labels`.

    Returns
    -------
    labels, refuted : list of Labelled
    """
    ids = index.recordings["recording_id"].to_pylist()
    numbers = {recording_id: number for number, recording_id in enumerate(ids)}
    labels: list[Labelled] = []
    refuted: list[Labelled] = []
    for row in table.to_pylist():
        if row["recording_id"] in numbers:
            labelled = Labelled(
                numbers[row["recording_id"]], row["onset_s"], row["offset_s"], row["label"],
                row["whole"],
            )  # fmt: skip
            (labels if row["positive"] else refuted).append(labelled)
    return labels, refuted


def _table(index: ColumnIndex, labels: Sequence[Labelled], positive: bool) -> pa.Table:
    numbers = pa.array([label.recording for label in labels], pa.int64())
    recordings = index.recordings.take(numbers)
    return pa.table(
        {
            "uri": recordings["uri"],
            "recording_id": recordings["recording_id"],
            "onset_s": [label.onset_s for label in labels],
            "offset_s": [label.offset_s for label in labels],
            "label": [label.label for label in labels],
            "whole": [label.whole for label in labels],
            "positive": [positive] * len(labels),
        },
        schema=LABELS,
    )
