"""Scores of an evaluation: shares with their intervals, trade-offs, and when two sounds are one.

Pure functions; nothing here reads a file.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.integrate
import scipy.signal

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927).

    Parameters
    ----------
    hits, n : float
        ``n`` may be an effective number, and ``hits`` the share times ``n``.

    >>> wilson(0, 200)[1] < 0.02
    True
    """
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclasses.dataclass(frozen=True)
class Share:
    """So many of so many, with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        0 to 1; of nothing the share is 0, and the interval everything.
    n : float
        Trials; an effective number where the share is a mean of shares.
    """

    value: float
    low: float
    high: float
    n: float

    @classmethod
    def of(cls, hits: int, n: int) -> Share:
        """``hits`` of ``n``."""
        return cls(hits / n if n else 0.0, *wilson(hits, n), n)

    @classmethod
    def mean(cls, shares: Sequence[Share]) -> Share:
        """Mean over cells, each of the same weight whatever its ``n``; empty cells are left out.

        The interval is Wilson's at the effective number of trials. That takes all trials for
        alike, and so is a little wide where the cells differ.
        """
        filled = [share for share in shares if share.n]
        if not filled:
            return cls.of(0, 0)
        value = sum(share.value for share in filled) / len(filled)
        n = len(filled) ** 2 / sum(1 / share.n for share in filled)
        return cls(value, *wilson(value * n, n), n)

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a query.

    Attributes
    ----------
    score : float or None
        The system's evidence for its best candidate; None where it has none.
    accepted : bool
        By the system's own decision.
    recording, exact, near : bool
        The best candidate is the right recording; and within 0.25 s; within 0.5 s.
    same_recording, strictly_exact, strictly_near : bool
        The same where only the very recording and the very place count, and no repeat.
    error_s : float or None
        Absolute time error; None where the recording is wrong.
    correlation : float or None
        Of the clean query with the audio at the place named; None where that is the very place.
    shares : bool
        Of an absent query: the waveform at the place named has a part in common with it.
    """

    score: float | None = None
    accepted: bool = False
    recording: bool = False
    exact: bool = False
    near: bool = False
    same_recording: bool = False
    strictly_exact: bool = False
    strictly_near: bool = False
    error_s: float | None = None
    correlation: float | None = None
    shares: bool = False


# Where phases are compared.
_PHASE_BAND_HZ = 60.0, 6000.0

METRICS: dict[str, Callable[[Outcome], bool]] = {
    "recording": lambda o: o.recording,
    "exact": lambda o: o.exact,
    "near": lambda o: o.near,
    "recording_at_threshold": lambda o: o.recording and o.accepted,
    "exact_at_threshold": lambda o: o.exact and o.accepted,
    "same_recording": lambda o: o.same_recording,
    "strictly_exact": lambda o: o.strictly_exact,
    "strictly_near": lambda o: o.strictly_near,
    "strictly_exact_at_threshold": lambda o: o.strictly_exact and o.accepted,
}
"""Shares of the queries of a cell: by name, what counts as a hit."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Figures of one cell.

    Attributes
    ----------
    n : int
    shares : dict
        A :class:`Share` for each of :data:`METRICS`.
    median_error_s : float or None
        Over the queries whose recording is right.
    """

    n: int
    shares: dict[str, Share]
    median_error_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        shares = {name: share.to_dict() for name, share in self.shares.items()}
        return {"n": self.n, **shares, "median_error_s": self.median_error_s}


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Figures of the outcomes of one cell."""
    n = len(outcomes)
    shares = {name: Share.of(sum(map(hit, outcomes)), n) for name, hit in METRICS.items()}
    errors = [o.error_s for o in outcomes if o.error_s is not None]
    return Summary(n, shares, statistics.median(errors) if errors else None)


