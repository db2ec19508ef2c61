"""What another, larger network says of the sounds that an encoder learns from.

Labels say of few sounds what they are. A network that has learned from many more says of every
sound what it is like; an encoder that learns to say the same knows more than its labels (Hinton et
al., "Distilling the knowledge in a neural network", 2015).
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from encoders.corpus import Item
from encoders.errors import EarmarkError

# Deviations below this are those of a number that never changes.
_LEAST_DEVIATION = 1e-3


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Vectors of windows of recordings.

    Attributes
    ----------
    vectors : np.ndarray [shape=(n, dim), dtype=float32]
        Of unit length; their square roots, each standardised over all windows.
    windows : dict of list of (float, int)
        Of each recording, where its windows begin (s), and their rows in ``vectors``.
    """

    vectors: np.ndarray
    windows: dict[Path, list[tuple[float, int]]]

    @classmethod
    def read(cls, path: Path, corpus: Path) -> Teacher:
        """Read the vectors of a corpus.

        Parameters
        ----------
        path : Path
            An ``.npz`` of three arrays with an entry for every window: ``path``, as the column of
            the corpus has it, ``start_s``, and ``vector``.
        corpus : Path
            The CSV.

        Raises
        ------
        EarmarkError
            If it cannot be read, or is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, starts, raw = (stored[key] for key in ("path", "start_s", "vector"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise EarmarkError(f"{path} holds no vectors of a teacher") from None
        if raw.ndim != 2 or not len(raw) == len(names) == len(starts) > 0:
            raise EarmarkError(f"{path} is damaged: it needs a vector for every window")
        if not np.isfinite(raw).all():
            raise EarmarkError(f"{path} is damaged: not all of its numbers are finite")
        windows: dict[Path, list[tuple[float, int]]] = defaultdict(list)
        for row, (name, start) in enumerate(zip(names.tolist(), starts.tolist(), strict=True)):
            windows[corpus.parent / name].append((start, row))
        return cls(_standardise(raw.astype(np.float32)), dict(windows))

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    def of(self, item: Item) -> list[tuple[float, int]]:
        """Windows of an item; none if the teacher has not heard it."""
        return self.windows.get(item.path, [])


def _standardise(vectors: np.ndarray) -> np.ndarray:
    roots = np.sign(vectors) * np.sqrt(np.abs(vectors))
    roots -= roots.mean(axis=0)
    roots /= np.maximum(roots.std(axis=0), _LEAST_DEVIATION)
    unit: np.ndarray = roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-9)
    return unit
