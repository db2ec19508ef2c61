"""Sound events of clips, with exact onsets and offsets: what every detector of them does."""

from __future__ import annotations

import abc
import dataclasses
import os

import numpy as np

from encoders.detector import Detector, condition
from encoders.features import FeatureSpec, log_mel
from index.clips import Source, content_id, load_stretch
from index.event_model import check_names
from index.event_regions import RegionOptions, find_regions
from index.schema import Event


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


class EventDetector(abc.ABC):
    """Finds sound events in clips.

    Parameters
    ----------
    names : list of str
        The classes.
    thresholds : np.ndarray [shape=(n_classes,)]
        Score from which each is reported.
    spec : FeatureSpec

    Attributes
    ----------
    options : RegionOptions
        How scores of frames become events, unless :meth:`detect` is told otherwise.
    onset_frames, offset_frames : float
        How far into the first frame of an event it begins, and into the last one it ends.
    """

    options: RegionOptions
    onset_frames: float
    offset_frames: float

    def __init__(self, names: list[str], thresholds: np.ndarray, spec: FeatureSpec) -> None:
        self.names, self.thresholds, self.spec = names, thresholds, spec
        self.frame_s = spec.hop_length / spec.sample_rate

    @abc.abstractmethod
    def frame_scores(self, frames: np.ndarray, every_class: bool = False) -> np.ndarray:
        """Scores of the frames of a clip.

        Parameters
        ----------
        frames : np.ndarray [shape=(n_frames, n_mels)]
            Log-mel, dB.
        every_class : bool
            Those of classes as well that another is likelier than, for who looks at all
            thresholds.

        Returns
        -------
        scores : np.ndarray [shape=(n_frames, n_classes)]
            0 to 1.
        """

    def detect(
        self,
        clip: Source,
        min_score: float | None = None,
        options: RegionOptions | None = None,
        name: str | None = None,
    ) -> Detection:
        """Find events in a clip.

        >>> for event in detector.detect("walk.flac").events:
        ...     print(event.label, event.onset_s, event.offset_s, event.score)

        Parameters
        ----------
        clip : path, bytes or open file
        min_score : float, optional
            [default: the threshold of each class]
        options : RegionOptions, optional
        name : str, optional
            What the events call the clip. [default: the path]

        Raises
        ------
        AudioError
            If it gives no audio.
        """
        if name is None:
            name = os.fspath(clip) if isinstance(clip, (str, os.PathLike)) else "stream"
        signal = load_stretch(clip, self.spec.sample_rate)
        seconds = len(signal) / self.spec.sample_rate
        frames = log_mel(signal, self.spec)[: 1 + len(signal) // self.spec.hop_length]
        scores = self.frame_scores(frames)
        thresholds = self.thresholds
        if min_score is not None:
            thresholds = np.full(len(thresholds), min_score)
        found = []
        by_class = find_regions(scores, thresholds, self.frame_s, options or self.options)
        for label, regions in zip(self.names, by_class, strict=True):
            for region in regions:
                onset, offset = self.span(region.first, region.last, seconds)
                found.append((round(region.score, 4), round(onset, 3), round(offset, 3), label))
        found.sort(key=lambda event: (-event[0], *event[1:]))
        own = content_id(clip)
        events = [
            Event(name, rank, name, own, onset, offset, label, score)
            for rank, (score, onset, offset, label) in enumerate(found, 1)
        ]
        times = np.arange(len(scores)) * self.frame_s
        return Detection(events, self.names, times, scores, frames, seconds)

    def span(self, first: int, last: int, seconds: float) -> tuple[float, float]:
        """Onset and offset of a run of frames, s."""
        onset = (first + self.onset_frames) * self.frame_s if first else 0.0
        return min(onset, seconds), min((last + self.offset_frames) * self.frame_s, seconds)


class NetworkDetector(EventDetector):
    """Finds the sound events that a detector network knows.

    Parameters
    ----------
    network : Detector
    classes : list of str, optional
        Only these: what the network takes for another class may then be one of them.
        [default: all that it knows]

    Raises
    ------
    EarmarkError
        If it does not know one of them.
    """

    options = RegionOptions(median_s=0.19, low=0.3, gap_s=0.1, min_s=0.06)
    onset_frames, offset_frames = 1.0, 0.0

    def __init__(self, network: Detector, classes: list[str] | None = None) -> None:
        known = network.classes
        super().__init__(known, network.thresholds, network.spec)
        self.network = network
        if classes:
            check_names(classes, known)
            self.names = classes
        self._chosen = [known.index(name) for name in self.names]
        self.thresholds = self.thresholds[self._chosen]

    def frame_scores(self, frames: np.ndarray, every_class: bool = False) -> np.ndarray:
        """Those that the network gives; its classes are independent of each other."""
        return condition(self.network.scores(frames), self._chosen)