@dataclasses.dataclass(frozen=True)
class DetectionCurve:
    """Detection trade-off: one point for each threshold, from the strictest to none.

    Attributes
    ----------
    thresholds : np.ndarray [shape=(n,)]
        Falling; the first is infinite.
    false_accepts : np.ndarray [shape=(n,)]
        Share of the absent queries that pass.
    kept : np.ndarray [shape=(n,)]
        Share of the present queries that are exact and pass.
    area : float
        Under ``kept`` as ``false_accepts`` goes from 0 to 1.
    """

    thresholds: np.ndarray
    false_accepts: np.ndarray
    kept: np.ndarray
    area: float

    def kept_at(self, false_accepts: float) -> float:
        """Greatest share kept at no more false accepts than that."""
        return float(self.kept[self.false_accepts <= false_accepts].max())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the infinite threshold becomes None."""
        return {
            "thresholds": [None, *self.thresholds[1:].tolist()],
            "false_accepts": self.false_accepts.tolist(),
            "kept": self.kept.tolist(),
            "area": self.area,
        }


def detection_curve(present: Sequence[Outcome], absent: Sequence[Outcome]) -> DetectionCurve:
    """Trade-off between what is found and what is accepted though it is not there.

    Parameters
    ----------
    present, absent : sequence of Outcome
        Of queries that are in the data base: kept is what is exact and passes; and of queries that
        are not.
    """
    good = np.sort([o.score for o in present if o.exact and o.score is not None])
    bad = np.sort([o.score for o in absent if o.score is not None])
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([good, bad]))[::-1]])

    def passing(scores: np.ndarray, of: int) -> np.ndarray:
        return (len(scores) - np.searchsorted(scores, thresholds, "left")) / max(1, of)

    false_accepts, kept = passing(bad, len(absent)), passing(good, len(present))
    # Beyond the last threshold nothing more is found.
    area = scipy.integrate.trapezoid(np.append(kept, kept[-1]), np.append(false_accepts, 1.0))
    return DetectionCurve(thresholds, false_accepts, kept, float(area))


def correlate(clip: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of a clip with every place of a longer stretch.

    Parameters
    ----------
    clip : np.ndarray [shape=(n,)]
    stretch : np.ndarray [shape=(m,)]
        ``m >= n``.

    Returns
    -------
    correlation : np.ndarray [shape=(m - n + 1,)]
        1 where the stretch holds the clip, at any level; 0 where either is silent.
    """
    clip, stretch = clip.astype(np.float64), stretch.astype(np.float64)
    products = scipy.signal.correlate(stretch, clip, mode="valid", method="fft")
    sums = np.concatenate([[0.0], np.cumsum(np.square(stretch))])
    energy = float(np.sum(np.square(clip))) * (sums[len(clip) :] - sums[: -len(clip)])
    # Of silence, sums leave rounding errors.
    sounding = energy > 1e-9 * float(np.max(energy, initial=0.0))
    scale = np.sqrt(np.where(sounding, energy, 1.0))
    return np.where(sounding, products / scale, 0.0)


def phase_correlate(clip: np.ndarray, stretch: np.ndarray, sample_rate: int) -> np.ndarray:
    """Phase correlation of a clip with every place of a longer stretch.

    All frequencies weigh the same, so that what both have in common, such as one instrument of a
    mix, stands out at the place where it is the same, however loud the rest is (Knapp and Carter,
    "The generalized correlation method for estimation of time delay", 1976).

    Parameters
    ----------
    clip : np.ndarray [shape=(n,)]
    stretch : np.ndarray [shape=(m,)]
        ``m >= n``.
    sample_rate : int
        In Hz.

    Returns
    -------
    deviations : np.ndarray [shape=(m - n + 1,)]
        Magnitudes, in parts of their root mean square; 0 where either is silent.
    """
    n = scipy.fft.next_fast_len(len(clip) + len(stretch), real=True)
    cross = scipy.fft.rfft(stretch, n) * np.conj(scipy.fft.rfft(clip, n))
    hertz = scipy.fft.rfftfreq(n, 1 / sample_rate)
    # Rumble, and what codecs leave out.
    cross[(hertz < _PHASE_BAND_HZ[0]) | (hertz > _PHASE_BAND_HZ[1])] = 0.0
    size = np.abs(cross)
    phases = np.where(size > 0, cross / np.maximum(size, np.finfo(np.float32).tiny), 0.0)
    magnitudes = np.abs(scipy.fft.irfft(phases, n)[: len(stretch) - len(clip) + 1])
    deviation = float(np.sqrt(np.mean(np.square(magnitudes))))
    return magnitudes / deviation if deviation else magnitudes
