"""How well events are detected in time, by the libraries that the field uses.

``sed_eval``: event-based F1 (Mesaros et al., "Metrics for polyphonic sound event detection", 2016).
``sed_scores_eval``: PSDS (Bilen et al. 2020), computed exactly (Ebbers et al. 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.evaluate_events.soundscapes import SECONDS, Truth

COLLAR_S = 0.2
# PSDS1 of DCASE, which asks for exact times, without a price for cross-triggers.
_PSDS1 = {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 1.0, "max_efpr": 100.0}
_RESAMPLES = 100

Events = Mapping[str, Sequence[Truth]]
Interval = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class DetectionFigures:
    """Figures of one system.

    Attributes
    ----------
    f1 : (float, float, float)
        Mean over the classes, and its 95 % interval.
    class_f1 : dict of float
    precision, recall : float
        Over all events, whatever their class.
    psds1 : (float, float, float)
        And its 95 % interval.
    """

    f1: Interval
    class_f1: dict[str, float]
    precision: float
    recall: float
    psds1: Interval


def measure_detection(
    truth: Events, found: Events, scores: Mapping[str, np.ndarray], step_s: float,
    classes: Sequence[str],
) -> DetectionFigures:  # fmt: skip
    """All figures of a system.

    Parameters
    ----------
    truth, found : mapping of str to sequence of (onset_s, offset_s, label)
        By soundscape.
    scores : mapping of str to np.ndarray [shape=(n, n_classes)]
        0 to 1.
    step_s : float
        Between rows of them.
    classes : sequence of str
    """
    counts = count_events(truth, found, classes)
    by_class = f1_of(counts.sum(axis=0))
    low, high = _interval(len(counts), lambda drawn: float(f1_of(counts[drawn].sum(axis=0)).mean()))
    hits, n_found, n_true = counts.sum(axis=(0, 1))
    return DetectionFigures(
        (float(by_class.mean()), low, high),
        dict(zip(classes, by_class.tolist(), strict=True)),
        float(hits / max(1, n_found)),
        float(hits / max(1, n_true)),
        psds1(truth, scores, step_s, classes),
    )


def count_events(truth: Events, found: Events, classes: Sequence[str]) -> np.ndarray:
    """Events that are right, found and true, by ``sed_eval``, of every soundscape and class.

    An onset counts within 200 ms, an offset within 200 ms or a fifth of the event's length.

    Returns
    -------
    counts : np.ndarray [shape=(n_soundscapes, n_classes, 3)]
        In the order of ``truth``.
    """
    import dcase_util
    import sed_eval

    counts = np.zeros((len(truth), len(classes), 3))
    for number, (name, events) in enumerate(truth.items()):
        metrics = sed_eval.sound_event.EventBasedMetrics(
            list(classes), t_collar=COLLAR_S, percentage_of_length=0.2
        )
        reference, estimated = (
            dcase_util.containers.MetaDataContainer(
                [
                    {"filename": name, "onset": on, "offset": off, "event_label": label}
                    for on, off, label in given
                ]
            )
            for given in (events, found.get(name, ()))
        )
        metrics.evaluate(reference, estimated)
        for column, label in enumerate(classes):
            mine = metrics.class_wise[label]
            counts[number, column] = mine["Ntp"], mine["Nsys"], mine["Nref"]
    return counts


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of every class [shape=(n_classes,)] from counts [shape=(n_classes, 3)]."""
    hits, n_found, n_true = counts.T
    return 2 * hits / np.maximum(n_found + n_true, 1)


def psds1(
    truth: Events, scores: Mapping[str, np.ndarray], step_s: float, classes: Sequence[str]
) -> Interval:
    """PSDS1 by ``sed_scores_eval``, and its 95 % interval."""
    from sed_scores_eval.base_modules.scores import create_score_dataframe
    from sed_scores_eval.intersection_based import intermediate_statistics_deltas, psds

    frames = {
        name: create_score_dataframe(
            values, np.minimum(np.arange(len(values) + 1) * step_s, SECONDS), list(classes)
        )
        for name, values in scores.items()
    }
    events = {name: [tuple(event) for event in given] for name, given in truth.items()}
    tolerances = {key: _PSDS1[key] for key in ("dtc_threshold", "gtc_threshold")}
    deltas = intermediate_statistics_deltas(frames, events, **tolerances)

    def of(drawn: Sequence[int]) -> float:
        names = list(events)
        again = {f"{names[i]}-{copy}": names[i] for copy, i in enumerate(drawn)}
        value, *_ = psds(
            None,
            {new: events[old] for new, old in again.items()},
            dict.fromkeys(again, SECONDS),
            deltas={new: deltas[old] for new, old in again.items()},
            **_PSDS1,
        )
        return float(value)

    low, high = _interval(len(events), of)
    return of(range(len(events))), low, high


def _interval(n: int, measure: Callable[[Sequence[int]], float]) -> tuple[float, float]:
    # Of a figure over soundscapes drawn again, with replacement.
    rng = np.random.default_rng(0)
    values = [measure(rng.integers(n, size=n).tolist()) for _ in range(_RESAMPLES)]
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))
