"""The list of queries: which stretch of which recording, under which condition."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Sequence

import numpy as np

from encoders.errors import EarmarkError
from pipelines.evaluate.conditions import (
    CONDITIONS,
    MIN_LEVEL_DB,
    Condition,
    Resources,
    Scene,
    level_db,
)
from pipelines.evaluate.references import SAMPLE_RATE, References

# A place that is not silent is found sooner than that in any music.
_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Query:
    """A query before it is made.

    Attributes
    ----------
    id : str
    track : str
        Recording that it is cut from: its path relative to the corpus.
    start_sample : int
        Where it begins there, at :data:`~pipelines.evaluate.references.SAMPLE_RATE`.
    seconds : float
        Length of the query; of the recording it covers ``seconds`` times the condition's speed.
    condition : str
        Name of one of :data:`~pipelines.evaluate.conditions.CONDITIONS`.
    background : str
        Kind of background; empty where the condition has none.
    absent : bool
        Put to the data base that lacks its recording.
    seed : int
        Of everything that happens to it.
    """

    id: str
    track: str
    start_sample: int
    seconds: float
    condition: str
    background: str
    absent: bool
    seed: int

    @property
    def way(self) -> Condition:
        """Its condition."""
        return CONDITIONS[self.condition]

    @property
    def n_samples(self) -> int:
        """Length of the query in samples."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def centre_s(self) -> float:
        """Time in the recording at the middle of the query, s."""
        return self.start_sample / SAMPLE_RATE + self.way.speed * self.seconds / 2

    def clean(self, references: References) -> np.ndarray:
        """The stretch of the recording that the query covers [dtype=float32]."""
        n_samples = round(self.n_samples * self.way.speed)
        return references.audio(self.track, self.start_sample, n_samples)

    def make(self, references: References, resources: Resources) -> np.ndarray:
        """What is heard [shape=(n_samples,), dtype=int16]."""
        first, n_source = self.start_sample - self.way.n_lead, self.way.n_source(self.n_samples)
        signal = references.audio(self.track, first, n_source)
        scene = Scene(np.random.default_rng(self.seed), self.background, resources)
        return self.way.play(signal, self.n_samples, scene)


def list_queries(
    references: References,
    kept: Sequence[str],
    withheld: Sequence[str],
    backgrounds: Sequence[str],
    conditions: Sequence[str],
    lengths: Sequence[float],
    n_present: int,
    n_absent: int,
    seed: int,
) -> list[Query]:
    """Queries of every condition and length.

    Parameters
    ----------
    references : References
    kept, withheld : sequence of str
        Recordings that queries are cut from; absent queries only from those ``withheld``.
    backgrounds : sequence of str
        Kinds of background, which take turns.
    conditions : sequence of str
        Names of :data:`~pipelines.evaluate.conditions.CONDITIONS`.
    lengths : sequence of float
        s.
    n_present, n_absent : int
        For each condition and length.
    seed : int
        With the id of a query it decides everything about it.
    """
    queries = []
    present = _Places(references, [*kept, *withheld])
    absent = _Places(references, withheld)
    for name in conditions:
        condition = CONDITIONS[name]
        for seconds in lengths:
            for number in range(n_present + n_absent):
                is_absent = number >= n_present
                letter = "absent" if is_absent else "present"
                id_ = f"{name}-{seconds:g}s-{letter}-{number - n_present * is_absent:03d}"
                rng = np.random.default_rng(_seed_of(seed, id_))
                places = absent if is_absent else present
                track, start = places.draw(seconds, condition.speed, rng)
                background = backgrounds[number % len(backgrounds)] if condition.noisy else ""
                of_its_own = int(rng.integers(2**31))
                queries.append(
                    Query(id_, track, start, seconds, name, background, is_absent, of_its_own)
                )
    return queries


def _seed_of(seed: int, id_: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {id_}".encode(), digest_size=8).digest(), "big")


class _Places:
    """Draws places that are not silent; every second of the recordings is equally likely."""

    def __init__(self, references: References, names: Sequence[str]) -> None:
        self._references = references
        self._names = names
        self._lengths = np.array([references.n_samples(name) for name in names])

    def draw(self, seconds: float, speed: float, rng: np.random.Generator) -> tuple[str, int]:
        """Recording and first sample."""
        n_samples = round(seconds * speed * SAMPLE_RATE)
        room = np.maximum(0, self._lengths - n_samples)
        if not room.any():
            raise EarmarkError(f"no music of the corpus is longer than {seconds:g} s")
        ends = np.cumsum(room)
        for _ in range(_TRIES):
            at = int(rng.integers(ends[-1]))
            number = int(np.searchsorted(ends, at, side="right"))
            start = at - int(ends[number] - room[number])
            signal = self._references.audio(self._names[number], start, n_samples)
            if level_db(signal) >= MIN_LEVEL_DB:
                return self._names[number], start
        raise EarmarkError(
            f"of {_TRIES} stretches of {seconds:g} s of the corpus' music, all are silent"
        )


COLUMNS = ("id", "track", "start_s", "seconds", "condition", "background", "absent", "seed")


def to_csv(queries: Sequence[Query]) -> str:
    """The list as CSV, with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for q in queries:
        start = f"{q.start_sample / SAMPLE_RATE:.7f}"
        row = (q.id, q.track, start, f"{q.seconds:g}", q.condition, q.background)
        writer.writerow([*row, int(q.absent), q.seed])
    return text.getvalue()
