"""The baseline of detection: normalised matching of spectrogram templates, without learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.signal

from encoders.features import FeatureSpec, log_mel

_LONGEST_S = 1.0


class TemplateDetector:
    """Normalised cross-correlation of log-mel templates with a recording (Lewis 1995).

    Parameters
    ----------
    sounds : sequence of (np.ndarray, int)
        Examples: a signal at ``spec.sample_rate``, and the number of its class.
    n_classes : int
    spec : FeatureSpec
    """

    def __init__(
        self, sounds: Sequence[tuple[np.ndarray, int]], n_classes: int, spec: FeatureSpec
    ) -> None:
        self._spec = spec
        self._n_classes = n_classes
        longest = round(_LONGEST_S * spec.sample_rate)
        self._templates = []
        for signal, number in sounds:
            n_frames = 1 + min(len(signal), longest) // spec.hop_length
            patch = log_mel(signal[:longest], spec)[:n_frames]
            patch = patch - patch.mean()
            if patch.any():
                self._templates.append((patch / np.linalg.norm(patch), number))

    def scores(self, frames: np.ndarray) -> np.ndarray:
        """Correlation with the likest template around every frame, negative ones set to 0.

        Parameters
        ----------
        frames : np.ndarray [shape=(n_frames, n_mels)]
            Log-mel of the recording, dB.

        Returns
        -------
        scores : np.ndarray [shape=(n_frames, n_classes)]
            A template that fits marks all of its length.
        """
        scores = np.zeros((len(frames), self._n_classes))
        sums = np.concatenate([[0.0], np.cumsum(frames.sum(axis=1, dtype=np.float64))])
        squares = np.concatenate([[0.0], np.cumsum((frames.astype(np.float64) ** 2).sum(axis=1))])
        for patch, number in self._templates:
            n = len(patch)
            if n > len(frames):
                continue
            size = n * frames.shape[1]
            total, power = sums[n:] - sums[:-n], squares[n:] - squares[:-n]
            energy = np.sqrt(np.maximum(power - total**2 / size, 1e-6))
            # The template has no mean, so that the recording's need not be taken off.
            products = scipy.signal.fftconvolve(frames, patch[::-1], mode="valid", axes=0).sum(
                axis=1
            )
            likeness = np.maximum(products / energy, 0.0)
            at = np.pad(likeness, (n - 1, n - 1))
            spread = np.lib.stride_tricks.sliding_window_view(at, n).max(axis=1)
            scores[:, number] = np.maximum(scores[:, number], spread)
        return scores
