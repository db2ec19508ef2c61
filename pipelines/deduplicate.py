"""Catalogs to pairs of duplicates, as Beam jobs one after the other.

Files with the same bytes are found by their hash. Every recording is then looked up in the index,
window by window (:class:`~pipelines.pairs.stages.CandidateStage`); recordings that are in a
candidate pair are decoded once more and sketched (``SketchStage``); candidates are laid against
each other on their sketches (``VerifyStage``). Each stage writes files, and a run that is started
again goes on where it ended.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from encoders.errors import CatalogError, EarmarkError
from index.catalog import Catalog
from index.contents import Contents
from index.files import identical_pairs, read_files, unpaired_files
from index.schema import PAIRS, UNPAIRED, DuplicateKind, DuplicatePair, UnpairedClass
from index.search import FingerprintIndex
from index.steady import steady_recordings
from index.storage import write_atomically, write_error
from index.update import update_index
from pipelines.beam_options import quiet_logging
from pipelines.build_index import index_display
from pipelines.pairs.sketches import SHARD_SKETCHES, constant_contents
from pipelines.pairs.stages import (
    BUCKET,
    VERDICTS,
    CandidateStage,
    Run,
    SketchStage,
    Stage,
    VerifyStage,
    bucket_candidates,
)

PAIRS_FILE = "pairs.parquet"
UNPAIRED_FILE = "unpaired.parquet"

_PAIRS_AT_ONCE = 1 << 14
# Of the folder that holds what is done so far; the run's key follows.
_WORK = ".pairs-"
# In the metadata of PAIRS_FILE.
_KEY = b"earmark.pairs"
# Changes when the same catalogs would give other pairs.
_VERSION = 5


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """What to look for.

    Parameters
    ----------
    kinds : tuple of DuplicateKind
    between : (str, str), optional
        Two groups, to compare the files of the one with those of the other only: each is the
        folder of a catalog, a label as ``"key=value"``, or the value of a label.
    threads : int, optional
        Shards at a time in one worker. [default: one per core in the embedded runner, else 1]
    beam_args : tuple of str
        Options of Beam.
    """

    kinds: tuple[DuplicateKind, ...] = tuple(DuplicateKind)
    between: tuple[str, str] | None = None
    threads: int | None = None
    beam_args: tuple[str, ...] = ()


@dataclasses.dataclass
class PairSummary:
    """What a run found.

    Parameters
    ----------
    n_files : int
        Files compared or listed as unpaired.
    n_pairs : dict of str to int
        Pairs of each kind.
    n_unpaired : dict of str to int
        Files of each class.
    """

    n_files: int
    n_pairs: dict[str, int]
    n_unpaired: dict[str, int]


def find_pairs(
    catalog_dirs: Sequence[Path],
    out: Path,
    options: PairOptions | None = None,
    log: TextIO | None = None,
) -> PairSummary:
    """Find the pairs of files that are the same sound.

    Writes ``out/pairs.parquet`` (:data:`index.schema.PAIRS`) and ``out/unpaired.parquet``
    (:data:`index.schema.UNPAIRED`). A run that was killed is resumed by starting it again; one
    that is complete is not repeated while the catalogs and the options are the same.

    Parameters
    ----------
    catalog_dirs : sequence of Path
        One catalog or several, made with the same settings.
    out : Path
        Made if it is not there.
    options : PairOptions, optional
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Raises
    ------
    EarmarkError
        If a catalog cannot be used, a group has no file, or ``out`` cannot be written.
    KeyboardInterrupt
        On Ctrl-C; what is done stays for the next run.
    """
    options, log = options or PairOptions(), log or sys.stderr
    catalogs = open_catalogs(catalog_dirs)
    files = read_files(catalogs, options.between)
    key = _run_key(catalogs, options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if _key_of(out / PAIRS_FILE) != key:
            _find(catalogs, files, out, key, options, log)
    except OSError as error:
        raise write_error(out, error) from error
    kinds = pq.read_table(out / PAIRS_FILE, columns=["kind"])["kind"].to_pylist()
    classes = pq.read_table(out / UNPAIRED_FILE, columns=["class"])["class"].to_pylist()
    return PairSummary(files.num_rows, dict(Counter(kinds)), dict(Counter(classes)))


def open_catalogs(catalog_dirs: Sequence[Path]) -> list[Catalog]:
    """Open catalogs that are to be compared.

    Raises
    ------
    EarmarkError
        If there is none, or they were made with different settings.
    """
    if not catalog_dirs:
        raise EarmarkError("no catalog: name one or several")
    first = Catalog.open(catalog_dirs[0])
    return [first, *(Catalog.open(path, first.config) for path in catalog_dirs[1:])]


def _run_key(catalogs: Sequence[Catalog], options: PairOptions) -> str:
    content = [
        _VERSION,
        [(str(c.path.resolve()), c.config.sha256, c.content_key) for c in catalogs],
        sorted(kind.value for kind in options.kinds),
        options.between,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _key_of(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return None
    return metadata.get(_KEY, b"").decode() or None


def _find(
    catalogs: list[Catalog],
    files: pa.Table,
    out: Path,
    key: str,
    options: PairOptions,
    log: TextIO,
) -> None:
    grouped = options.between is not None
    work = out / f"{_WORK}{key}"
    for stale in out.glob(f"{_WORK}*"):
        if stale != work:
            shutil.rmtree(stale)
    work.mkdir(exist_ok=True)
    pairs: Iterator[DuplicatePair] = iter(())
    if DuplicateKind.IDENTICAL in options.kinds:
        pairs = identical_pairs(files, grouped)
    unpaired = unpaired_files(files)
    if set(options.kinds) - {DuplicateKind.IDENTICAL}:
        run = Run(str(work), tuple(str(c.path) for c in catalogs), grouped)
        contents = Contents(files, grouped)
        write_table(files, work / "files.parquet")
        _run_stages(run, catalogs, contents, options, log)
        verified = (p for p in _verified(run, contents) if p.kind in options.kinds)
        pairs = itertools.chain(pairs, verified)
        unpaired = _with_tones(unpaired, run, contents)
    write_table(unpaired, out / UNPAIRED_FILE)
    table = to_table(pairs)
    write_table(table.replace_schema_metadata({_KEY: key.encode()}), out / PAIRS_FILE)
    shutil.rmtree(work)


def _run_stages(
    run: Run, catalogs: list[Catalog], contents: Contents, options: PairOptions, log: TextIO
) -> None:
    for catalog in catalogs:
        if not _has_index(catalog):
            with catalog.writer_lock(), index_display(log) as progress:
                update_index(catalog, progress)
    with quiet_logging():
        from pipelines.pairs.job import run_stage

    def process(stage: Stage, shards: Sequence[int], title: str) -> None:
        run_stage(stage, shards, title, options.threads, options.beam_args, log)

    n_recordings = sum(catalog.indexed_recordings().num_rows for catalog in catalogs)
    shards = range(CandidateStage.n_shards(n_recordings))
    process(CandidateStage(run), shards, "Looking up recordings")
    sketched = run.sketched
    if not sketched.exists():
        bucket_candidates(run)
        steady = [contents.numbers(steady_recordings(catalog)) for catalog in catalogs]
        numbers = np.unique(np.concatenate([_candidates(run), *steady]))
        with write_atomically(sketched) as file:
            np.save(file, numbers[numbers >= 0])
    n_sketches = len(np.load(sketched))
    process(SketchStage(run), range(-(-n_sketches // SHARD_SKETCHES)), "Sketching candidates")
    buckets = sorted(int(path.name) for path in (run.root / "buckets").iterdir())
    process(VerifyStage(run), buckets, f"Verifying pairs, by {BUCKET} recordings")


def _has_index(catalog: Catalog) -> bool:
    # Of the recordings there are now, in the layout of this version and undamaged.
    try:
        FingerprintIndex.open(catalog)
    except CatalogError:
        return False
    return catalog.index_is_current()


def _candidates(run: Run) -> np.ndarray:
    # Contents that are in a candidate pair.
    found = [np.empty(0, np.int64)]
    dataset = ds.dataset(run.root / CandidateStage.name, format="parquet")
    for batch in dataset.to_batches(columns=["a", "b"]):
        found.append(np.unique(np.concatenate([column.to_numpy() for column in batch.columns])))
    return np.unique(np.concatenate(found))


def _verified(run: Run, contents: Contents) -> Iterator[DuplicatePair]:
    if not (run.root / VerifyStage.name).exists():
        return
    for batch in ds.dataset(run.root / VerifyStage.name, VERDICTS, "parquet").to_batches():
        for row in batch.to_pylist():
            for a, b, turned in contents.file_pairs(row["a"], row["b"]):
                yield _pair(row, a, b, turned, contents)


def _pair(row: dict, a: str, b: str, turned: bool, contents: Contents) -> DuplicatePair:
    first, second = ("b", "a") if turned else ("a", "b")
    # The last frame of a sketch reaches beyond the end of the sound.
    a_end_s, b_end_s = (
        min(row[f"{side}_end_s"], float(contents.seconds[row[side]])) for side in (first, second)
    )
    return DuplicatePair(
        a=a,
        b=b,
        a_id=str(contents.ids[row[first]]),
        b_id=str(contents.ids[row[second]]),
        kind=DuplicateKind(row["kind"]),
        score=row["score"],
        a_start_s=row[f"{first}_start_s"],
        a_end_s=a_end_s,
        b_start_s=row[f"{second}_start_s"],
        b_end_s=b_end_s,
        speed=round(1 / row["speed"], 4) if turned else row["speed"],
        coverage=row["coverage"],
        reason=row["reason"],
    )


def _with_tones(unpaired: pa.Table, run: Run, contents: Contents) -> pa.Table:
    tones = [
        {
            "uri": uri,
            "class": UnpairedClass.CONSTANT_TONE.value,
            "reason": "no band changes by more than 1 dB",
        }
        for number in constant_contents(run.root / SketchStage.name)
        for uri in contents.uris(number)
    ]
    table = pa.concat_tables([unpaired, pa.Table.from_pylist(tones, schema=UNPAIRED)])
    return table.filter(pc.is_valid(table["uri"])).sort_by("uri")


def to_table(pairs: Iterable[DuplicatePair]) -> pa.Table:
    """Pairs as a table, sorted. Few of them are in memory as objects at a time."""
    rows, tables = (pair.to_dict() for pair in pairs), [PAIRS.empty_table()]
    while some := list(itertools.islice(rows, _PAIRS_AT_ONCE)):
        tables.append(pa.Table.from_pylist(some, schema=PAIRS))
    return pa.concat_tables(tables).sort_by([("a", "ascending"), ("b", "ascending")])


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole or not at all."""
    with write_atomically(path) as file:
        pq.write_table(table, file, compression="zstd")
