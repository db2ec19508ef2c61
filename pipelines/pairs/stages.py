"""The stages of finding pairs: each turns numbered shards into files, one by one.

A stage is a small description that travels to the workers; what it needs it reads from the
folders of the catalogs and of the run, which all workers see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from encoders.audio import open_audio
from encoders.errors import AudioError
from encoders.sketch import SKETCH_SPEC, sketch
from index.candidates import Side, propose_pairs
from index.catalog import Catalog
from index.contents import Contents
from index.search import FingerprintIndex
from index.sound import Sound
from index.storage import write_atomically
from index.verdict import Proposal, Verdict, judge
from index.verdict_windows import judge_windows
from pipelines.inputs import open_input
from pipelines.pairs.sketches import (
    SHARD_SKETCHES,
    SketchStore,
    sketch_part,
    write_sketches,
)
from pipelines.progress import RunState

CANDIDATES = pa.schema(
    [
        # Numbers of contents, a < b.
        pa.field("a", pa.int64(), nullable=False),
        pa.field("b", pa.int64(), nullable=False),
        # Windows of b at the start of a, and seconds of b in one of a.
        pa.field("lag", pa.float32(), nullable=False),
        pa.field("speed", pa.float32(), nullable=False),
        pa.field("votes", pa.float32(), nullable=False),
        # Windows of a between which they met.
        pa.field("first", pa.float32(), nullable=False),
        pa.field("last", pa.float32(), nullable=False),
    ]
)

VERDICTS = pa.schema(
    [
        pa.field("a", pa.int64(), nullable=False),
        pa.field("b", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        *(
            pa.field(name, pa.float64(), nullable=False)
            for name in (
                "score", "a_start_s", "a_end_s", "b_start_s", "b_end_s", "speed", "coverage",
            )
        ),
        pa.field("reason", pa.string(), nullable=False),
    ]
)  # fmt: skip

BUCKET = 32
"""Contents whose pairs are verified together: those that they are the first of."""

SHARD_RECORDINGS = 256
"""Recordings that are looked up together."""

_PER_PAIR = 4


@dataclasses.dataclass(frozen=True)
class Run:
    """Where everything is.

    Parameters
    ----------
    folder : str
        Of what the run has done so far.
    catalogs : tuple of str
    grouped : bool
        Whether two groups are compared.
    """

    folder: str
    catalogs: tuple[str, ...]
    grouped: bool

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def sketched(self) -> Path:
        """Names the contents that are sketched: an array of their numbers."""
        return self.root / "sketched.npy"


class Stage(Protocol):
    """What turns shards into files."""

    @property
    def name(self) -> str:
        """Of the folder of its files."""

    @property
    def run(self) -> Run:
        """Where it works."""

    def part(self, shard: int) -> Path:
        """The file that a shard becomes."""

    def process(self, shard: int, state: RunState) -> None:
        """Write it. Doing it twice is the same as once."""


@functools.lru_cache(maxsize=2)
def load_contents(run: Run) -> Contents:
    """The contents that are compared, once per process."""
    return Contents(pq.read_table(run.root / "files.parquet"), run.grouped)


@functools.lru_cache(maxsize=2)
def load_sides(run: Run) -> list[Side]:
    """The indexes of the catalogs, once per process."""
    contents = load_contents(run)
    sides = []
    for path in run.catalogs:
        index = FingerprintIndex.open(Catalog.open(path))
        ids = [index.recording_id(i) for i in range(len(index.n_rows))]
        sides.append(Side(index, contents.numbers(np.array(ids, object))))
    return sides


@functools.lru_cache(maxsize=2)
def load_hop(run: Run) -> float:
    """Seconds from window to window."""
    spec = Catalog.open(run.catalogs[0]).config.spec
    return spec.window_hop / spec.sample_rate


@dataclasses.dataclass(frozen=True)
class CandidateStage:
    """Recordings to candidates: shard ``i`` is a stretch of the recordings of all catalogs."""

    run: Run
    name: str = "candidates"

    @staticmethod
    def n_shards(n_recordings: int) -> int:
        """Shards that so many recordings make."""
        return -(-n_recordings // SHARD_RECORDINGS)

    def part(self, shard: int) -> Path:
        """See :class:`Stage`."""
        return self.run.root / self.name / f"part-{shard:07d}.parquet"

    def process(self, shard: int, state: RunState) -> None:
        """See :class:`Stage`."""
        sides, contents = load_sides(self.run), load_contents(self.run)
        tables = [CANDIDATES.empty_table()]
        first = shard * SHARD_RECORDINGS
        for queries in sides:
            n = len(queries.contents)
            mine = np.arange(max(0, first), max(0, min(n, first + SHARD_RECORDINGS)))
            first -= n
            # Of two groups, looking up the first is enough.
            numbers = queries.contents[mine]
            mine = mine[(numbers >= 0) & contents.in_a[numbers]]
            if len(mine) == 0:
                continue
            for references in sides:
                for found in propose_pairs(queries, mine, references, contents):
                    a, b = queries.contents[found.query], references.contents[found.reference]
                    turned = a > b
                    lag = np.where(turned, -found.lag / found.speed, found.lag)
                    speed = np.where(turned, 1 / found.speed, found.speed)
                    met = [
                        np.where(turned, found.lag + found.speed * window, window)
                        for window in (found.first, found.last)
                    ]
                    columns = [np.minimum(a, b), np.maximum(a, b), lag, speed, found.votes, *met]
                    arrays = [pa.array(c, f.type) for c, f in zip(columns, CANDIDATES, strict=True)]
                    tables.append(pa.table(arrays, schema=CANDIDATES))
                    state.check()
        table = pa.concat_tables(tables)
        with write_atomically(self.part(shard)) as file:
            pq.write_table(table, file, compression="zstd")


@dataclasses.dataclass(frozen=True)
class SketchStage:
    """Contents that are in a candidate pair to sketches, from their files."""

    run: Run
    name: str = "sketches"

    def part(self, shard: int) -> Path:
        """See :class:`Stage`."""
        return sketch_part(self.run.root / self.name, shard)

    def process(self, shard: int, state: RunState) -> None:
        """See :class:`Stage`."""
        numbers = np.load(self.run.sketched)
        mine = numbers[shard * SHARD_SKETCHES : (shard + 1) * SHARD_SKETCHES].tolist()
        contents = load_contents(self.run)

        def rows() -> Iterator[tuple[int, np.ndarray | None, str | None]]:
            for number in mine:
                state.check()
                yield number, *_sketch_any(contents.uris(number))

        write_sketches(self.part(shard), rows())


def _sketch_any(uris: list[str]) -> tuple[np.ndarray | None, str | None]:
    # The first of the files that can still be read.
    problem = None
    for uri in uris:
        try:
            with (
                contextlib.closing(open_input(uri)) as file,
                open_audio(file, SKETCH_SPEC.sample_rate) as stream,
            ):
                return sketch(stream.blocks()), None
        except (AudioError, OSError) as error:
            problem = problem or " ".join(str(error).split())
    return None, problem


@dataclasses.dataclass(frozen=True)
class VerifyStage:
    """Candidates to verdicts: shard ``i`` holds the pairs of ``BUCKET`` contents."""

    run: Run
    name: str = "verdicts"

    def part(self, shard: int) -> Path:
        """See :class:`Stage`."""
        return self.run.root / self.name / f"part-{shard:07d}.parquet"

    def process(self, shard: int, state: RunState) -> None:
        """See :class:`Stage`."""
        store = SketchStore.of_thread(self.run.root / SketchStage.name, self.run.sketched)
        rows = []
        for (a, b), proposals in _proposals(self.run, shard):
            state.check()
            verdict = self._judge(store, a, b, proposals)
            if verdict is not None:
                rows.append({"a": a, "b": b, **dataclasses.asdict(verdict)})
        for row in rows:
            row["kind"] = row["kind"].value
        with write_atomically(self.part(shard)) as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=VERDICTS), file, compression="zstd")

    def _judge(
        self, store: SketchStore, a: int, b: int, proposals: list[Proposal]
    ) -> Verdict | None:
        first, second = store.sound(a), store.sound(b)
        if isinstance(first, Sound) and isinstance(second, Sound):
            return judge(first, second, proposals)
        seconds = load_contents(self.run).seconds
        windows = self._windows(a), self._windows(b)
        return judge_windows(*windows, seconds[a], seconds[b], proposals, load_hop(self.run))

    def _windows(self, number: int) -> np.ndarray:
        for side in load_sides(self.run):
            found = np.flatnonzero(side.contents == number)
            if len(found):
                return side.index.fingerprints(int(found[0])).astype(np.float32)
        raise KeyError(number)


def bucket_candidates(run: Run) -> int:
    """Sort the candidates by the buckets in which they are verified; give their number."""
    parts = ds.dataset(run.root / CandidateStage.name, CANDIDATES, "parquet")
    buckets = run.root / "buckets"
    buckets.mkdir(exist_ok=True)
    batches = (
        pa.RecordBatch.from_arrays(
            [*batch.columns, pa.array(batch["a"].to_numpy() // BUCKET)],
            names=[*CANDIDATES.names, "bucket"],
        )
        for batch in parts.to_batches()
    )
    schema = CANDIDATES.append(pa.field("bucket", pa.int64()))
    ds.write_dataset(
        batches,
        buckets,
        schema=schema,
        format="parquet",
        partitioning=["bucket"],
        existing_data_behavior="delete_matching",
        max_partitions=1 << 20,
    )
    return parts.count_rows()


def _proposals(run: Run, bucket: int) -> Iterator[tuple[tuple[int, int], list[Proposal]]]:
    # The pairs of a bucket, each with its most voted alignments that differ.
    hop_s = load_hop(run)
    table = ds.dataset(run.root / "buckets" / str(bucket), CANDIDATES, "parquet").to_table()
    table = table.sort_by([("a", "ascending"), ("b", "ascending"), ("votes", "descending")])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    for pair, group in itertools.groupby(rows, key=operator.itemgetter(0, 1)):
        chosen: list[Proposal] = []
        for _, _, lag, speed, _, first, last in group:
            # A window reaches one hop beyond the start of the next.
            found = Proposal(lag * hop_s, speed, first * hop_s, (last + 2) * hop_s)
            if len(chosen) < _PER_PAIR and all(abs(found.lag - p.lag) > hop_s for p in chosen):
                chosen.append(found)
        yield pair, chosen
