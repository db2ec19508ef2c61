"""Sound events of a clip that is in no catalog: fine steps, exact onsets and offsets."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from encoders.features import FLOOR_DB, FeatureSpec, cut_windows, log_mel
from index.clips import ClipEncoder, Source, content_id
from index.event_activity import sharpen
from index.event_model import EventModel
from index.event_regions import RegionOptions, find_regions
from index.schema import Event

HOP_S = 0.125
"""Between windows, s: a quarter of the step that is stored."""

CLIP = RegionOptions(median_s=0.16, low=0.5, gap_s=0.2, min_s=0.06)
"""How scores of a clip's frames become events."""

_REACH_S = 0.25

_WINDOWS_PER_BATCH = 512


@dataclasses.dataclass(frozen=True)
class Detection:
    """What was found in a clip.

    Attributes
    ----------
    events : list of Event
        Best first.
    names : list of str
        The classes.
    times : np.ndarray [shape=(n,)]
        Where each frame is, s.
    scores : np.ndarray [shape=(n, n_classes)]
        Of the frames.
    frames : np.ndarray [shape=(n, n_mels)]
        Log-mel of the clip, dB.
    seconds : float
    """

    events: list[Event]
    names: list[str]
    times: np.ndarray
    scores: np.ndarray
    frames: np.ndarray
    seconds: float


class EventDetector:
    """Finds the sound events that a model knows.

    >>> detector = EventDetector(EventModel.load(folder))
    >>> for event in detector.detect("walk.flac").events:
    ...     print(event.label, event.onset_s, event.offset_s, event.score)

    Parameters
    ----------
    model : EventModel
    bundle : str or Path, optional
        Folder of its encoder, when it is not one of those that come with earmark.
    hop_s : float
        Between windows, s.

    Raises
    ------
    EarmarkError
        If the encoder at hand is another one than that of the model, or has other features.
    """

    def __init__(
        self, model: EventModel, bundle: str | Path | None = None, hop_s: float = HOP_S
    ) -> None:
        self.model = model
        self.encoder = ClipEncoder(model.encoder, bundle)
        self.spec: FeatureSpec = self.encoder.spec
        model.check(model.column, model.encoder, self.spec)
        self.hop_frames = max(1, round(hop_s * self.spec.sample_rate / self.spec.hop_length))
        self.frame_s = self.spec.hop_length / self.spec.sample_rate

    def detect(
        self,
        clip: Source,
        min_score: float | None = None,
        options: RegionOptions = CLIP,
        name: str | None = None,
    ) -> Detection:
        """Find events in a clip.

        Parameters
        ----------
        clip : path, bytes or open file
        min_score : float, optional
            [default: the threshold of each class]
        options : RegionOptions
        name : str, optional
            What the events call the clip. [default: the path]

        Raises
        ------
        AudioError
            If it gives no audio.
        """
        if name is None:
            name = os.fspath(clip) if isinstance(clip, (str, os.PathLike)) else "stream"
        signal = self.encoder.load(clip)
        seconds = len(signal) / self.spec.sample_rate
        frames = log_mel(signal, self.spec)[: 1 + len(signal) // self.spec.hop_length]
        scores = self.frame_scores(frames)
        thresholds = self.model.thresholds
        if min_score is not None:
            thresholds = np.full(len(thresholds), min_score)
        found = []
        by_class = find_regions(scores, thresholds, self.frame_s, options)
        for label, regions in zip(self.model.names, by_class, strict=True):
            for region in regions:
                onset = max(0.0, (region.first - 0.5) * self.frame_s)
                offset = min(seconds, (region.last + 0.5) * self.frame_s)
                found.append((round(region.score, 4), round(onset, 3), round(offset, 3), label))
        found.sort(key=lambda event: (-event[0], *event[1:]))
        own = content_id(clip)
        events = [
            Event(name, rank, name, own, onset, offset, label, score)
            for rank, (score, onset, offset, label) in enumerate(found, 1)
        ]
        times = np.arange(len(scores)) * self.frame_s
        return Detection(events, self.model.names, times, scores, frames, seconds)

    def frame_scores(self, frames: np.ndarray) -> np.ndarray:
        """Scores of the frames of a clip [shape=(n_frames, n_classes)].

        High where the window around a frame is of the class and something stands out just then.

        Parameters
        ----------
        frames : np.ndarray [shape=(n_frames, n_mels)]
            Log-mel, dB.
        """
        scores = self.window_scores(frames)
        return sharpen(scores, self.hop_frames, frames, self.spec, _REACH_S)

    def window_scores(self, frames: np.ndarray) -> np.ndarray:
        """Scores of the windows around every step of a clip [shape=(n_steps, n_classes)].

        Parameters
        ----------
        frames : np.ndarray [shape=(n_frames, n_mels)]
            Log-mel, dB. Before and after it is silence.
        """
        half = self.spec.window_frames // 2
        padded = np.pad(frames, ((half, half), (0, 0)), constant_values=FLOOR_DB)
        windows = cut_windows(padded, self.spec, self.hop_frames)
        batches = []
        for start in range(0, len(windows), _WINDOWS_PER_BATCH):
            batch = windows[start : start + _WINDOWS_PER_BATCH]
            embedded = self.encoder.embed(batch, np.zeros(len(batch))).embeddings
            batches.append(self.model.scores(self.model.scaling(embedded)))
        return np.concatenate(batches)
