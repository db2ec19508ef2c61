"""From evidence to scores: whether a match is right, and what else it might be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from encoders.bundle import Calibration, probability
from index.match.align import Alignment
from index.match.evidence import Evidence, Weighing
from index.search import FingerprintIndex

# A part of a query that is shorter than this share of it is weighed on its own as well.
_WHOLE = 0.85
# Without each other, two recordings at once must be so much surer than one (in odds).
_MIXED_ODDS = 3.0


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
        The same for alignments that are one sound: another place of a loop, another copy.
    """

    alignment: Alignment
    score: float
    evidence: Evidence
    group: int = 0


def score_alignments(
    queries: np.ndarray,
    alignments: Sequence[Alignment],
    index: FingerprintIndex,
    calibration: Calibration,
) -> list[Scored]:
    """Turn evidence into scores.

    Parameters
    ----------
    queries : np.ndarray [shape=(n, dim)]
        As given to :func:`index.match.find_alignments`.
    alignments : sequence of Alignment
        From there: most similar first.

    Returns
    -------
    scored : list of Scored
        Best first.
    """
    if not alignments:
        return []
    weighing = Weighing(queries, alignments, index)
    scored = [_score(i, weighing, a, calibration) for i, a in enumerate(alignments)]
    scored = _add_the_mixed(scored, weighing, alignments, calibration)
    return sorted(scored, key=lambda s: (-s.score, -s.evidence.similarity))


def _score(
    number: int,
    weighing: Weighing,
    alignment: Alignment,
    calibration: Calibration,
    without: frozenset[int] = frozenset(),
) -> Scored:
    # The whole, or the part that agrees if that says more: of the places where chance could have
    # found such a part there are as many as times that it goes into the whole.
    group = int(weighing.groups[number])
    whole = weighing.evidence(number, (0, alignment.n_pairs - 1), without)
    logit = calibration.logit(whole.features())
    best = Scored(alignment, probability(logit), whole, group)
    first, last = alignment.part
    n_part = last - first + 1
    if n_part < _WHOLE * alignment.n_pairs:
        part = weighing.evidence(number, (first, last), without)
        part_logit = calibration.logit(part.features()) - math.log(alignment.n_pairs / n_part)
        if part_logit > logit:
            best = Scored(alignment, probability(part_logit), part, group)
    return best


def _add_the_mixed(
    scored: list[Scored],
    weighing: Weighing,
    alignments: Sequence[Alignment],
    calibration: Calibration,
) -> list[Scored]:
    # Two recordings that sound at the same time are each other's rivals. Where both would be sure
    # without the other, both are there.
    order = sorted(range(len(scored)), key=lambda i: -scored[i].evidence.similarity)
    first = order[0]
    second = next((i for i in order if scored[i].group != scored[first].group), None)
    if second is None or scored[second].score >= calibration.threshold:
        return scored
    groups = frozenset((scored[first].group, scored[second].group))
    alone = list(scored)
    for i in range(len(scored)):
        if scored[i].group in groups:
            alone[i] = _score(i, weighing, alignments[i], calibration, groups)
    least = min(alone[first].score, alone[second].score)
    odds = least / (1 - least) if least < 1 else math.inf
    needed = _MIXED_ODDS * calibration.threshold / max(1e-9, 1 - calibration.threshold)
    return alone if odds >= needed else scored
