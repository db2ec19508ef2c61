"""From answers to figures: cells, means, false accepts, trade-offs."""

from __future__ import annotations

import collections
import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.metrics import DetectionCurve, Outcome, Share, Summary, detection_curve, summarise
from pipelines.evaluate.answers import Answered
from pipelines.evaluate.conditions import CONDITIONS
from pipelines.evaluate.queries import Query

if TYPE_CHECKING:
    from pipelines.evaluate.run import Evaluation

COMPARED = ("recording", "exact", "near")
"""What systems are compared by in every cell: those of the best candidate, whatever its score."""


class Results:
    """The figures of an evaluation.

    Attributes
    ----------
    evaluation : Evaluation
    systems, conditions : list of str
        In the order of the report; Earmark is the first system.
    lengths : list of float
        s.
    cells : dict
        :class:`~index.metrics.Summary` by (system, condition, length).
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.systems = list(evaluation.answers)
        self.conditions = list(dict.fromkeys(q.condition for q in evaluation.queries))
        self.lengths = sorted({q.seconds for q in evaluation.queries})
        self.cells = {
            (system, condition, seconds): summarise(outcomes)
            for system in self.systems
            for (condition, seconds), outcomes in self._by_cell(system).items()
        }

    def _by_cell(self, system: str) -> dict[tuple[str, float], list[Outcome]]:
        cells = collections.defaultdict(list)
        for q in self.evaluation.queries:
            if not q.absent:
                answered = self.evaluation.answers[system][q.id]
                cells[q.condition, q.seconds].append(answered.outcome)
        return cells

    def _present(self, system: str, which: Callable[[Query], bool]) -> list[Outcome]:
        answers = self.evaluation.answers[system]
        queries = (q for q in self.evaluation.queries if not q.absent and which(q))
        return [answers[q.id].outcome for q in queries]

    def _absent(
        self, system: str, which: Callable[[Query], bool], parts: bool = False
    ) -> list[Outcome]:
        answers = self.evaluation.answers[system]
        queries = (q for q in self.evaluation.queries if q.absent and which(q))
        there = self.same_after_all if parts else self.present_after_all
        return [answers[q.id].outcome for q in queries if q.id not in there]

    @functools.cached_property
    def present_after_all(self) -> set[str]:
        """Absent queries of recordings that are in the data base under another name, or in part.

        A place that shows it for one query of a recording shows it for all of them.
        """
        return self._shown_by(lambda outcome: outcome.recording or outcome.shares)

    @functools.cached_property
    def same_after_all(self) -> set[str]:
        """Those of them that sound the same as a whole."""
        return self._shown_by(lambda outcome: outcome.recording)

    def _shown_by(self, shows: Callable[[Outcome], bool]) -> set[str]:
        absent = [q for q in self.evaluation.queries if q.absent]
        systems = self.evaluation.answers.values()
        there = {q.track for q in absent if any(shows(a[q.id].outcome) for a in systems)}
        return {q.id for q in absent if q.track in there}

    def core(self, system: str, metric: str, seconds: float) -> Share:
        """Mean over the core conditions."""
        names = [c for c in self.conditions if CONDITIONS[c].core]
        return Share.mean([self.cells[system, c, seconds].shares[metric] for c in names])

    def false_accepts(
        self, system: str, seconds: float | None = None, parts: bool = False
    ) -> Share:
        """Absent queries that the system accepts; of one length or of all.

        With ``parts``, what is in the data base in part counts as absent.
        """
        outcomes = self._absent(system, lambda q: seconds in (None, q.seconds), parts)
        return Share.of(sum(o.accepted for o in outcomes), len(outcomes))

    def detection(self, system: str, seconds: float) -> DetectionCurve:
        """Trade-off over all conditions."""

        def of_length(query: Query) -> bool:
            return query.seconds == seconds

        return detection_curve(self._present(system, of_length), self._absent(system, of_length))

    def backgrounds(self, system: str) -> dict[str, Summary]:
        """Figures by what sounds behind the query, over all noisy conditions and lengths."""
        kinds = dict.fromkeys(q.background for q in self.evaluation.queries if q.background)
        return {
            kind: summarise(self._present(system, functools.partial(_has_background, kind)))
            for kind in kinds
        }

    def lost(self, seconds: float) -> dict[str, int]:
        """Where Earmark loses queries: how many are not exact, and how far they have come."""
        answers = self.evaluation.answers["earmark"]
        mine = [q for q in self.evaluation.queries if not q.absent and q.seconds == seconds]
        missed = [a for q in mine if not (a := answers[q.id]).outcome.exact]
        wrong = [a for a in missed if not a.outcome.recording]
        return {
            "n": len(mine),
            "wrong_place": len(missed) - len(wrong),
            "not_best": sum(a.rank is not None for a in wrong),
            "no_candidate": sum(a.rank is None for a in wrong),
        }

    def worse_than_peers(self) -> list[tuple[str, str, float, str, Share, Share]]:
        """Cells in which a peer has more: metric, condition, length, peer, and both shares."""
        return [
            (metric, condition, seconds, peer, mine, theirs)
            for metric in COMPARED
            for condition in self.conditions
            for seconds in self.lengths
            for peer in self.systems[1:]
            if (theirs := self.cells[peer, condition, seconds].shares[metric]).value
            > (mine := self.cells["earmark", condition, seconds].shares[metric]).value
        ]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: every figure, and every query with every answer."""
        return {
            **self.evaluation.facts,
            "core_conditions": [c for c in self.conditions if CONDITIONS[c].core],
            "systems": {system: self._system(system) for system in self.systems},
            "lost": {f"{seconds:g}": self.lost(seconds) for seconds in self.lengths},
            "present_after_all": sorted(self.present_after_all),
            "same_after_all": sorted(self.same_after_all),
            "queries": [self._query(query) for query in self.evaluation.queries],
        }

    def _system(self, system: str) -> dict[str, Any]:
        return {
            "core": {
                f"{seconds:g}": {
                    metric: self.core(system, metric, seconds).to_dict()
                    for metric in self.cells[system, self.conditions[0], seconds].shares
                }
                for seconds in self.lengths
            },
            "cells": [
                {
                    "condition": condition,
                    "seconds": seconds,
                    **self.cells[system, condition, seconds].to_dict(),
                }
                for condition in self.conditions
                for seconds in self.lengths
            ],
            "false_accepts": {
                "all": self.false_accepts(system).to_dict(),
                "with_parts": self.false_accepts(system, parts=True).to_dict(),
                **{f"{s:g}": self.false_accepts(system, s).to_dict() for s in self.lengths},
            },
            "detection": {f"{s:g}": self.detection(system, s).to_dict() for s in self.lengths},
            "backgrounds": {k: v.to_dict() for k, v in self.backgrounds(system).items()},
        }

    def _query(self, query: Query) -> dict[str, Any]:
        def without_id(answered: Answered) -> dict[str, Any]:
            return {key: value for key, value in answered.to_dict().items() if key != "id"}

        answers = self.evaluation.answers.items()
        return {"id": query.id, **{name: without_id(found[query.id]) for name, found in answers}}


def _has_background(kind: str, query: Query) -> bool:
    return query.background == kind


def machine() -> dict[str, Any]:
    """Where figures were taken: CPU model, cores, Python, load."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model n")), model)
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
