"""From evidence to scores: whether a match is right, and what else it might be."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from encoders.bundle import Calibration
from index.match.align import Alignment
from index.match.candidates import STEPS, sounding
from index.match.detail import Spectrogram
from index.match.evidence import Evidence, Weighing
from index.search import FingerprintIndex

# Alignments that are weighed: the most alike as a whole, and those that agree most in a part;
# and, with them, all that are the same sound.
_MAX_WEIGHED = 6


@dataclasses.dataclass(frozen=True)
class Scored:
    """An alignment and how sure it is.

    Attributes
    ----------
    alignment : Alignment
    score : float
        0 to 1.
    evidence : Evidence
        Of the whole alignment, or of the part of it that says more.
    group : int
        The same for alignments that are one sound: another place of the recording, another copy.
    options : tuple of Evidence
        What ``evidence`` was chosen from: of the whole, and perhaps of a part.
    """

    alignment: Alignment
    score: float
    evidence: Evidence
    group: int
    options: tuple[Evidence, ...]


def score_alignments(
    queries: np.ndarray,
    alignments: Sequence[Alignment],
    index: FingerprintIndex,
    calibration: Calibration,
    spectrogram: Spectrogram | None = None,
) -> list[Scored]:
    """Turn evidence into scores.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
        As given to :func:`index.match.find_alignments`.
    alignments : sequence of Alignment
        From there: most alike first.
    index : FingerprintIndex
    calibration : Calibration
    spectrogram : Spectrogram, optional
        As given there.

    Returns
    -------
    scored : list of Scored
        Best first; alignments that stand no chance are left out.
    """
    if not alignments:
        return []
    weighing = Weighing(queries, alignments, index, spectrogram)
    scored = [
        _score(number, weighing, alignments[number], calibration)
        for number in _worth_weighing(alignments, weighing.groups)
    ]
    scored = _yield_to_certain(scored)
    scored.sort(key=lambda s: (-s.score, not _is_certain(s), -s.evidence.similarity))
    return _deal_scores(_join_places(scored), sounding(queries))


def _is_certain(scored: Scored) -> bool:
    return scored.alignment.detail.is_certain


def _yield_to_certain(scored: Sequence[Scored]) -> list[Scored]:
    # Where the signs of one alignment cannot be chance, however little its fingerprints are alike,
    # what is alike by fingerprints only is no better.
    certain = [s for s in scored if _is_certain(s)]

    def most(s: Scored) -> float:
        over = (t.score for t in certain if _overlap(s.alignment, t.alignment))
        return 1.0 if _is_certain(s) else max(over, default=1.0)

    return [dataclasses.replace(s, score=min(s.score, most(s))) for s in scored]


def _deal_scores(scored: Sequence[Scored], heard: np.ndarray) -> list[Scored]:
    # Evidence tells how sure it is that a sound is there; which of its copies and repeats is the
    # one, agreement tells.
    places: dict[int, list[int]] = collections.defaultdict(list)
    for place, s in enumerate(scored):
        places[s.group].append(place)
    dealt = list(scored)
    for mine in places.values():
        members = sorted((scored[i] for i in mine), key=lambda s: -_agreement(s, heard))
        for i, member in zip(mine, members, strict=True):
            dealt[i] = dataclasses.replace(member, score=scored[i].score)
    return dealt


def _agreement(scored: Scored, heard: np.ndarray) -> float:
    # How similar, and over how much of what is heard. A pair stands for all the query windows up to
    # its neighbours, or a place would win for having one more of them.
    a = scored.alignment
    begin, end = max(0, int(a.steps[0]) - STEPS + 1), int(a.steps[-1]) + STEPS
    return a.likeness * int(np.count_nonzero(heard[begin:end]))


def _join_places(scored: Sequence[Scored]) -> list[Scored]:
    # One moment of a query is in one place of a recording: others are repeats of it, or like it.
    joined: list[Scored] = []
    for s in scored:
        same = (
            t
            for t in joined
            if t.alignment.recording == s.alignment.recording
            and s.group != t.group
            and _overlap(s.alignment, t.alignment)
        )
        first = next(same, None)
        joined.append(s if first is None else dataclasses.replace(s, group=first.group))
    return joined


def _overlap(a: Alignment, b: Alignment) -> bool:
    common = min(a.last, b.last) - max(a.first, b.first)
    return 2 * common > min(a.last - a.first, b.last - b.first)


def _worth_weighing(alignments: Sequence[Alignment], groups: np.ndarray) -> list[int]:
    agreement = [-float(a.pairs[a.part[0] : a.part[1] + 1].sum()) for a in alignments]
    best = np.argsort(agreement, kind="stable")[:_MAX_WEIGHED]
    chosen = {*range(min(_MAX_WEIGHED, len(alignments))), *best.tolist()}
    sounds = groups[sorted(chosen)]
    return np.flatnonzero(np.isin(groups, sounds)).tolist()


def _score(
    number: int, weighing: Weighing, alignment: Alignment, calibration: Calibration
) -> Scored:
    options = weighing.evidence(number)
    best = max(options, key=lambda e: calibration.logit(e.features()))
    score = calibration.score(best.features())
    return Scored(alignment, score, best, int(weighing.groups[number]), tuple(options))
