"""Sound events of a clip by a model that was learned over stored embeddings.

The clip is cut where something begins to sound, each of these segments is embedded on its own and
gets one score for each class. Boxes with a score tell more than frames alone (Ebbers et al.,
"Sound event bounding boxes", 2024).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoders.features import FLOOR_DB, cut_windows
from index.clips import ClipEncoder
from index.event_detector import EventDetector
from index.event_model import EventModel
from index.event_regions import RegionOptions
from index.event_segments import Segment, find_segments, segment_windows
from index.scaling import Scaling

HOP_S = 0.125
"""Between windows, s: a quarter of the step that is stored."""

# What is this far below a sound beside it cannot be told from a window with both.
_DROWNED_DB = 10.0

# A window speaks for so much on either side of its middle.
_REACH_S = 0.25

_SEGMENTS_PER_BATCH = 128
_WINDOWS_PER_BATCH = 512


class SegmentDetector(EventDetector):
    """Finds the sound events that a model of a catalog knows.

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

    options = RegionOptions(median_s=0.0, low=0.5, gap_s=0.1, min_s=0.03)
    # A spectrum begins to rise as soon as its frame reaches a sound.
    onset_frames, offset_frames = 0.75, 1.5

    def __init__(
        self, model: EventModel, bundle: str | Path | None = None, hop_s: float = HOP_S
    ) -> None:
        self.model = model
        self.encoder = ClipEncoder(model.encoder, bundle)
        super().__init__(model.names, model.thresholds, self.encoder.spec)
        model.check(model.column, model.encoder, self.spec)
        self.hop_frames = max(1, round(hop_s * self.spec.sample_rate / self.spec.hop_length))

    def frame_scores(self, frames: np.ndarray, every_class: bool = False) -> np.ndarray:
        """Those of the likest class of each segment, all through it."""
        scores = np.zeros((len(frames), len(self.model.classes)))
        segments = find_segments(frames, self.spec)
        for segment, values in zip(segments, self.segment_scores(frames, segments), strict=True):
            told = slice(None) if every_class else int(np.argmax(values))
            inside = scores[segment.first : segment.end, told]
            np.maximum(inside, values[told], out=inside)
        return scores

    def segment_scores(self, frames: np.ndarray, segments: list[Segment]) -> np.ndarray:
        """Scores of segments [shape=(n_segments, n_classes)].

        Of the segments alone, if the model has learned from such; else the best of the windows
        around each, unless a louder sound is in them.
        """
        if self.model.segments:
            rows = embed_segments(frames, segments, self.encoder, self.model.scaling)
            return self.model.scores(self.model.scaling(rows))
        loudness = frames.max(axis=1)
        windows = self.window_scores(frames)
        reach, half = round(_REACH_S / self.frame_s), self.spec.window_frames // 2
        scores = np.zeros((len(segments), windows.shape[1]), np.float32)
        for values, s in zip(scores, segments, strict=True):
            near = loudness[max(0, s.first - half) : s.end + half].max()
            if loudness[s.first : s.end].max() >= near - _DROWNED_DB:
                first = max(0, s.first - reach) // self.hop_frames
                values[:] = windows[first : (s.end + reach) // self.hop_frames + 1].max(axis=0)
        return scores

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
        scores = []
        for start in range(0, len(windows), _WINDOWS_PER_BATCH):
            batch = windows[start : start + _WINDOWS_PER_BATCH]
            rows = self.encoder.embed(batch, np.zeros(len(batch))).rows(self.model.scaling)
            scores.append(self.model.scores(self.model.scaling(rows)))
        return np.concatenate(scores)


def embed_segments(
    frames: np.ndarray, segments: list[Segment], encoder: ClipEncoder, scaling: Scaling
) -> np.ndarray:
    """Embed segments without what sounds beside them.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
    segments : list of Segment
    encoder : ClipEncoder
    scaling : Scaling
        That the rows are for.

    Returns
    -------
    rows : np.ndarray [shape=(n_segments, scaling.width), dtype=float32]
        Means over the windows of each; an embedding of zeros where it is silent.
    """
    means = np.zeros((len(segments), scaling.width), np.float32)
    for start in range(0, len(segments), _SEGMENTS_PER_BATCH):
        batch = slice(start, start + _SEGMENTS_PER_BATCH)
        cut = [segment_windows(frames, segment, encoder.spec) for segment in segments[batch]]
        counts = np.array([len(c) for c in cut])
        windows = np.concatenate(cut)
        rows = encoder.embed(windows, np.zeros(len(windows))).rows(scaling)
        totals = np.add.reduceat(rows, np.cumsum(counts) - counts)
        means[batch] = totals / counts[:, None]
    return means
