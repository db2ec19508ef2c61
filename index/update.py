"""The live index follows its catalog: what is new joins, what is gone leaves, little is copied."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import CatalogError
from index import policy
from index.build import (
    Progress,
    add_rows,
    build_index,
    copy_rows,
    row_table,
    write_segment,
)
from index.catalog import Catalog
from index.generation import (
    ROW_STORE,
    TRAINED,
    GenerationInfo,
    Segment,
    check_files,
    link_files,
    live_rows,
    next_number,
    read_info,
    read_known_inputs,
    read_rows,
    write_info,
    write_table,
)
from index.inputs import Inputs, to_index
from index.lists import load_lists, read_trained, renumber
from index.nearest import open_nearest, sounding
from index.row_store import RowWriter, map_signs, map_vectors
from index.verify import MIN_RECALL, recall_of_themselves

MAX_SEGMENTS = 6
"""A query looks into the lists of every segment."""

MAX_TABLES = 32
"""Of rows, and of inputs."""


class _Unfit(Exception):
    """The trained quantiser does not suit what has been added."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """What sets the row table of an index apart from its catalog.

    Attributes
    ----------
    kept, gone : pa.Table
        ``index.schema.ROWS`` that stay, under their present names, and that leave.
    new : pa.Table
        Of :meth:`Catalog.indexed_recordings`.
    renamed : bool
        Whether a name or a label has changed.
    """

    kept: pa.Table
    gone: pa.Table
    new: pa.Table
    renamed: bool

    @classmethod
    def between(cls, rows: pa.Table, wanted: pa.Table) -> Difference:
        """Compare by content: recordings are the same when their bytes are."""
        ids = wanted["recording_id"].combine_chunks()
        place = pc.index_in(rows["recording_id"], ids).combine_chunks()
        same = pc.equal(wanted["n_windows"].take(place), rows["n_rows"])
        stays = pc.fill_null(same, False)
        old = rows.filter(stays)
        present = wanted.take(place.filter(stays.combine_chunks()))
        kept = old
        for name in ("uri", "labels"):
            kept = kept.set_column(
                kept.schema.get_field_index(name), kept.schema.field(name), present[name]
            )
        return cls(
            kept=kept,
            gone=rows.filter(pc.invert(stays)),
            new=wanted.filter(pc.invert(pc.is_in(ids, old["recording_id"].combine_chunks()))),
            renamed=not kept.equals(old),
        )

    @property
    def n_new_rows(self) -> int:
        """Windows to add."""
        return int(self.new["n_windows"].to_numpy().sum())


def update_index(catalog: Catalog, progress: Progress | None = None) -> GenerationInfo:
    """Bring the index up to date with the catalog and publish it as the live generation.

    New recordings are added and removed ones taken out. The index is built whole if there is none,
    if it is damaged or of another encoder, when the catalog has outgrown its kind
    (:func:`index.policy.outgrown`), or when it does not find what has been added; it is compacted
    when much of it is removed. Call it under ``catalog.writer_lock()``.

    Parameters
    ----------
    catalog : Catalog
    progress : callable, optional

    Raises
    ------
    CatalogError
        If a part of the catalog is damaged; the live generation stays.
    """
    folder = catalog.current_generation()
    if folder is None:
        return build_index(catalog, progress)
    factory = factory_by_hand(catalog)
    try:
        info = read_info(folder)
        check_files(folder, info)
        rows, known = read_rows(folder, info), read_known_inputs(folder, info)
    except CatalogError:
        return build_index(catalog, progress, factory)
    if info.encoder_sha256 != catalog.config.fingerprint.sha256:
        return build_index(catalog, progress, factory)
    inputs = catalog.inputs(known)
    difference = Difference.between(rows, to_index(inputs.table))
    n_after = info.n_sounding + difference.n_new_rows
    if info.by_size and policy.outgrown(info.kind, info.n_at_build, n_after, info.dim):
        return build_index(catalog, progress)
    try:
        info = _follow(catalog, folder, info, inputs, difference, progress)
    except _Unfit:
        return build_index(catalog, progress, factory)
    if policy.sparse(info.n_vectors, info.n_rows):
        info = compact_index(catalog, progress)
    return info


def factory_by_hand(catalog: Catalog) -> str | None:
    """FAISS factory string that the user has chosen for the live index, if it can be told."""
    folder = catalog.current_generation()
    try:
        info = read_info(folder) if folder else None
    except CatalogError:
        return None
    return None if info is None or info.by_size else info.factory


def compact_index(catalog: Catalog, progress: Progress | None = None) -> GenerationInfo:
    """Drop the rows of removed recordings from the live index, and join its later segments.

    Nothing is trained again, and the first segment, which is larger than all others together, is
    not encoded again. The index must be up to date. Call it under ``catalog.writer_lock()``.
    """
    folder = catalog.current_generation()
    if folder is None:
        return build_index(catalog, progress)
    info = read_info(folder)
    check_files(folder, info)
    rows = read_rows(folder, info)
    old_vectors, old_signs = map_vectors(folder, info), map_signs(folder, info)
    first, n = rows["first_row"].to_numpy(), rows["n_rows"].to_numpy()
    with catalog.new_generation() as new:
        with RowWriter(new, info.dim, info.sign_shape) as writer:
            for done, (start, length) in enumerate(zip(first, n, strict=True), 1):
                mine = slice(start, start + length)
                writer.append(old_vectors[mine], old_signs[mine])
                if progress:
                    progress("Copying recordings", done, len(n))
        compacted = dataclasses.replace(
            info,
            n_vectors=writer.n_vectors,
            row_tables=("rows-1.parquet",),
            files=writer.files,
        )
        vectors = map_vectors(new, compacted)
        if info.segments:
            link_files(folder, new, [TRAINED])
            segments = _compact_segments(folder, new, info, live_rows(rows), vectors, progress)
            compacted = dataclasses.replace(compacted, segments=segments)
        at = rows.schema.get_field_index("first_row")
        rows = rows.set_column(at, rows.schema.field(at), pa.array(np.cumsum(n) - n))
        write_table(rows, new / "rows-1.parquet")
        link_files(folder, new, info.input_tables)
        every_row = live_rows(rows)
        nearest = open_nearest(new, compacted, vectors, every_row)
        if recall_of_themselves(nearest, vectors, every_row) < MIN_RECALL:
            raise CatalogError(
                f"the index in {folder} is damaged: it does not find its own rows; build it again "
                f"with 'earmark index {catalog.path} --rebuild'"
            )
        write_info(new, compacted)
    return compacted


def _follow(
    catalog: Catalog,
    folder: Path,
    info: GenerationInfo,
    inputs: Inputs,
    difference: Difference,
    progress: Progress | None,
) -> GenerationInfo:
    gone = live_rows(difference.gone)
    with catalog.new_generation() as new:
        link_files(folder, new, ROW_STORE)
        with RowWriter(new, info.dim, info.sign_shape, info) as writer:
            copy_rows(catalog, writer, difference.new, progress)
        grown = dataclasses.replace(info, n_vectors=writer.n_vectors, files=writer.files)
        vectors = map_vectors(new, grown)
        added = np.arange(info.n_vectors, writer.n_vectors)
        segments = info.segments
        if not info.kind.is_flat:
            link_files(folder, new, [TRAINED])
            segments = _write_segments(folder, new, info, vectors, gone, progress)
        tables = _write_row_tables(folder, new, info, difference)
        _write_inputs(folder, new, info, inputs)
        n_rows = info.n_rows - len(gone) + len(added)
        grown = dataclasses.replace(
            grown,
            n_rows=n_rows,
            n_recordings=difference.kept.num_rows + difference.new.num_rows,
            n_sounding=info.n_sounding + writer.n_sounding - len(sounding(vectors, gone)[0]),
            row_tables=tables,
            segments=segments,
        )
        rows = live_rows(read_rows(new, grown))
        nearest = open_nearest(new, grown, vectors, rows)
        tried = added if len(added) else rows
        if recall_of_themselves(nearest, vectors, tried) < MIN_RECALL:
            raise _Unfit
        write_info(new, grown, info)
    return grown


def _write_row_tables(
    folder: Path, new: Path, info: GenerationInfo, difference: Difference
) -> tuple[str, ...]:
    added = row_table(difference.new, info.n_vectors)
    whole = pa.concat_tables([difference.kept, added])
    changed = bool(difference.gone.num_rows) or difference.renamed
    return _write_tables(folder, new, info, "rows", info.row_tables, added, whole, changed)


def _write_inputs(folder: Path, new: Path, info: GenerationInfo, inputs: Inputs) -> None:
    tables, changed = info.input_tables, not inputs.all_known_stay
    _write_tables(folder, new, info, "inputs", tables, inputs.read, inputs.table, changed)


def _write_tables(
    folder: Path,
    new: Path,
    info: GenerationInfo,
    stem: str,
    tables: tuple[str, ...],
    added: pa.Table,
    whole: pa.Table,
    changed: bool,
) -> tuple[str, ...]:
    # The tables there are stay, and what is added is one more of them, unless they have changed.
    if changed or len(tables) >= MAX_TABLES:
        tables, added = (), whole
    link_files(folder, new, tables)
    if added.num_rows or not tables:
        name = f"{stem}-{next_number(info)}.parquet"
        write_table(added, new / name)
        tables += (name,)
    return tables


def _write_segments(
    folder: Path,
    new: Path,
    info: GenerationInfo,
    vectors: np.ndarray,
    gone: np.ndarray,
    progress: Progress | None,
) -> tuple[Segment, ...]:
    # Lists that nothing leaves stay the files they are; what is new becomes a segment, together
    # with the rows of those before it that are not much larger.
    numbers = itertools.count(next_number(info))
    added = np.arange(info.n_vectors, len(vectors))
    n_apart = _n_apart([s.n_vectors for s in info.segments], len(added))
    written, begin = [], 0
    for segment in info.segments[:n_apart]:
        mine = gone[(gone >= begin) & (gone < segment.end_row)]
        begin = segment.end_row
        if len(mine):
            index = load_lists(folder / TRAINED, folder / segment.file)
            index.remove_ids(faiss.IDSelectorBatch(mine))
            segment = write_segment(new, f"lists-{next(numbers)}.bin", index, segment.end_row)
        else:
            link_files(folder, new, [segment.file])
        written.append(segment)
    if len(added):
        # Encoded again, not joined: FAISS corrupts lists of fast-scan codes when it adds to some
        # that vectors have been removed from, and when it merges into a list of exactly 1024.
        index = read_trained(new / TRAINED)
        rows = np.setdiff1d(np.arange(begin, len(vectors)), gone, assume_unique=True)
        add_rows(index, vectors, rows, progress)
        written.append(write_segment(new, f"lists-{next(numbers)}.bin", index, len(vectors)))
    return tuple(written)


def _compact_segments(
    folder: Path,
    new: Path,
    info: GenerationInfo,
    kept: np.ndarray,
    vectors: np.ndarray,
    progress: Progress | None,
) -> tuple[Segment, ...]:
    # ``kept`` are the old numbers of the rows of ``vectors``.
    head = info.segments[0]
    index = load_lists(folder / TRAINED, folder / head.file)
    new_rows = np.full(info.n_vectors, -1, np.int64)
    new_rows[kept] = np.arange(len(kept))
    renumber(index, new_rows)
    end = int(np.searchsorted(kept, head.end_row))
    segments = [write_segment(new, "lists-1.bin", index, end)]
    if end < len(kept):
        index = read_trained(new / TRAINED)
        add_rows(index, vectors, np.arange(end, len(kept)), progress)
        segments.append(write_segment(new, "lists-2.bin", index, len(kept)))
    return tuple(segments)


def _n_apart(sizes: Sequence[int], n_added: int) -> int:
    # How many segments stay apart from what is added. Each is more than twice as large as all
    # after it, so that a row is copied only a few times while the catalog grows.
    if not n_added:
        return len(sizes)
    n_apart, merged = len(sizes), n_added
    while n_apart and (sizes[n_apart - 1] <= 2 * merged or n_apart >= MAX_SEGMENTS):
        n_apart -= 1
        merged += sizes[n_apart]
    return n_apart
