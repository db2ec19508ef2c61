"""From what two sketches have in common to the kind of duplicate that they are, if they are one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

from encoders.sketch import EDGE_FRAMES, FRAMES_PER_SECOND
from index.compare import Agreement, Alignment, align, best_lag, compare
from index.schema import DuplicateKind
from index.sound import Sound

SPARE_S, SPARE_SHARE = 0.5, 0.2
"""What may sound of a file outside of a stretch that is "all of it": seconds, share of the file."""

LEAST_OVERLAP_S = 1.0
"""A shorter stretch in common is not reported, unless one file is no longer than that."""

# A copy, whatever codec it went through: mean difference, share of cells that agree, share of cells
# that are far apart, correlation.
_COPY = 2.6, 0.72, 0.11, 0.7
# Above such a mean difference it is looked at whether another pitch explains it better.
_DOUBTFUL_DB = 1.2
# Of a short one there is less to go by, and hits of one drum come close.
_SHORT_S = 3.0
_SHORT_COPY = 2.1, 0.79, 0.085, 0.92
# Of the loudest cells of a copy so many agree, and in no more than some the one and the same of the
# two is far louder: a codec drops what is soft, and what is mixed in is loud. How many grows with
# the mean difference: a codec that is far off in some is a little off in all. (At no difference,
# for each dB, at most.)
_LOUD_SHARE = 0.78
_SHORT_LOUD_SHARE = 0.85
_LOUD_FAR = 0.002, 0.026, 0.034
# Nor are they in more than so many of the frames of any two seconds: a voice has pauses, and over
# a minute little weight. But where either of the two is louder in turn, as a codec makes it that
# smears onsets, bursts say less. (At no difference, for each dB, for each share of cells that is
# torn; the last not of a short one, as another take is torn too.)
_LOUD_BURST = 0.03, 0.08, 3.0
# Where chunks correlate less than this they are no copies, and not even near.
_LEAST_COPY_ALIGNED = 0.6
_LEAST_NEAR_ALIGNED = 0.25
# Recordings that have nothing to do with each other correlate less; seen so often, it is enough.
_UNRELATED = 0.15
_MOST_UNRELATED = 2
# The same recording under noise, at another speed or pitch: seconds, share of the shorter file.
_NEAR_S = 3.0
_NEAR_COVERAGE = 0.3
_NEAR_CORRELATION = 0.4
_SETTLED_COVERAGE, _SETTLED_CORRELATION = 0.9, 0.7
# The same words in another take, or in another sentence, move alike for some seconds, but either is
# louder here and there, 0.15 to 0.25 of the cells each; what is mixed in is only ever added. (Of a
# brief stretch, of a long one.) No take keeps to another speed or pitch, at which bands do not fall
# together. A drum moves like another for some seconds as well.
_NEAR_LONG_S = 10.0
_NEAR_TORN = 0.14, 0.2
_NEAR_TORN_RETUNED = 0.2, 0.25
_NEAR_BRIEF_SHARE = 0.45
# Speeds closer to 1 than this many frames over the stretch cannot be told from 1.
_SPEED_FRAMES = 2.0
# Where two meet in no more than this share of the shorter, that part is looked at by itself.
_PART = 0.75
# A copy inside a longer stretch that is near is a moment without the noise: factor of length.
_MORE_IS_NEAR = 1.5
# What another repetition of music that repeats itself may be taken for.
_REPEATED = DuplicateKind.NEAR, DuplicateKind.OVERLAP
# Of pitch.
_SEMITONE = 2 ** (1 / 12)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a pair is. Times in seconds.

    Attributes
    ----------
    kind : DuplicateKind
    score : float
        Of a copy the geometric mean of the share of cells that agree and of the correlation, of
        others the correlation alone, 0 to 1.
    a_start_s, a_end_s, b_start_s, b_end_s : float
        The stretch that agrees.
    speed, coverage : float
        As in :data:`index.schema.PAIRS`.
    reason : str
    """

    kind: DuplicateKind
    score: float
    a_start_s: float
    a_end_s: float
    b_start_s: float
    b_end_s: float
    speed: float
    coverage: float
    reason: str

    @property
    def rank(self) -> tuple[bool, float, float]:
        """By which the better of two verdicts about one pair is told.

        Of music that repeats itself, the place where most of it agrees; but rather less of it that
        agrees exactly than all of it with another verse.
        """
        if self.kind == DuplicateKind.NEAR:
            return False, round(self.coverage, 1), self.score
        return True, self.coverage / (1.05 - self.score), 0.0


class Proposal(NamedTuple):
    """How one recording may lie against another.

    Attributes
    ----------
    lag : float
        Seconds of b at the start of a, to within half a second.
    speed : float
        Seconds of b in one of a, to within 1 %.
    start_s, end_s : float
        The stretch of a that was heard in b.
    """

    lag: float
    speed: float = 1.0
    start_s: float = 0.0
    end_s: float = math.inf


