"""Detection in time: made soundscapes, the detector, an event model, and template matching."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encoders.audio import load_audio
from encoders.bundle import load_bundle
from encoders.clips import Clips
from encoders.corpus import Item, best_covered
from encoders.detector import Detector
from encoders.errors import AudioError, EarmarkError
from encoders.features import log_mel
from index.clips import ClipEncoder
from index.config import EncoderInfo
from index.event_detector import EventDetector, NetworkDetector
from index.event_mixtures import mixture_set
from index.event_model import EventModel
from index.event_regions import RegionOptions, find_regions, smooth
from index.event_segment_detector import SegmentDetector
from index.event_training import fit_events
from index.scaling import Scaling
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.detection_metrics import (
    DetectionFigures,
    Events,
    count_events,
    f1_of,
    measure_detection,
)
from pipelines.evaluate_events.parts import Context, Part
from pipelines.evaluate_events.soundscapes import (
    SECONDS,
    Soundscape,
    Truth,
    make_soundscapes,
    merged,
)

N_CLASSES = 15
N_TEST = 120
N_MIXTURES = 900

_TEMPLATES_PER_CLASS = 8
_THRESHOLDS = np.linspace(0.05, 0.95, 19)
# A correlation is high all the time: what is near a peak belongs to it, half of it is nothing.
_TEMPLATES = RegionOptions(low=0.95, gap_s=0.1, min_s=0.03)

Scores = Mapping[str, np.ndarray]


def evaluate_detection(context: Context) -> Part:
    """Detect in soundscapes of the split that is asked about.

    The classes are those with most recordings in the scarcer of train and that split. Beside the
    detector, with its own threshold and with those that would have been the best on what is asked:
    a model of embeddings that is learned here, on mixtures of the sounds and the ambience of
    train, which its thresholds are chosen on too; and template matching, with the best
    thresholds as well.

    Raises
    ------
    EarmarkError
        If scaper, sed_eval or sed_scores_eval is missing, or there are too few sounds.
    """
    if missing := missing_libraries():
        raise EarmarkError(
            f"the part detection needs {', '.join(missing)}: apt-get install sox libsox-dev, then "
            "pip install 'earmark[evaluate]'; or leave it out with --parts"
        )
    options, items = context.options, context.items
    classes = best_covered(items, options.split, N_CLASSES)
    if not classes:
        raise EarmarkError(f"no kind of sound is in both splits, train and {options.split}")
    soundscapes = make_soundscapes(
        items, options.split, classes, N_TEST,
        options.cache / f"soundscapes-{options.split}-{N_TEST}-{options.seed}", options.seed,
    )  # fmt: skip
    trained = Detector(options.bundles.detector)
    known = [name for name in classes if name in trained.classes]
    network = NetworkDetector(trained, known)
    learned = SegmentDetector(_learn(context, items, classes), options.bundles.event)
    templates = _templates(items, classes, learned, options.seed)
    spectra = {s.path.name: _frames(s, learned) for s in soundscapes}
    truth = {s.path.name: merged(s.events) for s in soundscapes}

    def found(
        scores: Scores, thresholds: np.ndarray, detector: EventDetector, options: RegionOptions
    ) -> Events:
        return _events(scores, thresholds, classes, detector, options)

    def best(scores: Scores, detector: EventDetector, options: RegionOptions) -> np.ndarray:
        return _best_thresholds(scores, truth, classes, detector, options)

    heard = {n: _of_classes(network, network.frame_scores(f), classes) for n, f in spectra.items()}
    # Events are smoothed where they are found; curves over thresholds ask of the same scores.
    smoothed = {n: smooth(v, network.frame_s, network.options.median_s) for n, v in heard.items()}
    thresholds = _of_classes(network, network.thresholds[None], classes, 1.0)[0]
    told = found(heard, thresholds, network, network.options)
    likest = {n: learned.frame_scores(f) for n, f in spectra.items()}
    # Curves over all thresholds ask of every class, whatever else a segment may be.
    every = {n: learned.frame_scores(f, every_class=True) for n, f in spectra.items()}
    matched = {n: templates.scores(f) for n, f in spectra.items()}
    own, there = network.options, learned.options
    systems: dict[str, tuple[Scores, Events]] = {
        "detector": (smoothed, told),
        "detector, best thresholds": (
            smoothed, found(heard, best(heard, network, own), network, own)
        ),
        "embeddings": (every, found(likest, learned.thresholds, learned, there)),
        "templates, best thresholds": (
            matched, found(matched, best(matched, learned, _TEMPLATES), learned, _TEMPLATES)
        ),
    }  # fmt: skip
    figures = {
        name: measure_detection(truth, events, values, network.frame_s, classes)
        for name, (values, events) in systems.items()
    }
    picture = options.out / "detection-confusion.png"
    options.out.mkdir(parents=True, exist_ok=True)
    from pipelines.evaluate_events.confusion_plot import plot_confusion

    plot_confusion(confusion(truth, told, classes), classes, picture)
    return Part(
        [_summary(figures, len(soundscapes)), _by_class(figures, classes)],
        {
            "sha256": trained.bundle.sha256,
            "classes": list(classes),
            "soundscapes": len(soundscapes),
            **{name: dataclasses.asdict(figure) for name, figure in figures.items()},
        },
        [picture],
    )


def missing_libraries() -> list[str]:
    """What this part needs and is not installed."""
    needed = ("scaper", "sed_eval", "sed_scores_eval")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return missing + ([] if shutil.which("sox") else ["the program sox"])


def confusion(truth: Events, found: Events, classes: Sequence[str]) -> np.ndarray:
    """What was said while each event sounded.

    Returns
    -------
    counts : np.ndarray [shape=(n_classes + 1, n_classes + 1), dtype=int]
        Rows are the truth, columns what was found; the last row is what was found where nothing
        of the kind overlaps it, the last column events during which nothing was found.
    """
    column = {label: number for number, label in enumerate(classes)}
    counts = np.zeros((len(classes) + 1, len(classes) + 1), int)
    for name, events in truth.items():
        rest = list(found.get(name, ()))
        for on, off, label in sorted(events):
            during = [e for e in rest if min(off, e[1]) - max(on, e[0]) > 0]
            if not during:
                counts[column[label], -1] += 1
                continue
            # The right one, if it is there; else the one that overlaps longest.
            best = max(during, key=lambda e: (e[2] == label, min(off, e[1]) - max(on, e[0])))
            counts[column[label], column[best[2]]] += 1
            rest.remove(best)
        for event in rest:
            counts[-1, column[event[2]]] += 1
    return counts


def _learn(context: Context, items: Sequence[Item], classes: Sequence[str]) -> EventModel:
    options, bundles = context.options, context.options.bundles
    bundle = load_bundle(bundles.event, bundles.precision)
    info = EncoderInfo(bundle.name, bundle.sha256, bundle.precision, bundle.dim)
    encoder = ClipEncoder(info, bundle.folder)
    scaling = Scaling.beside_mfcc(info.dim, encoder.spec) or Scaling.none(info.dim)

    def clips(role: str) -> Clips:
        mine = [i for i in items if i.role == role and i.split == "train"]
        return Clips.decode(mine, options.cache / "pcm", encoder.spec)

    data = mixture_set(
        clips("event"), clips("noise"), classes, encoder, scaling, N_MIXTURES, options.seed
    )
    return fit_events(data, encoder.spec, "event", info, scaling)


def _templates(
    items: Sequence[Item], classes: Sequence[str], detector: EventDetector, seed: int
) -> Any:
    from pipelines.evaluate_events.templates import TemplateDetector

    rng = np.random.default_rng(seed)
    sounds = []
    for number, label in enumerate(classes):
        mine = [i for i in items if i.role == "event" and i.split == "train" and i.label == label]
        for chosen in rng.permutation(len(mine))[:_TEMPLATES_PER_CLASS]:
            try:
                sounds.append((load_audio(mine[chosen].path, detector.spec.sample_rate), number))
            except AudioError:
                continue
    return TemplateDetector(sounds, len(classes), detector.spec)


def _frames(soundscape: Soundscape, detector: EventDetector) -> np.ndarray:
    signal = load_audio(soundscape.path, detector.spec.sample_rate)
    return log_mel(signal, detector.spec)[: len(signal) // detector.spec.hop_length]


def _of_classes(
    detector: EventDetector, values: np.ndarray, classes: Sequence[str], unknown: float = 0.0
) -> np.ndarray:
    # Columns in the order of the classes; those that the detector does not know are constant.
    chosen = np.full((len(values), len(classes)), unknown)
    for column, name in enumerate(classes):
        if name in detector.names:
            chosen[:, column] = values[:, detector.names.index(name)]
    return chosen


def _events(
    scores: Scores,
    thresholds: np.ndarray,
    classes: Sequence[str],
    detector: EventDetector,
    options: RegionOptions,
) -> dict[str, list[Truth]]:
    return {
        name: [
            (*detector.span(r.first, r.last, SECONDS), label)
            for label, regions in zip(
                classes,
                find_regions(values, thresholds, detector.frame_s, options),
                strict=True,
            )
            for r in regions
        ]
        for name, values in scores.items()
    }


def _best_thresholds(
    scores: Scores,
    truth: Events,
    classes: Sequence[str],
    detector: EventDetector,
    options: RegionOptions,
) -> np.ndarray:
    # Of each class, that of the best event F1.
    tried = []
    for threshold in _THRESHOLDS:
        found = _events(scores, np.full(len(classes), threshold), classes, detector, options)
        tried.append(f1_of(count_events(truth, found, classes).sum(axis=0)))
    best: np.ndarray = _THRESHOLDS[np.argmax(tried, axis=0)]
    return best


def _summary(figures: Mapping[str, DetectionFigures], n: int) -> Table:
    rows = [
        [name, _interval(f.f1), f"{f.precision:.2f}", f"{f.recall:.2f}", _interval(f.psds1)]
        for name, f in figures.items()
    ]
    columns = ["System", "Event F1, mean of classes", "Precision", "Recall", "PSDS1"]
    return Table(f"Detection in {n} soundscapes, 200 ms collar", columns, rows)


def _by_class(figures: Mapping[str, DetectionFigures], classes: Sequence[str]) -> Table:
    rows = [[c, *(f"{f.class_f1[c]:.2f}" for f in figures.values())] for c in classes]
    return Table("Event F1 of each class", ["Class", *figures], rows)


def _interval(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f}–{values[2]:.2f})"
