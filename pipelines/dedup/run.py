"""Catalogs to a folder of results: the steps of ``earmark dedup`` in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pyarrow.parquet as pq

from encoders.errors import EarmarkError
from pipelines.dedup.lists import write_lists
from pipelines.dedup.results import Results, Settings, assemble, read_pairs
from pipelines.deduplicate import (
    PAIRS_FILE,
    UNPAIRED_FILE,
    PairOptions,
    find_pairs,
    open_catalogs,
)

FOUND = "found"
"""Folder inside the results where pairs are kept as they were found, before any judgement."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What ``earmark dedup`` is to do.

    Parameters
    ----------
    pairs : PairOptions
    settings : Settings
    list_format : str
        One of ``pipelines.dedup.lists.FORMATS``.
    """

    pairs: PairOptions = dataclasses.field(default_factory=PairOptions)
    settings: Settings = dataclasses.field(default_factory=Settings)
    list_format: str = "jsonl"


def deduplicate(
    catalog_dirs: Sequence[Path],
    out: Path,
    options: Options | None = None,
    log: TextIO | None = None,
) -> Results:
    """Find duplicates, and write everything but the report to ``out``.

    No audio file is changed, moved or deleted.

    Parameters
    ----------
    catalog_dirs : sequence of Path
    out : Path
        Made if it is not there.
    options : Options, optional
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Raises
    ------
    EarmarkError
    """
    options = options or Options()
    results = collect(catalog_dirs, out, options, log)
    write_lists(results, out, options.list_format)
    return results


def collect(
    catalog_dirs: Sequence[Path], out: Path, options: Options, log: TextIO | None = None
) -> Results:
    """Find duplicates as :func:`deduplicate` does, but write only the pairs as they were found."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EarmarkError(f"cannot write to {out}: {error.strerror}") from None
    find_pairs(catalog_dirs, out / FOUND, options.pairs, log)
    return assemble(
        open_catalogs(catalog_dirs),
        read_pairs(out / FOUND / PAIRS_FILE),
        pq.read_table(out / FOUND / UNPAIRED_FILE).to_pylist(),
        options.settings,
    )
