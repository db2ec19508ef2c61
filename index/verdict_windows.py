"""The kind of a pair whose files are gone, by the fingerprints that ingest kept of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from index.compare import best_stretch
from index.schema import DuplicateKind
from index.verdict import SPARE_S, SPARE_SHARE, Proposal, Verdict, clock

# Windows that agree at all, that are copies, and how many there must be.
_WINDOW_NEAR = 0.6
_WINDOW_COPY = 0.85
_LEAST_WINDOWS = 3


def judge_windows(
    a: np.ndarray,
    b: np.ndarray,
    a_seconds: float,
    b_seconds: float,
    proposals: Iterable[Proposal],
    hop_s: float,
) -> Verdict | None:
    """Decide about a pair by its windows.

    Windows half a step apart are less alike than copies are, and times are those of windows: only
    pairs of several windows that agree closely count.

    Parameters
    ----------
    a, b : np.ndarray [shape=(n, dim), dtype=float32]
        Fingerprints, zero where it is silent.
    a_seconds, b_seconds : float
    proposals : iterable of Proposal
    hop_s : float
        Seconds from window to window.
    """
    best: Verdict | None = None
    for proposal in proposals:
        lag, speed = proposal.lag / hop_s, proposal.speed
        windows = np.arange(len(a))
        places = np.rint(lag + speed * windows).astype(int)
        inside = (places >= 0) & (places < len(b)) & a.any(axis=1)
        inside[inside] &= b[places[inside]].any(axis=1)
        similarity = np.zeros(len(a))
        similarity[inside] = np.einsum("nd,nd->n", a[inside], b[places[inside]])
        start, end = best_stretch(np.where(inside, similarity - _WINDOW_NEAR, 0.0))
        met = inside[start:end]
        if met.sum() < _LEAST_WINDOWS:
            continue
        score = float(similarity[start:end][met].mean())
        # A window reaches one hop beyond the start of the next.
        length = (end - start + 1) * hop_s
        sounding = _sounding_s(a, a_seconds, hop_s), _sounding_s(b, b_seconds, hop_s)
        spare = sounding[0] - length, sounding[1] - length * speed
        whole = [
            left <= min(2 * hop_s + SPARE_S, SPARE_SHARE * seconds)
            for left, seconds in zip(spare, sounding, strict=True)
        ]
        kind = DuplicateKind.NEAR
        if score >= _WINDOW_COPY and speed == 1.0:
            kind = DuplicateKind.EXCERPT if any(whole) else DuplicateKind.OVERLAP
            kind = DuplicateKind.SAME_AUDIO if all(whole) else kind
        a_times = start * hop_s, min(a_seconds, (end + 1) * hop_s)
        b_start = max(0.0, (lag + speed * start) * hop_s)
        b_end = min(b_seconds, b_start + speed * (a_times[1] - a_times[0]))
        verdict = Verdict(
            kind=kind,
            score=round(min(1.0, score), 4),
            a_start_s=round(a_times[0], 3),
            a_end_s=round(a_times[1], 3),
            b_start_s=round(b_start, 3),
            b_end_s=round(b_end, 3),
            speed=round(speed, 4),
            coverage=round(min(1.0, length / max(hop_s, min(a_seconds, b_seconds))), 4),
            reason=f"a file could not be read again, so by fingerprints only: {met.sum()} windows "
            f"over {clock(a_times[0])}-{clock(a_times[1])}, similarity {score:.3f}",
        )
        if best is None or verdict.rank > best.rank:
            best = verdict
    return best


def _sounding_s(fingerprints: np.ndarray, seconds: float, hop_s: float) -> float:
    # Length without the windows of silence before and after.
    heard = np.flatnonzero(fingerprints.any(axis=1))
    return min(seconds, (heard[-1] - heard[0] + 2) * hop_s)
