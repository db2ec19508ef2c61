"""Sounds over ambience to learn from: an event model that has heard mixtures.

Recordings of single sounds are not what a microphone hears. Here they are put on top of ambience,
as log-mel frames, cut as a detector cuts a clip, and embedded: what is cut where a sound was put
in is an example of it, and whatever else is cut is background.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from encoders.clips import Clips
from encoders.features import FeatureSpec
from encoders.loudness import loudness
from encoders.mixtures import LONGEST_S, add_frames, stretch_of, trimmed
from index.clips import ClipEncoder
from index.event_examples import TrainingSet
from index.event_segment_detector import embed_segments
from index.event_segments import Segment, find_segments
from index.scaling import Scaling

_SECONDS = 10.0
_MOST_EVENTS = 5
_SNR_DB = (0.0, 20.0)
# A tilt of the spectrum, dB at its ends, for other microphones.
_TILT_DB = 4.0
# So often it is a sound of none of the classes.
_P_STRANGER = 0.25
_N_FOLDS = 3
# What is cut is the sound, if it begins as near to it as this, and they share so much of both.
_NEAR_S = 0.2
_SHARED = 0.3


def mixture_set(
    sounds: Clips,
    ambience: Clips,
    classes: Sequence[str],
    encoder: ClipEncoder,
    scaling: Scaling,
    n: int,
    seed: int = 0,
) -> TrainingSet:
    """Windows of mixtures, for :func:`index.event_training.fit_events`.

    Parameters
    ----------
    sounds : Clips
        Single sounds with labels; those of other labels than ``classes``, or none, are strangers.
    ambience : Clips
    classes : sequence of str
    encoder : ClipEncoder
    scaling : Scaling
        Of the column that the model is for.
    n : int
        Mixtures of 10 s, with one to five sounds 0 to 20 dB above the ambience.
    seed : int

    Returns
    -------
    data : TrainingSet
        Each segment is there with all that sounds beside it, which is how a catalog stores it,
        and on its own. A mixture holds sounds of some sources only, to be held back together.
    """
    spec = encoder.spec
    rng = np.random.default_rng(seed)
    folds = _folds(sounds, classes, rng)
    vectors, labels, groups, numbers = [], [], [], []
    for number in range(n):
        fold = number % len(folds)
        frames, truth = _mix(sounds, ambience, folds[fold], rng, spec)
        segments = find_segments(frames, spec)
        # With what is beside it, the onset lies anywhere in the window.
        leads = rng.integers(spec.window_frames, size=len(segments))
        firsts = np.clip(
            [s.first - lead for s, lead in zip(segments, leads, strict=True)],
            0, len(frames) - spec.window_frames,
        )  # fmt: skip
        windows = np.stack([frames[first : first + spec.window_frames] for first in firsts])
        vectors += [
            embed_segments(frames, segments, encoder, scaling),
            encoder.embed(windows, np.zeros(len(windows))).rows(scaling),
        ]
        labels += [_label(s, truth, spec.sample_rate / spec.hop_length) for s in segments] * 2
        groups += [fold] * (2 * len(segments))
        numbers += list(range(len(labels) // 2 - len(segments), len(labels) // 2)) * 2
    stacked = scaling(np.concatenate(vectors))
    heard = stacked.any(axis=1)
    targets = np.array([[c == label for c in classes] for label in labels], np.int8)[heard]
    examples = np.array(numbers)[heard]
    return TrainingSet(
        list(classes), stacked[heard], targets,
        np.where(targets.any(axis=1), examples, -1), examples, np.array(groups)[heard],
        np.ones(int(heard.sum()), bool), segments=True,
    )  # fmt: skip


def _folds(
    sounds: Clips, classes: Sequence[str], rng: np.random.Generator
) -> list[dict[str, list[int]]]:
    # Sounds by class ("" for strangers), of sources that share no fold; each source goes where
    # its classes are scarcest.
    label_of = [i.label if i.label in classes else "" for i in sounds.items]
    totals = Counter(label_of)
    sources: dict[str, list[int]] = defaultdict(list)
    for number in rng.permutation(len(sounds)).tolist():
        sources[sounds.items[number].source].append(number)
    folds: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(_N_FOLDS)]
    for mine in sorted(sources.values(), key=len, reverse=True):
        held = [sum(len(f[label_of[k]]) / totals[label_of[k]] for k in mine) for f in folds]
        for k in mine:
            folds[int(np.argmin(held))][label_of[k]].append(k)
    return [dict(fold) for fold in folds if fold]


def _mix(
    sounds: Clips, ambience: Clips, fold: dict[str, list[int]], rng: np.random.Generator,
    spec: FeatureSpec,
) -> tuple[np.ndarray, list[tuple[int, int, str]]]:  # fmt: skip
    # Frames, and first frame, end and label of what was put in.
    per_second = spec.sample_rate / spec.hop_length
    n = round(_SECONDS * per_second)
    frames = stretch_of(ambience.frames[int(rng.integers(len(ambience)))], n, rng)
    below = loudness(frames, spec)
    truth = []
    labels = sorted(label for label, members in fold.items() if label and members)
    for _ in range(int(rng.integers(1, _MOST_EVENTS + 1))):
        stranger = not labels or (bool(fold.get("")) and rng.random() < _P_STRANGER)
        label = "" if stranger else labels[int(rng.integers(len(labels)))]
        members = fold[label]
        sound = sounds.frames[members[int(rng.integers(len(members)))]].astype(np.float32)
        sound = trimmed(sound, round(LONGEST_S * per_second))
        tilt = rng.uniform(-_TILT_DB, _TILT_DB) * np.linspace(-1, 1, sound.shape[1])
        gain = below + rng.uniform(*_SNR_DB)
        first = int(rng.integers(n - round(per_second)))
        sound = (sound + tilt.astype(np.float32))[: n - first]
        sound += np.float32(gain - loudness(sound, spec))
        end = first + len(sound)
        frames[first:end] = add_frames(frames[first:end], sound)
        truth.append((first, end, label))
    return frames, truth


def _label(segment: Segment, truth: list[tuple[int, int, str]], per_second: float) -> str:
    best, found = _SHARED, ""
    for first, end, label in truth:
        shared = min(end, segment.end) - max(first, segment.first)
        share = shared / max(end - first, segment.end - segment.first)
        if abs(segment.first - first) <= _NEAR_S * per_second and share > best:
            best, found = share, label
    return found
