"""Contents: what the files hold, each once, whatever the number of files with the same bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.files import paired
from index.schema import Status


class Contents:
    """The different recordings among some files, numbered in the order of their first uris.

    Parameters
    ----------
    files : pa.Table
        Of schema ``index.files.FILES``; those that gave no audio are left out.
    grouped : bool
        Whether two groups are compared.

    Attributes
    ----------
    ids : np.ndarray [shape=(n,), dtype=object]
        Recording ids.
    seconds : np.ndarray [shape=(n,)]
    in_a, in_b : np.ndarray [shape=(n,), dtype=bool]
        Whether a file with this content is in the first and in the second group.
    """

    def __init__(self, files: pa.Table, grouped: bool) -> None:
        self.grouped = grouped
        usable = pc.and_(
            pc.is_valid(files["recording_id"]), pc.not_equal(files["status"], Status.FAILED.value)
        )
        self._files = files.filter(usable)
        ids = self._files["recording_id"].to_numpy()
        by_id, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        self.ids = by_id[order]
        self.seconds = self._files["seconds"].to_numpy()[first[order]]
        self._sorted_ids, self._number = by_id, number
        of_file = number[inverse]
        self._rows = np.argsort(of_file, kind="stable")
        self._starts = np.searchsorted(of_file[self._rows], np.arange(len(order) + 1))
        self._sides = [self._files[side].to_numpy() for side in ("in_a", "in_b")]
        self.in_a, self.in_b = (
            np.bincount(of_file[side], minlength=len(order)) > 0 for side in self._sides
        )

    def __len__(self) -> int:
        return len(self.ids)

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of recording ids, -1 for unknown ones."""
        if len(self) == 0:
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(self._sorted_ids, ids), len(self) - 1)
        return np.where(self._sorted_ids[place] == ids, self._number[place], -1)

    def may_pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether contents are to be compared [shape=(n,), dtype=bool]."""
        crossing = (self.in_a[a] & self.in_b[b]) | (self.in_a[b] & self.in_b[a])
        return (a != b) & (a >= 0) & (b >= 0) & crossing

    def uris(self, number: int, side: int | None = None) -> list[str]:
        """The files with a content, sorted; only those of group 0 or 1 if that is given."""
        rows = self._rows[self._starts[number] : self._starts[number + 1]]
        if side is not None:
            rows = rows[self._sides[side][rows]]
        return self._files["uri"].take(pa.array(rows)).to_pylist()

    def file_pairs(self, a: int, b: int) -> list[tuple[str, str, bool]]:
        """Files that stand for a pair of contents: ``(uri, uri, whether the first is b's)``."""
        if not self.grouped:
            return [(self.uris(a)[0], self.uris(b)[0], False)]
        straight = paired(self.uris(a, 0), self.uris(b, 1))
        swapped = paired(self.uris(b, 0), self.uris(a, 1))
        return [(*pair, False) for pair in straight] + [(*pair, True) for pair in swapped]
