"""Active learning: the regions that it pays most to judge.

Some of the highest scores, which show whether the class is what was meant; some at the threshold,
where a judgement changes most (uncertainty sampling, Lewis & Gale 1994); and some that are unlike
everything judged so far (farthest first, Gonzalez 1985).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from encoders.features import FeatureSpec
from index.column_index import ColumnIndex
from index.event_model import EventModel
from index.event_regions import window_span
from index.label_files import Labelled

REASONS = ("highest", "borderline", "diverse")

# Windows that are looked at more closely, by score.
_MOST_CANDIDATES = 5000
_CHUNK = 65_536
# Nothing below this share of the threshold is worth anybody's time.
_WORTH = 0.1


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A region to judge.

    Attributes
    ----------
    recording : int
        Its number.
    uri : str
    onset_s, offset_s : float
    score : float
        By the model as it is.
    reason : str
        One of :data:`REASONS`.
    """

    recording: int
    uri: str
    onset_s: float
    offset_s: float
    score: float
    reason: str

    def judged(self, label: str) -> Labelled:
        """The region as a label."""
        return Labelled(self.recording, self.onset_s, self.offset_s, label, False)


def propose(
    index: ColumnIndex,
    model: EventModel,
    label: str,
    spec: FeatureSpec,
    known: Sequence[Labelled] = (),
    n: int = 20,
) -> list[Proposal]:
    """Choose regions to judge, at most one of a recording while there are others.

    Parameters
    ----------
    index : ColumnIndex
    model : EventModel
    label : str
        One of its classes.
    spec : FeatureSpec
        Of the catalog.
    known : sequence of Labelled
        Regions whose answer for this label is known; they are not proposed again.
    n : int

    Returns
    -------
    proposals : list of Proposal
        The highest first, then the borderline ones, then the diverse ones.

    Raises
    ------
    EarmarkError
        If the model does not know the label, or was learned from other embeddings.
    """
    model.check(index.info.column, index.info.encoder, spec, index.info.scaling)
    one = model.select([label])
    threshold = float(one.thresholds[0])
    rows, scores = _candidates(index, one, threshold * _WORTH, known, spec)
    if not len(rows):
        return []
    recordings = index.recording_of(rows)
    vectors = index.vectors[rows].astype(np.float32)
    chosen: list[tuple[int, str]] = []

    def free() -> np.ndarray:
        # Candidates that are neither chosen nor beside one that is; of new recordings if possible.
        taken = np.array([c for c, _ in chosen], int)
        near = (np.abs(rows[:, None] - rows[taken]) <= 2) & (
            recordings[:, None] == recordings[taken]
        )
        left = ~near.any(axis=1)
        fresh = left & ~np.isin(recordings, recordings[taken])
        return np.flatnonzero(fresh if fresh.any() else left)

    share = -(-n // len(REASONS))
    for reason in REASONS:
        for _ in range(min(share, n - len(chosen))):
            left = free()
            if not len(left):
                break
            if reason == "highest":
                best = left[np.argmax(scores[left])]
            elif reason == "borderline":
                best = left[np.argmin(np.abs(scores[left] - threshold))]
            else:
                judged = np.concatenate([one.examples, vectors[[c for c, _ in chosen]]])
                best = left[np.argmin((vectors[left] @ judged.T).max(axis=1))]
            chosen.append((int(best), reason))
    return [_proposal(index, rows[c], float(scores[c]), reason, spec) for c, reason in chosen]


def _candidates(
    index: ColumnIndex,
    model: EventModel,
    least: float,
    known: Sequence[Labelled],
    spec: FeatureSpec,
) -> tuple[np.ndarray, np.ndarray]:
    # Rows and scores of the windows with the highest scores that nobody has judged.
    found_rows, found_scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, index.info.n_rows, _CHUNK):
        scores = model.scores(index.vectors[start : start + _CHUNK])[:, 0]
        hits = np.flatnonzero(scores >= least)
        found_rows.append(start + hits)
        found_scores.append(scores[hits])
    rows, scores = np.concatenate(found_rows), np.concatenate(found_scores)
    judged = np.zeros(len(rows), bool)
    hop, length = spec.window_hop / spec.sample_rate, spec.window_length / spec.sample_rate
    recordings = index.recording_of(rows)
    starts = (rows - index.first_rows[recordings]) * hop
    for label in known:
        mine = recordings == label.recording
        judged |= mine & (starts < label.offset_s) & (starts + length > label.onset_s)
    rows, scores = rows[~judged], scores[~judged]
    order = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
    return rows[order], scores[order]


def _proposal(
    index: ColumnIndex, row: int, score: float, reason: str, spec: FeatureSpec
) -> Proposal:
    recording = int(index.recording_of(np.array([row]))[0])
    about = index.recordings.slice(recording, 1).to_pylist()[0]
    window = int(row - about["first_row"])
    onset, offset = window_span(window, window, about["n_rows"], about["seconds"], spec)
    return Proposal(
        recording, about["uri"], round(onset, 3), round(offset, 3), round(score, 4), reason
    )
