"""Catalogs to pairs of duplicates."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.files import identical_pairs, read_files, unpaired_files
from index.schema import PAIRS, DuplicateKind, DuplicatePair
from index.storage import write_atomically

PAIRS_FILE = "pairs.parquet"
UNPAIRED_FILE = "unpaired.parquet"


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
    (:data:`index.schema.UNPAIRED`). A run that was killed is resumed by starting it again.

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
    """
    options, log = options or PairOptions(), log or sys.stderr
    catalogs = open_catalogs(catalog_dirs)
    files = read_files(catalogs, options.between)
    pairs: list[DuplicatePair] = []
    if DuplicateKind.IDENTICAL in options.kinds:
        pairs += identical_pairs(files, options.between is not None)
    unpaired = unpaired_files(files)
    out.mkdir(parents=True, exist_ok=True)
    write_table(to_table(pairs), out / PAIRS_FILE)
    write_table(unpaired, out / UNPAIRED_FILE)
    return PairSummary(
        n_files=files.num_rows,
        n_pairs=dict(Counter(pair.kind.value for pair in pairs)),
        n_unpaired=dict(Counter(unpaired["class"].to_pylist())),
    )


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


def to_table(pairs: Iterable[DuplicatePair]) -> pa.Table:
    """Pairs as a table, sorted."""
    rows = [pair.to_dict() for pair in sorted(pairs, key=lambda pair: (pair.a, pair.b))]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole or not at all."""
    with write_atomically(path) as file:
        pq.write_table(table, file, compression="zstd")
