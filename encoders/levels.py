"""What a network sees of a window: log-mel levels or cepstra, whatever the recording's loudness."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from encoders.features import FeatureSpec, mfcc


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

    kind: ClassVar[str] = "log-mel"

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

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields, ready for JSON."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class MfccInput(LevelInput):
    """Cepstral coefficients of the levels, one set a frame, each coefficient standardised.

    Parameters
    ----------
    low, high, range_db
        The levels, as :class:`LevelInput` has them.
    n_mfcc : int
        Coefficients, from the 0th on (DCT-II, orthonormal): the bands that the network sees.
    mean, deviation : tuple of float [shape=(n_mfcc,)]
        Constants of the standardisation, from :meth:`fitted_to`. [default: none]
    """

    kind: ClassVar[str] = "mfcc"

    n_mfcc: int = 40
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.n_mfcc <= self.high - self.low:
            raise ValueError("need 1 <= n_mfcc <= high - low")
        if {len(self.mean), len(self.deviation)} not in ({0}, {self.n_mfcc}):
            raise ValueError("need one mean and one deviation for every coefficient, or none")
        # Equal inputs are equal: JSON gives lists.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "deviation", tuple(self.deviation))

    @property
    def n_bands(self) -> int:
        """Coefficients that the network sees."""
        return self.n_mfcc

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Coefficients of windows.

        Parameters
        ----------
        windows : np.ndarray [shape=(n, window_frames, n_mels)]
            Log-mel, dB.

        Returns
        -------
        coefficients : np.ndarray [shape=(n, window_frames, n_mfcc), dtype=float32]
            Around 0, with a deviation of about 1 once they are standardised.
        """
        levels = super().__call__(windows)
        coefficients = mfcc(levels, FeatureSpec(n_mels=self.high - self.low, n_mfcc=self.n_mfcc))
        if self.mean:
            coefficients -= np.asarray(self.mean, np.float32)
            coefficients /= np.asarray(self.deviation, np.float32)
        return coefficients

    def fitted_to(self, coefficients: np.ndarray) -> MfccInput:
        """The same with the constants of real sound.

        Parameters
        ----------
        coefficients : np.ndarray [shape=(n, window_frames, n_mfcc)]
            What this gives without a standardisation.
        """
        deviation = np.maximum(coefficients.std(axis=(0, 1)), 1e-3)
        return dataclasses.replace(
            self,
            mean=tuple(round(float(x), 6) for x in coefficients.mean(axis=(0, 1))),
            deviation=tuple(round(float(x), 6) for x in deviation),
        )


INPUTS: dict[str, type[LevelInput]] = {kind.kind: kind for kind in (LevelInput, MfccInput)}


def input_from_dict(fields: dict[str, Any]) -> LevelInput:
    """What :meth:`LevelInput.to_dict` wrote; without a kind it is log-mel.

    Raises
    ------
    ValueError, TypeError
        Unknown kind, or fields that do not fit it.
    """
    rest = dict(fields)
    kind = rest.pop("kind", LevelInput.kind)
    if kind not in INPUTS:
        raise ValueError(f"unknown kind of input {kind!r}; known: {', '.join(INPUTS)}")
    return INPUTS[kind](**rest)
