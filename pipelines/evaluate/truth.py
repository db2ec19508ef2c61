"""Whether an answer is right: the same recording, or a place that sounds the same."""

from __future__ import annotations

import numpy as np

from index.metrics import Outcome, correlate, phase_correlate
from pipelines.evaluate.queries import Query
from pipelines.evaluate.references import SAMPLE_RATE, References
from pipelines.peers import Answer

EXACT_S, NEAR_S = 0.25, 0.5
SAME_SOUND = 0.8
"""Stretches of clean audio that correlate like this are the same sound."""

PART_DEVIATIONS, PART_S = 12.0, 0.01
"""What is absent has a part in common with a place, such as an instrument, if their phase
correlation rises this far above chance, no further from the place named than that (s). Tones and
samples that strangers use alike may rise as far, but elsewhere."""


def judge(query: Query, answer: Answer, references: References) -> Outcome:
    """Judge the answer to a query.

    The time error compares the places in the recording at the middle of the query, where a wrong
    speed matters least. A recording with other bytes is right, and another place of the same one
    exact, where it sounds the same: its clean audio correlates with that of the query. Absent music
    may be there in part: an instrument that two mixes have in common is the same recording.
    """
    if answer.reference is None or answer.start_s is None:
        return Outcome()
    score, accepted = answer.score, answer.accepted
    name = references.name(answer.reference)
    named_s = answer.start_s + answer.speed * query.seconds / 2
    same = references.recording_id(name) == references.recording_id(query.track)
    error = abs(named_s - query.centre_s)
    if same and error <= EXACT_S:
        return Outcome(score, accepted, True, True, True, True, True, True, error)
    clip = query.clean(references)
    reach = round(NEAR_S * SAMPLE_RATE)
    first = round(named_s * SAMPLE_RATE) - len(clip) // 2 - reach
    stretch = references.audio(name, first, len(clip) + 2 * reach)
    correlation = correlate(clip, stretch)
    lags = np.abs(np.arange(len(correlation)) - reach) / SAMPLE_RATE
    best = int(np.argmax(correlation))
    alike = bool(correlation[best] >= SAME_SOUND)
    alike_here = bool(correlation[lags <= EXACT_S].max() >= SAME_SOUND)
    strictly_near = same and error <= NEAR_S
    return Outcome(
        score=score,
        accepted=accepted,
        recording=same or alike,
        exact=alike_here,
        near=alike or strictly_near,
        same_recording=same,
        strictly_near=strictly_near,
        error_s=float(lags[best]) if alike else error if same else None,
        correlation=float(correlation[best]),
        shares=query.absent and _shares(clip, stretch, lags),
    )


def _shares(clip: np.ndarray, stretch: np.ndarray, lags: np.ndarray) -> bool:
    deviations = phase_correlate(clip, stretch, SAMPLE_RATE)
    best = int(np.argmax(deviations))
    return bool(deviations[best] >= PART_DEVIATIONS and lags[best] <= PART_S)
