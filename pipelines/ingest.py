"""Ingest: inputs to deterministic shards, through Beam, to the parts of a catalog and its index."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.columns import add_columns
from index.schema import Status
from pipelines.beam_options import quiet_logging
from pipelines.columns import (
    FillGaps,
    choose_bundles,
    explain_columns,
    find_gaps,
    parse_encoders,
    unread,
)
from pipelines.inputs import Input, Listing, list_inputs
from pipelines.progress import Counts, RunState, live_display
from pipelines.shard import Job, load_encoders, make_shards

SHARD_FILES = 32
_SHARD_BYTES = 64 << 20
# Seconds between two looks at the catalog while other machines write to it.
_POLL_INTERVAL = 5.0


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """How to ingest.

    Parameters
    ----------
    fingerprint, vae : str
        Encoder bundles: names of shipped ones, or folders.
    precision : str, optional
        ``"int8"`` or ``"float32"``. [default: that of the catalog, int8 for a new one]
    keep_mfcc : str, optional
        ``"summary"`` or ``"full"``. [default: that of the catalog, summary for a new one]
    max_failures : int, optional
        More failed inputs than that end the run; what is done stays.
    retry_failed : bool
        Try inputs again that failed in an earlier run.
    all_files : bool
        Try every file of a folder, whatever its name.
    shard_files : int
        Inputs per part, at most.
    threads : int, optional
        Shards at a time in one worker. [default: one per core in the embedded runner, else 1]
    dry_run : bool
        Only say what would be done.
    build_index : bool
        Bring the index up to date afterwards.
    beam_args : tuple of str
        Options of Beam.
    encoders : str, optional
        Columns and perhaps their bundles, as in ``"fingerprint,vae,event=DIR"``. A new catalog has
        fingerprints and these. What a catalog has is always written; new ones are added to all of
        it.
    """

    fingerprint: str = "fingerprint"
    vae: str | None = None
    precision: str | None = None
    keep_mfcc: str | None = None
    max_failures: int | None = None
    retry_failed: bool = False
    all_files: bool = False
    shard_files: int = SHARD_FILES
    threads: int | None = None
    dry_run: bool = False
    build_index: bool = True
    beam_args: tuple[str, ...] = ()
    encoders: str | None = None


@dataclasses.dataclass
class IngestSummary:
    """What a run of ingest found and did.

    Parameters
    ----------
    n_inputs : int
        Different inputs listed.
    n_duplicates : int
        Inputs that were given more than once.
    n_not_audio : int
        Files in folders passed over for their names.
    n_done_before : int
        Inputs whose row was there already.
    n_failed_before : int
        Of those, inputs that failed then and were not tried again.
    n_missing : int
        Of the inputs done before, named ones that are still missing.
    n_todo, n_shards : int
    ok, partial, failed : int
        Inputs of this run by status.
    seconds, windows : float, int
        Audio decoded and windows written.
    elapsed_s : float
        Wall time of the pipeline.
    cpu_s : float or None
        CPU time of the pipeline; None if other processes did the work.
    catalog_bytes : int
    reasons : list of (str, int)
        The most frequent reasons of failed, partial and silent inputs.
    stopped : bool
        Whether too many failures ended the run early.
    index_seconds : float or None
        Wall time of bringing the index up to date; None if that was not needed.
    columns : dict of str
        Further columns of the catalog: names of the encoders that made them.
    n_gaps : int
        Parts of earlier runs that lacked a column; they have it now.
    unread : list of str
        Recordings of those parts that could not be read again: they have no such embedding.
    """

    n_inputs: int
    n_duplicates: int
    n_not_audio: int
    n_done_before: int
    n_failed_before: int
    n_missing: int
    n_todo: int
    n_shards: int
    ok: int = 0
    partial: int = 0
    failed: int = 0
    seconds: float = 0.0
    windows: int = 0
    elapsed_s: float = 0.0
    cpu_s: float | None = None
    catalog_bytes: int = 0
    reasons: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    stopped: bool = False
    index_seconds: float | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    n_gaps: int = 0
    unread: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


def ingest(
    inputs: Sequence[str],
    catalog_dir: str | Path,
    options: IngestOptions | None = None,
    log: TextIO | None = None,
) -> IngestSummary:
    """Ingest audio into a catalog, which is made if it is not there.

    Inputs that the catalog knows in their present state are passed over, so that a run that was
    killed is resumed by starting it again.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders, globs, manifests, URIs. None are needed to add columns to a catalog.
    catalog_dir : str or Path
    options : IngestOptions, optional
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Returns
    -------
    summary : IngestSummary

    Raises
    ------
    EarmarkError
        If there is nothing to ingest, or the catalog cannot be used or written.
    KeyboardInterrupt
        On Ctrl-C; nothing is half-written.
    """
    options, log = options or IngestOptions(), log or sys.stderr
    # As a Path a URI has lost a slash.
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(catalog_dir)):
        raise EarmarkError(
            f"the catalog {catalog_dir} is a URI: it has to be a folder that all workers see, "
            "so mount it"
        )
    root = Path(catalog_dir)
    listing = list_inputs(inputs, all_files=options.all_files, exclude=root)
    known = Catalog.open(root) if Catalog.exists(root) else None
    if inputs or known is None or not options.encoders:
        _require_inputs(inputs, listing)
    precision = options.precision or (known.config.fingerprint.precision if known else "int8")
    keep_mfcc = options.keep_mfcc or (known.config.keep_mfcc if known else "summary")
    job = _make_job(root, known, options, precision, keep_mfcc)
    if options.dry_run:
        catalog = Catalog.open(root, job.config) if known else None
        summary = _plan(listing, catalog, options)[0]
        if catalog is not None:
            summary.n_gaps = len(find_gaps(Catalog(root, job.config)))
        return summary
    catalog = Catalog.open(root, job.config) if known else Catalog.create(root, job.config)
    with catalog.writer_lock():
        # Again, in case that another process has made it or written to it in the meantime.
        catalog = add_columns(Catalog.open(root, job.config), job.config.columns)
        catalog.clean()
        job = dataclasses.replace(job, run=catalog.next_run(), config=catalog.config)
        summary, shards = _plan(listing, catalog, options)
        summary.columns = {name: info.name for name, info in catalog.config.columns.items()}
        # First what is there, so that one run's parts are either all complete or none.
        _fill(catalog, job, options, summary, log)
        if shards:
            _run(shards, job, catalog, options, summary, log)
        if options.build_index and not catalog.index_is_current():
            summary.index_seconds = _build_index(catalog, log)
        summary.catalog_bytes = catalog.n_bytes()
    return summary


def _make_job(
    root: Path, known: Catalog | None, options: IngestOptions, precision: str, keep_mfcc: str
) -> Job:
    # Its configuration has the columns that the catalog is to have; the run is not known yet.
    given = parse_encoders(options.encoders) if options.encoders else {}
    fingerprint = given.get("fingerprint") or options.fingerprint
    # A new catalog has what is asked for; one that is there goes on as it began.
    has_latents = known.config.latent is not None if known else not given or "vae" in given
    if options.vae and not has_latents and "vae" not in given:
        raise EarmarkError(f"no latents will be stored: name vae={options.vae} in --encoders too")
    vae = (given.get("vae") or options.vae or "vae") if has_latents else None
    columns = choose_bundles(known, given)
    with explain_columns(known, given):
        config = load_encoders(fingerprint, vae, precision, columns).config(keep_mfcc)
    return Job(str(root), 0, fingerprint, vae, config, columns)


def _fill(
    catalog: Catalog, job: Job, options: IngestOptions, summary: IngestSummary, log: TextIO
) -> None:
    gaps = find_gaps(catalog, options.retry_failed)
    if not gaps:
        return
    with quiet_logging():
        from pipelines.beam_job import run_job

    state, threads = RunState(), _threads(options)
    with live_display(sum(gap.n_recordings for gap in gaps), state.counts, log):
        run_job(gaps, FillGaps(job), len(gaps), state, threads, options.beam_args)
    summary.n_gaps = len(gaps)
    summary.unread = unread(catalog, gaps)


def _require_inputs(given: Sequence[str], listing: Listing) -> None:
    problems = [item.problem for item in listing.inputs]
    if listing.inputs and any(p is None or p[0] != "list" for p in problems):
        return
    if not given:
        raise EarmarkError("no inputs: name files, folders, globs, URIs or a manifest")
    reasons = [f"{item.uri!r}: {item.problem[1]}" for item in listing.inputs if item.problem]
    if listing.n_not_audio:
        reasons.append(
            f"{listing.n_not_audio} files are not audio by name (--all-files to try them)"
        )
    shown = "; ".join(reasons[:3]) or f"no files in {', '.join(map(repr, given[:3]))}"
    raise EarmarkError(f"nothing to ingest: {shown}")


def _plan(
    listing: Listing, catalog: Catalog | None, options: IngestOptions
) -> tuple[IngestSummary, list[list[Input]]]:
    done: dict[str, tuple[int | None, int | None]] = {}
    failed_before, named = set(), {item.uri for item in listing.inputs if item.named}
    if catalog is not None:
        rows = catalog.recordings(["uri", "n_bytes", "modified_ns", "status"])
        uris, sizes, times, states = (column.to_pylist() for column in rows.columns)
        for uri, size, modified, status in zip(uris, sizes, times, states, strict=True):
            again = (status == Status.FAILED and options.retry_failed) or (
                # Not because they are still in a folder.
                status == Status.REMOVED and uri in named
            )
            if not again:
                done[uri] = size, modified
                if status == Status.FAILED:
                    failed_before.add(uri)
    todo = [item for item in listing.inputs if done.get(item.uri) != item.identity[1:]]
    todo_uris = {item.uri for item in todo}
    missing = [
        item
        for item in listing.inputs
        if item.named and item.problem is not None and item.uri not in todo_uris
    ]
    shards = make_shards(todo, options.shard_files, _SHARD_BYTES)
    summary = IngestSummary(
        n_inputs=len(listing.inputs),
        n_duplicates=listing.n_duplicates,
        n_not_audio=listing.n_not_audio,
        n_done_before=len(listing.inputs) - len(todo),
        n_failed_before=sum(
            item.uri in failed_before and item.uri not in todo_uris for item in listing.inputs
        ),
        n_missing=len(missing),
        n_todo=len(todo),
        n_shards=len(shards),
    )
    return summary, shards


def _run(
    shards: list[list[Input]],
    job: Job,
    catalog: Catalog,
    options: IngestOptions,
    summary: IngestSummary,
    log: TextIO,
) -> None:
    with quiet_logging():
        from pipelines.beam_job import run_job, runner_of

    embedded, threads = runner_of(options.beam_args) is None, _threads(options)
    state = RunState(options.max_failures)
    counts = state.counts if embedded else _CatalogCounts(catalog, job.run)
    cpu, begin = time.process_time(), time.monotonic()
    with live_display(summary.n_todo, counts, log):
        run_job(shards, job, summary.n_todo, state, threads, options.beam_args)
    summary.elapsed_s = time.monotonic() - begin
    summary.cpu_s = time.process_time() - cpu if embedded else None
    rows = catalog.run_recordings(job.run)
    summary.stopped = state.stopped
    if rows.num_rows != summary.n_todo and not state.stopped:
        raise EarmarkError(
            f"{summary.n_todo} inputs gave {rows.num_rows} status rows in {catalog.path}: "
            "do all workers see the same folder there?"
        )
    _count(rows, summary)
    if options.max_failures is not None and summary.failed > options.max_failures:
        summary.stopped = True


def _threads(options: IngestOptions) -> int:
    from pipelines.beam_job import runner_of

    embedded = runner_of(options.beam_args) is None
    return options.threads or ((os.cpu_count() or 1) if embedded else 1)


class _CatalogCounts:
    """Counts what other processes have committed, without looking at the disk all the time."""

    def __init__(self, catalog: Catalog, run: int) -> None:
        self._catalog = catalog
        self._run = run
        self._counts = Counts()
        self._looked = 0.0

    def __call__(self) -> Counts:
        if time.monotonic() - self._looked > _POLL_INTERVAL:
            rows = self._catalog.run_recordings(self._run)
            failed = rows["status"].to_pylist().count(Status.FAILED)
            seconds = sum(rows["seconds_decoded"].to_pylist())
            self._counts = Counts(rows.num_rows, failed, seconds)
            self._looked = time.monotonic()
        return self._counts


def _count(rows: pa.Table, summary: IngestSummary) -> None:
    states = collections.Counter(rows["status"].to_pylist())
    summary.ok = states[Status.OK.value]
    summary.partial = states[Status.PARTIAL.value]
    summary.failed = states[Status.FAILED.value]
    summary.seconds = sum(rows["seconds_decoded"].to_pylist())
    summary.windows = sum(rows["n_windows"].to_pylist())
    examples: dict[str, str] = {}
    kinds: collections.Counter[str] = collections.Counter()
    for stage, error in zip(rows["stage"].to_pylist(), rows["error"].to_pylist(), strict=True):
        if error is not None:
            # Reasons that differ only in their figures are of one kind.
            kind = re.sub(r"\d+(\.\d+)?", "#", f"{stage}: {error}")
            kinds[kind] += 1
            examples.setdefault(kind, f"{stage}: {error}")
    summary.reasons = [(examples[kind], n) for kind, n in kinds.most_common(5)]


def _build_index(catalog: Catalog, log: TextIO) -> float:
    from index.update import update_index
    from pipelines.build_index import index_display

    begin = time.monotonic()
    with index_display(log) as progress:
        update_index(catalog, progress)
    return time.monotonic() - begin
