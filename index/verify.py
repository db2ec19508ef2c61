"""Whether a catalog is whole, and its index finds what comparing everything finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from encoders.errors import CatalogError
from index.catalog import Catalog
from index.generation import check_files, live_rows, read_info, read_rows
from index.nearest import Nearest, open_nearest
from index.row_store import map_vectors
from index.windows import read_spans

MIN_RECALL = 0.8
"""An index that finds less of what is nearest is not published."""

N_QUERIES = 64

# Neighbours asked for, as identification does: of more there are more candidates.
_K = 20

# What a hit may lack of the best score there is: float16 against float32.
_TOLERANCE = 2e-3
_CHUNK = 65_536


def problems(
    catalog: Catalog, progress: Callable[[str, int, int], None] | None = None
) -> Iterator[str]:
    """Sentences about everything in a catalog that is missing, damaged or out of date.

    Reads every byte of it.

    Parameters
    ----------
    catalog : Catalog
    progress : callable, optional
        ``progress(what is being done, done, in all)``.
    """
    parts = catalog.parts()
    for done, name in enumerate(parts, 1):
        try:
            _check_part(catalog, name)
        except CatalogError as error:
            yield (
                f"{error}; its recordings are ingested again after the part of that name in "
                f"{catalog.path / 'recordings'} has been deleted"
            )
        if progress:
            progress("Reading parts", done, len(parts))
    folder = catalog.current_generation()
    if folder is None:
        yield f"{catalog.path} has no index: build it with 'earmark index {catalog.path}'"
        return
    if not catalog.index_is_current():
        yield f"the index is older than the catalog: run 'earmark index {catalog.path}'"
    try:
        info = read_info(folder)
        check_files(folder, info, everything=True)
        rows, vectors = live_rows(read_rows(folder, info)), map_vectors(folder, info)
        recall = recall_against_exact(open_nearest(folder, info, vectors, rows), vectors, rows)
    except CatalogError as error:
        yield str(error)
        return
    if recall < MIN_RECALL:
        yield (
            f"the index in {folder} finds {recall:.0%} of what comparing everything finds; build "
            f"it again with 'earmark index {catalog.path} --rebuild'"
        )


def recall_against_exact(nearest: Nearest, vectors: np.ndarray, rows: np.ndarray) -> float:
    """Share of queries whose nearest fingerprint is found; 1 when there is nothing to find.

    The queries are places between windows: mixtures of two neighbours.

    Parameters
    ----------
    nearest : Nearest
    vectors : np.ndarray [shape=(n_vectors, dim)]
    rows : np.ndarray [shape=(n_rows,)]
        Rows that can be found, in increasing order.
    """
    queries = _between(vectors, rows)
    if not len(queries):
        return 1.0
    best = np.full(len(queries), -np.inf, np.float32)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        in_a_row = chunk[-1] - chunk[0] == len(chunk) - 1
        stored = vectors[chunk[0] : chunk[-1] + 1] if in_a_row else vectors[chunk]
        np.maximum(best, (queries @ stored.astype(np.float32).T).max(axis=1), out=best)
    scores, _ = nearest.search(queries, min(_K, len(rows)))
    return float(np.mean(scores[:, 0] >= best - _TOLERANCE))


def recall_of_themselves(nearest: Nearest, vectors: np.ndarray, rows: np.ndarray) -> float:
    """Share of some stored fingerprints that find themselves, or their equals: nothing is nearer.

    Parameters
    ----------
    nearest : Nearest
    vectors : np.ndarray [shape=(n_vectors, dim)]
    rows : np.ndarray [shape=(n_rows,)]
        Rows to try.
    """
    chosen = np.random.default_rng(0).permutation(rows)[:N_QUERIES]
    queries = vectors[chosen].astype(np.float32)
    queries = queries[queries.any(axis=1)]
    if not len(queries):
        return 1.0
    scores, _ = nearest.search(queries, min(_K, len(rows)))
    return float(np.mean(scores[:, 0] >= np.einsum("nd,nd->n", queries, queries) - _TOLERANCE))


def similarity_of_strangers(nearest: Nearest, vectors: np.ndarray, rows: pa.Table) -> float:
    """Similarity of a window to the nearest one of another recording: the median of some windows.

    Parameters
    ----------
    nearest : Nearest
    vectors : np.ndarray [shape=(n_vectors, dim)]
    rows : pa.Table
        ``index.schema.ROWS``, in the order of their first rows.

    Returns
    -------
    similarity : float
        1 where nothing else is found.
    """
    every_row, first = live_rows(rows), rows["first_row"].to_numpy()
    chosen = np.random.default_rng(0).permutation(every_row)[: 4 * N_QUERIES]
    queries = vectors[chosen].astype(np.float32)
    heard = queries.any(axis=1)
    chosen, queries = chosen[heard], queries[heard]
    if not len(queries):
        return 1.0
    scores, found = nearest.search(queries, min(_K, len(every_row)))
    own, others = (np.searchsorted(first, r, side="right") for r in (chosen, found))
    best = np.where((found >= 0) & (others != own[:, None]), scores, -np.inf).max(axis=1)
    best = best[np.isfinite(best)]
    return float(np.median(best)) if len(best) else 1.0


def require_recall(recall: float, factory: str) -> float:
    """Pass a recall on that is good enough.

    Raises
    ------
    CatalogError
        If it is not; nothing has been published then.
    """
    if recall < MIN_RECALL:
        raise CatalogError(
            f"the {factory} index finds {recall:.0%} of what comparing everything finds: it is not "
            "put to use, and the one before stays; build with another --factory"
        )
    return recall


def _check_part(catalog: Catalog, name: str) -> None:
    # Reads all of it.
    rows = catalog.all_rows([name])
    spans = [(0, int(rows["n_windows"].to_numpy().sum()))]
    path, columns = catalog.path / "windows" / name, catalog.config.windows_schema.names
    for _ in read_spans(path, spans, columns, 4096, catalog.config.windows_schema):
        pass


def _between(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    first = np.flatnonzero(np.diff(rows) == 1)
    chosen = rows[np.random.default_rng(0).permutation(first)[: 2 * N_QUERIES]]
    pairs = vectors[chosen].astype(np.float32), vectors[chosen + 1].astype(np.float32)
    heard = pairs[0].any(axis=1) & pairs[1].any(axis=1)
    queries = (0.7 * pairs[0] + 0.3 * pairs[1])[heard][:N_QUERIES]
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)
