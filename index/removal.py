"""Taking recordings out of a catalog, for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from encoders.errors import CatalogError
from index.catalog import Catalog, part_name
from index.schema import RECORDINGS, Status
from index.windows import join_spans, read_spans


def find_recordings(
    catalog: Catalog, names: Sequence[str] = (), where: Mapping[str, str] | None = None
) -> pa.Table:
    """Inputs of a catalog by name, or by what is said of them.

    Parameters
    ----------
    catalog : Catalog
    names : sequence of str
        URIs as given to ingest, or recording ids: those stand for all the names of their content.
    where : mapping, optional
        Values of labels, or of columns of ``index.schema.RECORDINGS``; all must be as given.

    Returns
    -------
    rows : pa.Table
        ``index.schema.RECORDINGS``; without those removed before.

    Raises
    ------
    CatalogError
        If a name is not in the catalog, or nothing has such a label.
    """
    rows = catalog.recordings()
    rows = rows.filter(pc.not_equal(rows["status"], Status.REMOVED.value))
    if names:
        given = pa.array(list(names), pa.string())
        known = pc.or_(pc.is_in(given, rows["uri"]), pc.is_in(given, rows["recording_id"]))
        unknown = given.filter(pc.invert(known)).to_pylist()
        if unknown:
            raise CatalogError(
                f"not in {catalog.path}: {', '.join(map(repr, unknown[:3]))}"
                f"{' …' if len(unknown) > 3 else ''}; give names as 'earmark info' and matches "
                "show them, or recording ids"
            )
        by_id = pc.fill_null(pc.is_in(rows["recording_id"], given), False)
        rows = rows.filter(pc.or_(pc.is_in(rows["uri"], given), by_id))
    for key, value in (where or {}).items():
        rows = rows.filter(pa.array([v == value for v in _values(rows, key)], pa.bool_()))
    return rows


def remove_recordings(catalog: Catalog, rows: pa.Table) -> None:
    """Remove inputs from a catalog; the next update takes them out of the index.

    Their last state becomes ``removed``. Ingest passes over them from then on, unless they are
    named one by one or have changed; :func:`compact_parts` drops their windows. Call it under
    ``catalog.writer_lock()``.

    Parameters
    ----------
    catalog : Catalog
    rows : pa.Table
        From :func:`find_recordings`.
    """
    if not rows.num_rows:
        return
    n = rows.num_rows
    changed = {
        "seconds_decoded": pa.array([0.0] * n, pa.float64()),
        "n_windows": pa.array([0] * n, pa.int64()),
        "status": pa.array([Status.REMOVED.value] * n, pa.string()),
        "stage": pa.nulls(n, pa.string()),
        "error": pa.nulls(n, pa.string()),
    }
    for name, values in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), RECORDINGS.field(name), values)
    name = part_name(catalog.next_run(), catalog.config, rows["uri"].to_pylist())
    with catalog.part_writer() as writer:
        writer.commit(name, rows)


def compact_parts(catalog: Catalog, progress: Callable[[str, int, int], None] | None = None) -> int:
    """Drop the windows of what was removed, or has changed since, from the Parquet files.

    What is left of a part goes to a new one before the old one is deleted, so that a kill at any
    moment loses nothing. Call it under ``catalog.writer_lock()``.

    Parameters
    ----------
    catalog : Catalog
    progress : callable, optional
        ``progress(what is being done, parts done, parts in all)``.

    Returns
    -------
    n_dropped : int
        Rows of recordings that are gone.
    """
    names, rows = catalog.parts(), catalog.all_rows()
    superseded = rows.filter(pc.invert(rows["current"]))
    stale = np.unique(superseded["part"].to_numpy()).tolist()
    for done, part in enumerate(stale, 1):
        mine = rows.filter(pc.equal(rows["part"], part))
        if any(mine["current"].to_pylist()):
            _rewrite(catalog, names[part], mine)
        # The commit first: windows without it do not exist.
        for folder in ("recordings", "windows"):
            (catalog.path / folder / names[part]).unlink(missing_ok=True)
        if progress:
            progress("Rewriting parts", done, len(stale))
    return int(superseded.num_rows)


def _rewrite(catalog: Catalog, name: str, rows: pa.Table) -> None:
    # The current rows of a part and their windows, as a part of the latest run.
    current, n = rows["current"].to_numpy(), rows["n_windows"].to_numpy()
    first, kept = np.cumsum(n) - n, current & (n > 0)
    spans = join_spans(first[kept], (first + n)[kept])
    columns, path = catalog.config.windows_schema.names, catalog.path / "windows" / name
    with catalog.part_writer() as writer:
        if spans:
            for batch in read_spans(path, spans, columns, 4096, catalog.config.windows_schema):
                writer.write_windows(batch)
        new = part_name(catalog.next_run(), catalog.config, ["compacted", name])
        writer.commit(new, rows.filter(rows["current"]).select(RECORDINGS.names))


def _values(rows: pa.Table, key: str) -> list[str | None]:
    if key in rows.schema.names and key != "labels":
        return [None if value is None else str(value) for value in rows[key].to_pylist()]
    return [dict(labels or ()).get(key) for labels in rows["labels"].to_pylist()]
