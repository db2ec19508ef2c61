"""Only recordings with certain labels or names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from encoders.errors import EarmarkError
from index.column_index import ColumnIndex


def chosen_rows(index: ColumnIndex, where: Mapping[str, str] | None) -> np.ndarray | None:
    """Rows of the recordings that are as wanted.

    Parameters
    ----------
    index : ColumnIndex
    where : mapping of str to str, optional
        Labels and their values; ``uri`` stands for the name, of which a part is enough.

    Returns
    -------
    rows : np.ndarray of bool [shape=(n_rows,)] or None
        None if nothing is wanted in particular.

    Raises
    ------
    EarmarkError
        If no recording is so.
    """
    if not where:
        return None
    uris = index.recordings["uri"].to_pylist()
    labels = [dict(row or ()) for row in index.recordings["labels"].to_pylist()]
    chosen = np.array(
        [_is_as_wanted(u, mine, where) for u, mine in zip(uris, labels, strict=True)], bool
    )
    if not chosen.any():
        wanted = ", ".join(f"{key}={value}" for key, value in where.items())
        keys = sorted({key for mine in labels for key in mine})
        raise EarmarkError(f"no recording has {wanted}; known: {', '.join(['uri', *keys])}")
    return index.rows_of(chosen)


def _is_as_wanted(uri: str, labels: Mapping[str, str], where: Mapping[str, str]) -> bool:
    return all(
        value in uri if key == "uri" and key not in labels else labels.get(key) == value
        for key, value in where.items()
    )
