"""Embedding columns that are added to a catalog: its sounds are decoded again, and only embedded.

Every part of the windows gets its part of the column, by itself and atomically, so that a run
that was killed is resumed by starting it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.bundle import Bundle
from encoders.errors import AudioError, BundleError, EarmarkError
from encoders.features import stream_windows
from index.catalog import Catalog
from index.columns import (
    BASE,
    FOLDER,
    check_name,
    count_unread,
    missing_parts,
    part_recordings,
)
from index.schema import Status
from index.storage import RowsWriter
from pipelines.inputs import open_input
from pipelines.progress import RunState
from pipelines.shard import WINDOWS_PER_BATCH, Job, embed_columns, hash_file, open_sound


@dataclasses.dataclass(frozen=True)
class Gap:
    """A part of the windows, and the columns that have no part of that name.

    Parameters
    ----------
    part : str
    columns : tuple of str
    n_recordings : int
        With windows.
    """

    part: str
    columns: tuple[str, ...]
    n_recordings: int


def parse_encoders(text: str) -> dict[str, str | None]:
    """Columns and their bundles from an option like ``fingerprint,event=runs/event/bundle``.

    Returns
    -------
    bundles : dict of str or None
        By column, ``"vae"`` for the latents; None where no bundle is named.

    Raises
    ------
    EarmarkError
        If it cannot be read.
    """
    bundles: dict[str, str | None] = {}
    for word in text.split(","):
        name, given, bundle = (piece.strip() for piece in word.partition("="))
        name = "vae" if BASE.get(name) == "latent" else name
        if not name or (given and not bundle) or name in bundles:
            raise EarmarkError(
                f"--encoders takes names with commas between, each once and each perhaps with a "
                f"bundle, such as fingerprint,vae,event=DIR; not {text!r}"
            )
        if name not in BASE:
            check_name(name)
        bundles[name] = bundle or None
    return bundles


def choose_bundles(
    known: Catalog | None, given: dict[str, str | None]
) -> tuple[tuple[str, str], ...]:
    """Further columns a run writes: those of the catalog and those asked for, with their bundles.

    Parameters
    ----------
    known : Catalog or None
    given : dict of str or None
        From :func:`parse_encoders`; a bundle that is not named is the shipped one of that name.
    """
    stored = known.config.columns if known else {}
    bundles = {name: info.name for name, info in stored.items()}
    asked = {name: bundle for name, bundle in given.items() if name not in BASE}
    if known and known.config.latent is None and "vae" in given:
        asked["latent"] = given["vae"] or bundles.get("latent", "vae")
    return tuple((bundles | {n: b or bundles.get(n, n) for n, b in asked.items()}).items())


@contextlib.contextmanager
def explain_columns(known: Catalog | None, given: dict[str, str | None]) -> Iterator[None]:
    """Say of a bundle that cannot be loaded how to name the one of a stored column."""
    try:
        yield
    except BundleError as error:
        unnamed = [n for n in (known.config.columns if known else {}) if n not in given]
        if not unnamed:
            raise
        raise BundleError(
            f"{error}; the catalog has the column(s) {', '.join(unnamed)}: name their bundles "
            f"with --encoders {','.join(f'{name}=BUNDLE' for name in unnamed)}"
        ) from None


def find_gaps(catalog: Catalog, retry: bool = False) -> list[Gap]:
    """Parts that lack columns.

    Parameters
    ----------
    catalog : Catalog
    retry : bool
        Also those where some sound could not be read when the column was added.
    """
    lacking: dict[str, list[str]] = {}
    for name in catalog.config.columns:
        parts = missing_parts(catalog, name)
        if retry:
            there = (part for part in catalog.parts() if part not in parts)
            parts += [part for part in there if count_unread(catalog, name, part).any()]
        for part in parts:
            lacking.setdefault(part, []).append(name)
    return [
        Gap(part, tuple(names), int((_n_windows(catalog, part) > 0).sum()))
        for part, names in sorted(lacking.items())
    ]


def unread(catalog: Catalog, gaps: Sequence[Gap]) -> list[str]:
    """Recordings whose windows have no embeddings after their gaps were filled.

    Returns
    -------
    uris : list of str
        Of recordings that are not superseded by later ones of the same name.
    """
    current = catalog.recordings(["uri", "recording_id"])
    ids = dict(zip(current["uri"].to_pylist(), current["recording_id"].to_pylist(), strict=True))
    found = set()
    for gap in gaps:
        rows = part_recordings(catalog, gap.part).to_pylist()
        for name in gap.columns:
            for row, n in zip(rows, count_unread(catalog, name, gap.part), strict=True):
                if n and ids.get(row["uri"]) == row["recording_id"]:
                    found.add(row["uri"])
    return sorted(found)


@dataclasses.dataclass(frozen=True)
class FillGaps:
    """Gaps, one by one: a :class:`~pipelines.workers.Work`."""

    job: Job

    def prepare(self) -> None:
        """Load the bundles, once per process."""
        self.job.load_encoders()

    def process(self, gap: Gap, state: RunState) -> int:
        """Write the columns of one part."""
        fill_gap(gap, self.job, self.job.load_encoders().columns, state)
        return 1


def fill_gap(gap: Gap, job: Job, encoders: dict[str, Bundle], state: RunState) -> None:
    """Write the columns of one part. Doing it twice is the same as once.

    A recording that is gone, has changed or does not decode as it did then has rows of zeros.

    Raises
    ------
    CatalogError
        If the part cannot be written.
    """
    catalog = Catalog(Path(job.catalog), job.config)
    mine = {name: encoders[name] for name in gap.columns}
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                RowsWriter(catalog.path / FOLDER / name, job.config.column_schema(name))
            )
            for name in mine
        }
        for row in part_recordings(catalog, gap.part).to_pylist():
            n = 0
            if row["n_windows"]:
                for batches in _embed_again(row, mine, job, state):
                    n += len(batches[gap.columns[0]])
                    for name, batch in batches.items():
                        writers[name].write(batch)
                state.add_file(Status.OK if n == row["n_windows"] else Status.FAILED)
            for name, writer in writers.items():
                if n < row["n_windows"]:
                    writer.write(_zeros(job.config.column_schema(name), row["n_windows"] - n))
        for writer in writers.values():
            writer.commit(gap.part)


def _embed_again(
    row: dict[str, Any], encoders: dict[str, Bundle], job: Job, state: RunState
) -> Iterator[dict[str, pa.RecordBatch]]:
    # Ends early where the sound cannot be read, or is not the one that was ingested.
    spec, left, seconds = job.config.spec, row["n_windows"], 0.0
    with (
        contextlib.suppress(AudioError, OSError),
        contextlib.closing(open_input(row["uri"])) as file,
    ):
        if hash_file(file, state)[0] != row["recording_id"]:
            return
        with open_sound(row["uri"], file, spec) as stream:
            for _, windows in stream_windows(stream.blocks(), spec, WINDOWS_PER_BATCH):
                state.check()
                state.add_seconds(stream.seconds_decoded - seconds)
                seconds = stream.seconds_decoded
                if left:
                    yield embed_columns(windows[:left], encoders, job.config)
                left -= min(left, len(windows))


def _n_windows(catalog: Catalog, part: str) -> np.ndarray:
    return part_recordings(catalog, part)["n_windows"].to_numpy()


def _zeros(schema: pa.Schema, n: int) -> pa.RecordBatch:
    width = schema.field("embedding").type.list_size
    values = pa.array(np.zeros(n * width, np.float32))
    return pa.RecordBatch.from_arrays(
        [pa.FixedSizeListArray.from_arrays(values, width)], schema=schema
    )
