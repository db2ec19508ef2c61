"""Bulk identification: a corpus of files against a catalog, through Beam, to one Parquet file.

Every shard of queries becomes a part in a folder beside the result; parts that are there are not
made again. When all are there they are joined, in order, and the folder goes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.audio import AudioStream
from encoders.errors import AudioError, EarmarkError
from index.identify import Identifier
from index.monitor import Monitor
from index.schema import MATCHES, Match, Status
from index.storage import write_atomically
from pipelines.beam_options import quiet_logging
from pipelines.inputs import Input, list_inputs, open_input
from pipelines.progress import RunState, live_display
from pipelines.shard import make_shards, open_sound

SHARD_FILES = 64
_SHARD_BYTES = 256 << 20

LONG_S = 60.0
"""Longer queries are followed piece by piece, as by a monitor: they may hold several recordings."""


@dataclasses.dataclass(frozen=True)
class MatchOptions:
    """How to identify.

    Parameters
    ----------
    top : int or None
        At most so many matches of each query; None gives all.
    threshold : float, optional
        Scores below it are not reported. [default: the encoder's own]
    encoder : str, optional
        Folder of the fingerprint encoder, when it is not one that comes with earmark.
    all_files : bool
        Try every file of a folder, whatever its name.
    long_s : float
        As :data:`LONG_S`.
    shard_files : int
        Queries per part, at most.
    threads : int, optional
        Shards at a time in one worker. [default: one per core in the embedded runner, else 1]
    beam_args : tuple of str
        Options of Beam.
    """

    top: int | None = 5
    threshold: float | None = None
    encoder: str | None = None
    all_files: bool = False
    long_s: float = LONG_S
    shard_files: int = SHARD_FILES
    threads: int | None = None
    beam_args: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class MatchSummary:
    """What a bulk match did.

    Parameters
    ----------
    n_queries, n_done_before : int
        Inputs, and those whose parts an earlier run had left.
    found, unknown, failed : int
        Queries with a match, without one, and those that could not be read.
    n_matches : int
    seconds : float
        Audio looked up.
    elapsed_s : float
        Wall time.
    """

    n_queries: int
    n_done_before: int
    found: int
    unknown: int
    failed: int
    n_matches: int
    seconds: float
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class MatchJob:
    """What all shards of a bulk match have in common: a :class:`pipelines.workers.Work`.

    Parameters
    ----------
    catalog : str
        Folder of the catalog, as every worker sees it.
    parts : str
        Folder of the parts.
    key : str
        Hash of the index and of the options: part of the name of every part.
    options : MatchOptions
    """

    catalog: str
    parts: str
    key: str
    options: MatchOptions

    def prepare(self) -> None:
        """Open the catalog."""
        _monitor(self.catalog, self.options.encoder, self.options.threshold)

    def process(self, shard: Sequence[Input], state: RunState) -> int:
        """Identify a shard of queries and write its part."""
        path = self.part(shard)
        if path.exists():
            return len(shard)
        rows: list[dict[str, Any]] = []
        for query in shard:
            state.check()
            of_query = self._rows(query, state)
            rows += of_query
            state.add_file(of_query[0]["status"])
        with write_atomically(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, MATCHES), file, compression="zstd")
        return len(shard)

    def part(self, shard: Sequence[Input]) -> Path:
        """The file that a shard becomes."""
        identities = json.dumps([self.key, [query.identity for query in shard]])
        name = hashlib.blake2b(identities.encode(), digest_size=16).hexdigest()
        return Path(self.parts) / f"part-{name}.parquet"

    def _rows(self, query: Input, state: RunState) -> list[dict[str, Any]]:
        problem, seconds, matches = query.problem, None, []
        status = Status.FAILED if problem else Status.OK
        if problem is None:
            try:
                with (
                    contextlib.closing(open_input(query.uri)) as file,
                    open_sound(query.uri, file, self._monitor.identifier.spec) as audio,
                ):
                    matches = self._identify(query.uri, audio, state)
                    seconds = audio.seconds_decoded
                    if audio.problem is not None:
                        status, problem = Status.PARTIAL, ("decode", audio.problem)
            except AudioError as error:
                status, problem = Status.FAILED, (error.stage, error.reason)
            except OSError as error:
                status, problem = Status.FAILED, ("open", error.strerror or str(error))
        stage, reason = problem or (None, None)
        about = {"query_seconds": seconds, "status": status.value, "stage": stage, "error": reason}
        found = matches or [Match(query.uri, 0, None)]
        return [match.to_dict() | about for match in found]

    def _identify(self, name: str, audio: AudioStream, state: RunState) -> list[Match]:
        blocks = _counted(audio, state)
        begin: list[np.ndarray] = []
        n_left = self.options.long_s * self._monitor.sample_rate
        while n_left > 0 and (block := next(blocks, None)) is not None:
            begin.append(block)
            n_left -= len(block)
        top = self.options.top
        if n_left > 0:
            identifier = self._monitor.identifier
            signal = np.concatenate(begin)
            return identifier.identify(
                signal, self._monitor.sample_rate, top, self._monitor.threshold, name
            )
        segments = self._monitor.segments(name, itertools.chain(begin, blocks))
        found = [s for s in segments if s.reference is not None]
        found.sort(key=lambda s: -(s.score or 0.0))
        return [dataclasses.replace(s, rank=n) for n, s in enumerate(found[:top], 1)]

    @property
    def _monitor(self) -> Monitor:
        return _monitor(self.catalog, self.options.encoder, self.options.threshold)


def _counted(audio: AudioStream, state: RunState) -> Iterator[np.ndarray]:
    seconds = 0.0
    for block in audio.blocks():
        state.check()
        state.add_seconds(audio.seconds_decoded - seconds)
        seconds = audio.seconds_decoded
        yield block


@functools.lru_cache(maxsize=2)
def _monitor(catalog: str, encoder: str | None, threshold: float | None) -> Monitor:
    return Monitor(Identifier(catalog, encoder), threshold)


def match_corpus(
    queries: Sequence[str],
    catalog_dir: str | Path,
    out: str | Path,
    options: MatchOptions | None = None,
    log: TextIO | None = None,
) -> MatchSummary:
    """Identify a corpus of files.

    A run that was killed is resumed by starting it again.

    Parameters
    ----------
    queries : sequence of str
        Files, folders, globs, manifests, URIs: as for ingest.
    catalog_dir : str or Path
    out : str or Path
        Parquet file to write, of :data:`index.schema.MATCHES`; every query has at least one row.
    options : MatchOptions, optional
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Raises
    ------
    EarmarkError
        If there is nothing to identify, or the result cannot be written.
    KeyboardInterrupt
        On Ctrl-C; nothing is half-written, and finished parts stay.
    """
    options, log, out = options or MatchOptions(), log or sys.stderr, Path(out)
    begin = time.monotonic()
    inputs = list_inputs(queries, all_files=options.all_files).inputs
    if not inputs:
        raise EarmarkError(f"nothing to identify: no audio in {', '.join(map(repr, queries[:3]))}")
    identifier = Identifier(catalog_dir, options.encoder)
    parts = out.with_name(f".{out.name}.parts")
    job = MatchJob(str(catalog_dir), str(parts), _key(identifier, options), options)
    shards = make_shards(inputs, options.shard_files, _SHARD_BYTES)
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EarmarkError(f"cannot write to {out.parent}: {error.strerror}") from None
    todo = [shard for shard in shards if not job.part(shard).exists()]
    n_todo = sum(map(len, todo))
    with quiet_logging():
        from pipelines.beam_job import run_job, runner_of

    embedded = runner_of(options.beam_args) is None
    threads = options.threads or ((os.cpu_count() or 1) if embedded else 1)
    state = RunState()
    if todo:
        with live_display(n_todo, state.counts, log, "Identifying"):
            run_job(todo, job, n_todo, state, threads, options.beam_args)
    summary = _join([job.part(shard) for shard in shards], out)
    shutil.rmtree(parts)
    return dataclasses.replace(
        summary,
        n_queries=len(inputs),
        n_done_before=len(inputs) - n_todo,
        elapsed_s=time.monotonic() - begin,
    )


def _key(identifier: Identifier, options: MatchOptions) -> str:
    calibration = dataclasses.asdict(identifier.bundle.calibration)
    asked = options.top, options.threshold, options.long_s
    shaping = [str(identifier.index.folder), calibration, *asked]
    return hashlib.blake2b(json.dumps(shaping).encode(), digest_size=16).hexdigest()


def _join(parts: Sequence[Path], out: Path) -> MatchSummary:
    states: collections.Counter[str] = collections.Counter()
    n_matches, seconds = 0, 0.0
    with write_atomically(out) as file, pq.ParquetWriter(file, MATCHES) as writer:
        for part in parts:
            table = pq.read_table(part)
            for rank, status, length in zip(
                *(table[name].to_pylist() for name in ("rank", "status", "query_seconds")),
                strict=True,
            ):
                n_matches += rank > 0
                if rank <= 1:
                    seconds += length or 0.0
                    failed = status == Status.FAILED
                    states["failed" if failed else "found" if rank else "unknown"] += 1
            writer.write_table(table)
    return MatchSummary(
        0, 0, states["found"], states["unknown"], states["failed"], n_matches, seconds, 0.0
    )
