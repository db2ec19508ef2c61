"""Reading stretches of a part with one row per window, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import CatalogError


def read_spans(
    path: Path,
    spans: Sequence[tuple[int, int]],
    columns: Sequence[str],
    batch_size: int,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Read some of the rows of a part, in order.

    Parameters
    ----------
    path : Path
    spans : sequence of (int, int)
        First row and one past the last; increasing, apart, not empty.
    columns : sequence of str
    batch_size : int
        Rows in memory at a time.
    schema : pa.Schema
        That of the part: its metadata tell what it must have been made with.

    Raises
    ------
    CatalogError
        If the part is missing, damaged, or made with other settings.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.schema_arrow.metadata != schema.metadata:
                raise CatalogError(f"{path} was made with other settings than its catalog")
            if spans[-1][1] > file.metadata.num_rows:
                raise CatalogError(f"{path} is damaged: it holds too few windows")
            start = 0
            for batch in file.iter_batches(batch_size, columns=list(columns)):
                end = start + batch.num_rows
                for first, last in spans:
                    if first < end and last > start:
                        begin = max(first, start)
                        yield batch.slice(begin - start, min(last, end) - begin)
                start = end
    except FileNotFoundError:
        raise CatalogError(f"{path} is missing: the catalog is damaged") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{path} is damaged: {error}") from None


def join_spans(starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Join neighbouring spans.

    Parameters
    ----------
    starts, ends : np.ndarray [shape=(n,)]
        Increasing.
    """
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if spans and spans[-1][1] == start:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    return spans