def judge(a: Sound, b: Sound, proposals: Iterable[Proposal]) -> Verdict | None:
    """Decide about a pair.

    Parameters
    ----------
    a, b : Sound
    proposals : iterable of Proposal

    Returns
    -------
    verdict : Verdict or None
        None if they are no duplicates.
    """
    if a.is_constant or b.is_constant:
        return None
    best: Verdict | None = None
    if abs(a.frames - b.frames) < FRAMES_PER_SECOND:
        # They may well begin together, whatever repeats itself in them.
        proposals = [Proposal((b.first - a.first) / FRAMES_PER_SECOND), *proposals]
    n_unrelated = 0
    for proposal in proposals:
        lag, speed = proposal.lag * FRAMES_PER_SECOND, proposal.speed
        found = align(a, b, lag, speed, ratio=speed)
        verdict = None if found is None else _judge(a, b, found)
        if found is not None and (verdict is None or verdict.kind == DuplicateKind.NEAR):
            verdict = _judge_part(a, b, proposal) or verdict
        if verdict is not None and (best is None or verdict.rank > best.rank):
            best = verdict
        n_unrelated += found is not None and found.correlation < _UNRELATED
        if n_unrelated == _MOST_UNRELATED or (best is not None and _is_settled(best)):
            break
    if best is not None and best.kind in _REPEATED and best.speed == 1.0:
        # Another repetition would look like that: is there a place where more of it is a copy?
        anywhere = best_lag(a, b)
        found = None if anywhere is None else align(a, b, anywhere)
        verdict = None if found is None else _judge(a, b, found)
        if verdict is not None and verdict.rank > best.rank:
            best = verdict
    return best


def _is_settled(verdict: Verdict) -> bool:
    # Whether no other alignment can be better, but for another repetition of what repeats itself.
    near = verdict.coverage >= _SETTLED_COVERAGE and verdict.score >= _SETTLED_CORRELATION
    return verdict.kind == DuplicateKind.SAME_AUDIO or (verdict.kind == DuplicateKind.NEAR and near)


def _judge_part(a: Sound, b: Sound, proposal: Proposal) -> Verdict | None:
    # A copy of one stretch, between sounds that have nothing to do with each other.
    start = round(max(a.first, FRAMES_PER_SECOND * proposal.start_s))
    end = round(min(a.last, FRAMES_PER_SECOND * proposal.end_s))
    if proposal.speed != 1.0 or end - start > _PART * min(a.frames, b.frames):
        return None
    lag = proposal.lag * FRAMES_PER_SECOND
    found = align(a, b, lag, within=(start, end))
    copy = None if found is None else _copy(a, b, found, (start, end))
    if found is None or copy is None:
        return None
    near = compare(a, b, found, near=True)
    if near is not None and near.frames > _MORE_IS_NEAR * copy.frames and _is_near(a, b, near):
        return None
    return _describe(a, b, copy)


def _judge(a: Sound, b: Sound, found: Alignment) -> Verdict | None:
    copy = _copy(a, b, found)
    if copy is not None:
        return _describe(a, b, copy)
    if not _may_be_near(a, b) or found.correlation < _LEAST_NEAR_ALIGNED:
        return None
    agreement = compare(a, b, _retuned(a, b, found), near=True)
    if agreement is None or not _is_near(a, b, agreement):
        return None
    return _describe(a, b, agreement, near=True)


def _copy(
    a: Sound, b: Sound, found: Alignment, within: tuple[int, int] | None = None
) -> Agreement | None:
    if found.correlation < _LEAST_COPY_ALIGNED:
        return None
    copy = compare(a, b, found)
    if copy is None or not _is_copy(copy):
        return None
    sure = not _may_be_near(a, b) or copy.difference_db < _DOUBTFUL_DB
    return copy if sure or _retuned(a, b, found, within).ratio == found.ratio else None


def _may_be_near(a: Sound, b: Sound) -> bool:
    return min(a.frames, b.frames) >= _NEAR_S * FRAMES_PER_SECOND


def _retuned(
    a: Sound, b: Sound, found: Alignment, within: tuple[int, int] | None = None
) -> Alignment:
    # The same tempo at another pitch, or the same pitch at another tempo.
    best = found
    for ratio in {1.0, found.speed, _SEMITONE, 1 / _SEMITONE} - {found.ratio}:
        other = align(a, b, found.lag, found.speed, ratio, within=within)
        if other is not None and other.correlation > best.correlation + 0.02:
            best = other
    return best


