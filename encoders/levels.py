"""What a network sees of a window: levels between 0 and 1, whatever the recording's loudness."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class LevelInput:
    """A range of mel bands, relative to the loudest point of the window.

    Parameters
    ----------
    low, high : int
        Mel bands ``low`` to ``high - 1`` are used.
    range_db : float
        This far below the loudest point, and further, is 0; the loudest point is 1.
    """

    low: int
    high: int
    range_db: float = 80.0

    @property
    def n_bands(self) -> int:
        """Bands that the network sees."""
        return self.high - self.low

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Scale windows.

        Parameters
        ----------
        windows : np.ndarray [shape=(n, window_frames, n_mels)]
            Log-mel, dB.

        Returns
        -------
        levels : np.ndarray [shape=(n, window_frames, n_bands), dtype=float32]
            In 0..1.
        """
        seen = windows[:, :, self.low : self.high]
        loudest = seen.max(axis=(1, 2), keepdims=True)
        levels = (seen - loudest) * np.float32(1.0 / self.range_db)
        levels += np.float32(1.0)
        return np.maximum(levels, np.float32(0.0), out=levels)
