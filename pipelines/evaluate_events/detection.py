"""Detection in time: made soundscapes, an event model, and template matching on the same sounds."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encoders.audio import load_audio
from encoders.bundle import load_bundle
from encoders.corpus import Item
from encoders.errors import AudioError, EarmarkError
from encoders.features import log_mel
from index.catalog import Catalog
from index.column_index import ColumnIndex
from index.event_detector import CLIP, EventDetector
from index.event_learning import learn
from index.event_model import EventModel
from index.event_regions import find_regions
from index.label_files import BACKGROUND, read_csv, read_labels, resolve_labels
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
    Soundscape,
    make_soundscapes,
    merged,
    write_labels,
)
from pipelines.ingest import IngestOptions, ingest

N_CLASSES = 15
N_TRAIN, N_TEST = 100, 60
N_OTHERS = 1000

_TEMPLATES_PER_CLASS = 8
_THRESHOLDS = np.linspace(0.05, 0.95, 37)


@dataclasses.dataclass(frozen=True)
class _System:
    # What a detector says of every soundscape: scores of frames [shape=(n_frames, n_classes)].
    name: str
    train: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]


def evaluate_detection(context: Context) -> Part:
    """Learn from the split train, detect in soundscapes of the split that is asked about.

    The classes are those with most recordings in the scarcer of the two splits. Thresholds are
    chosen on soundscapes of the split train, of its own sounds and ambience.

    Raises
    ------
    EarmarkError
        If scaper, sed_eval or sed_scores_eval is missing, or there are too few sounds.
    """
    if missing := missing_libraries():
        raise EarmarkError(
            f"the part detection needs {', '.join(missing)}: pip install 'earmark[evaluate]', and "
            "SoX for scaper (apt-get install sox libsox-dev); or leave it out with --parts"
        )
    options, items = context.options, context.items
    classes = best_covered(items, options.split)
    made = {
        split: make_soundscapes(
            items, split, classes, n,
            options.cache / f"soundscapes-{split}-{n}-{options.seed}", options.seed,
        )
        for split, n in (("train", N_TRAIN), (options.split, N_TEST))
    }  # fmt: skip
    train, test = made["train"], made[options.split]
    model = _learn(context, items, classes, train)
    detector = EventDetector(model, options.bundles.event)
    templates = _templates(items, classes, detector, options.seed)
    spectra = {s.path.name: _frames(s, detector) for s in (*train, *test)}

    def system(name: str, score: Any) -> _System:
        return _System(
            name,
            {s.path.name: score(spectra[s.path.name]) for s in train},
            {s.path.name: score(spectra[s.path.name]) for s in test},
        )

    systems = [system("earmark", detector.frame_scores), system("templates", templates.scores)]
    figures, confusions = {}, {}
    for each in systems:
        thresholds = _choose_thresholds(each.train, _truth(train), detector.frame_s, classes)
        found = _events(each.test, thresholds, detector.frame_s, classes)
        figures[each.name] = measure_detection(
            _truth(test), found, each.test, detector.frame_s, classes
        )
        confusions[each.name] = confusion(_truth(test), found, classes)
    picture = options.out / "detection-confusion.png"
    options.out.mkdir(parents=True, exist_ok=True)
    from pipelines.evaluate_events.confusion_plot import plot_confusion

    plot_confusion(confusions["earmark"], classes, picture)
    return Part(
        [_summary(figures, len(test)), _by_class(figures, classes)],
        {
            "classes": list(classes),
            "soundscapes": {"train": len(train), options.split: len(test)},
            **{name: dataclasses.asdict(figure) for name, figure in figures.items()},
        },
        [picture],
    )


def missing_libraries() -> list[str]:
    """What this part needs and is not installed."""
    needed = ("scaper", "sed_eval", "sed_scores_eval")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return missing + ([] if shutil.which("sox") else ["the program sox"])


def best_covered(items: Sequence[Item], split: str, n: int = N_CLASSES) -> list[str]:
    """The classes with most recordings in the scarcer of train and ``split``, by name.

    Raises
    ------
    EarmarkError
        If there are none.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"train": 0, split: 0})
    for item in items:
        if item.role == "event" and item.label and item.split in ("train", split):
            counts[item.label][item.split] += 1
    ranked = sorted(counts, key=lambda label: (-min(counts[label].values()), label))
    chosen = sorted(label for label in ranked[:n] if min(counts[label].values()) > 0)
    if not chosen:
        raise EarmarkError(f"no kind of sound is in both splits, train and {split}")
    return chosen


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


def _learn(
    context: Context, items: Sequence[Item], classes: Sequence[str], train: Sequence[Soundscape]
) -> EventModel:
    # From the sounds alone, from the same sounds in ambience, and against other sounds.
    options, bundles = context.options, context.options.bundles
    folder = train[0].path.parent
    labels, sounds = folder.parent / "labels.csv", folder.parent / "sounds.csv"
    write_labels(train, labels)
    events = [i for i in items if i.role == "event" and i.split == "train" and i.label]
    others = [item for item in events if item.label not in classes]
    drawn = np.random.default_rng(options.seed).permutation(len(others))[:N_OTHERS]
    with sounds.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["uri", "label"])
        out.writerows([i.path.absolute(), i.label] for i in events if i.label in classes)
        out.writerows([others[i].path.absolute(), BACKGROUND] for i in drawn)
    key = load_bundle(bundles.event, bundles.precision).sha256[:12]
    catalog_dir = folder.parent / f"catalog-{key}-{bundles.precision}"
    ingest(
        [str(sounds), str(folder)], catalog_dir,
        IngestOptions(
            fingerprint=bundles.fingerprint, vae=bundles.vae,
            encoders=f"event={bundles.event}", precision=bundles.precision, build_index=False,
        ),
    )  # fmt: skip
    catalog = Catalog.open(catalog_dir)
    index = ColumnIndex.open(catalog, "event")
    written = [*read_labels("manifest", index.recordings), *read_csv(labels)]
    resolved = resolve_labels(written, index.recordings, classes)
    return learn(index, catalog.config.spec, resolved, catalog_dir / "events" / "default")


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


def _truth(soundscapes: Sequence[Soundscape]) -> dict[str, list[tuple[float, float, str]]]:
    return {s.path.name: merged(s.events) for s in soundscapes}


def _events(
    scores: Mapping[str, np.ndarray], thresholds: np.ndarray, frame_s: float, classes: Sequence[str]
) -> dict[str, list[tuple[float, float, str]]]:
    return {
        name: [
            (max(0.0, (r.first - 0.5) * frame_s), (r.last + 0.5) * frame_s, label)
            for label, regions in zip(
                classes, find_regions(values, thresholds, frame_s, CLIP), strict=True
            )
            for r in regions
        ]
        for name, values in scores.items()
    }


def _choose_thresholds(
    scores: Mapping[str, np.ndarray], truth: Events, frame_s: float, classes: Sequence[str]
) -> np.ndarray:
    # For each class the one with the best event F1.
    tried = []
    for threshold in _THRESHOLDS:
        found = _events(scores, np.full(len(classes), threshold), frame_s, classes)
        tried.append(f1_of(count_events(truth, found, classes).sum(axis=0)))
    chosen: np.ndarray = _THRESHOLDS[np.argmax(tried, axis=0)]
    return chosen


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