def _is_copy(agreement: Agreement) -> bool:
    short = agreement.frames < _SHORT_S * FRAMES_PER_SECOND
    difference_db, share, far, correlation = _SHORT_COPY if short else _COPY
    least, slope, most = _LOUD_FAR
    burst, per_db, per_torn = _LOUD_BURST
    burst += per_db * agreement.difference_db + (0.0 if short else per_torn * agreement.torn)
    return (
        agreement.difference_db <= difference_db
        and agreement.share >= share
        and agreement.far <= far
        and agreement.correlation >= correlation
        and agreement.loud_share >= (_SHORT_LOUD_SHARE if short else _LOUD_SHARE)
        and agreement.loud_far <= min(most, least + slope * agreement.difference_db)
        and agreement.loud_burst <= burst
    )


def _is_near(a: Sound, b: Sound, agreement: Agreement) -> bool:
    long = agreement.frames >= _NEAR_LONG_S * FRAMES_PER_SECOND
    torn = _NEAR_TORN_RETUNED if _is_retuned(agreement) else _NEAR_TORN
    return (
        agreement.frames >= _NEAR_S * FRAMES_PER_SECOND
        and agreement.torn <= torn[long]
        and (long or agreement.share >= _NEAR_BRIEF_SHARE)
        and agreement.frames >= _NEAR_COVERAGE * min(a.frames, b.frames)
        and agreement.correlation >= _NEAR_CORRELATION
    )


def _is_retuned(agreement: Agreement) -> bool:
    drift = abs(agreement.alignment.speed - 1) * agreement.frames
    return drift >= _SPEED_FRAMES or agreement.alignment.ratio != 1.0


def _describe(a: Sound, b: Sound, agreement: Agreement, near: bool = False) -> Verdict | None:
    lag, speed = agreement.alignment.lag, agreement.alignment.speed
    start, end = float(agreement.start), float(agreement.end)
    # The frames at the ends of a file could not be compared: they go with their neighbours.
    if start - max(a.first, (b.first - lag) / speed) <= EDGE_FRAMES + 1:
        start = max(a.first, (b.first - lag) / speed)
    if min(a.last, (b.last - lag) / speed) - end <= EDGE_FRAMES + 1:
        end = min(a.last, (b.last - lag) / speed)
    length = end - start
    if abs(speed - 1) * length < _SPEED_FRAMES:
        lag, speed = lag + (speed - 1) * (start + end) / 2, 1.0
    spare = [
        a.heard_outside(start, end),
        b.heard_outside(lag + speed * start, lag + speed * end),
    ]
    whole = [
        left <= min(SPARE_S * FRAMES_PER_SECOND, SPARE_SHARE * sound.frames)
        for left, sound in zip(spare, (a, b), strict=True)
    ]
    if not any(whole) and length < LEAST_OVERLAP_S * FRAMES_PER_SECOND:
        return None
    if near or speed != 1.0 or agreement.alignment.ratio != 1.0:
        kind = DuplicateKind.NEAR
        if length < _NEAR_S * FRAMES_PER_SECOND:
            return None
    elif all(whole):
        kind = DuplicateKind.SAME_AUDIO
    elif any(whole):
        kind = DuplicateKind.EXCERPT
    elif a.is_steady(agreement.start, agreement.end):
        return None
    else:
        kind = DuplicateKind.OVERLAP
    a_times = start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND
    b_times = tuple((lag + speed * f) / FRAMES_PER_SECOND for f in (start, end))
    score = max(0.0, agreement.correlation)
    if _is_copy(agreement):
        score = (agreement.share * score) ** 0.5
    return Verdict(
        kind=kind,
        score=round(min(1.0, score), 4),
        a_start_s=round(max(0.0, a_times[0]), 3),
        a_end_s=round(a_times[1], 3),
        b_start_s=round(max(0.0, b_times[0]), 3),
        b_end_s=round(b_times[1], 3),
        speed=round(speed, 4),
        coverage=round(min(1.0, max(length / a.frames, length * speed / b.frames)), 4),
        reason=_reason(agreement, a_times, speed),
    )


def _reason(agreement: Agreement, times: tuple[float, float], speed: float) -> str:
    parts = [
        f"log-mel spectra agree over {clock(times[0])}-{clock(times[1])}",
        f"differ by {agreement.difference_db:.1f} dB on average",
        f"{100 * agreement.share:.0f} % of cells within 3 dB",
        f"correlation {agreement.correlation:.3f}",
    ]
    if abs(agreement.gain_db) >= 0.5:
        parts.append(f"gain {agreement.gain_db:+.1f} dB")
    if speed != 1.0:
        parts.append(f"speed {100 * (speed - 1):+.2f} %")
    if abs(agreement.alignment.ratio - 1) > 0.002:
        parts.append(f"pitch {100 * (agreement.alignment.ratio - 1):+.1f} %")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """A time as in ``1:05.20``."""
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
