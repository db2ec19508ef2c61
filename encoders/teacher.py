"""What other, larger networks say of the sounds that an encoder learns from.

Labels say of few sounds what they are. A network that has learned from many more says of every
sound what it is like; an encoder that learns to say the same knows more than its labels (Hinton et
al., "Distilling the knowledge in a neural network", 2015).
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections import defaultdict
from collections.abc import Sequence
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
        Of unit length; their square roots, each standardised over all windows. Those of several
        networks side by side.
    windows : dict of list of (float, int)
        Of each recording, where its windows begin (s), and their rows in ``vectors``.
    """

    vectors: np.ndarray
    windows: dict[Path, list[tuple[float, int]]]

    @classmethod
    def read(cls, paths: Sequence[Path], corpus: Path) -> Teacher:
        """Read what one network says of a corpus, or several.

        Parameters
        ----------
        paths : sequence of Path
            Each an ``.npz`` of three arrays with an entry for every window: ``path``, as the
            column of the corpus has it, ``start_s``, and ``vector``. What several say of a window
            stands side by side, each as long; what one of them has not heard is left out.
        corpus : Path
            The CSV.

        Raises
        ------
        EarmarkError
            If one cannot be read, or is something else, or they have no window in common.
        """
        rows, vectors = zip(*(_read(path) for path in paths), strict=True)
        common = [window for window in rows[0] if all(window in others for others in rows[1:])]
        if not common:
            raise EarmarkError(
                "the teachers have no window in common: " + ", ".join(map(str, paths))
            )
        said = [v[[r[window] for window in common]] for r, v in zip(rows, vectors, strict=True)]
        windows: dict[Path, list[tuple[float, int]]] = defaultdict(list)
        for row, (name, start) in enumerate(common):
            windows[corpus.parent / name].append((start, row))
        together = np.concatenate(list(map(_standardise, said)), axis=1)
        return cls(together / np.sqrt(np.float32(len(said))), dict(windows))

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    def of(self, item: Item) -> list[tuple[float, int]]:
        """Windows of an item; none if the teacher has not heard it."""
        return self.windows.get(item.path, [])


def _read(path: Path) -> tuple[dict[tuple[str, float], int], np.ndarray]:
    # Where each window, of the name of a recording and its beginning, has its row.
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, starts, vectors = (stored[key] for key in ("path", "start_s", "vector"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise EarmarkError(f"{path} holds no vectors of a teacher") from None
    if vectors.ndim != 2 or not len(vectors) == len(names) == len(starts) > 0:
        raise EarmarkError(f"{path} is damaged: it needs a vector for every window")
    if not np.isfinite(vectors).all():
        raise EarmarkError(f"{path} is damaged: not all of its numbers are finite")
    windows = zip(names.tolist(), starts.tolist(), strict=True)
    return {window: row for row, window in enumerate(windows)}, vectors.astype(np.float32)


def _standardise(vectors: np.ndarray) -> np.ndarray:
    roots = np.sign(vectors) * np.sqrt(np.abs(vectors))
    roots -= roots.mean(axis=0)
    roots /= np.maximum(roots.std(axis=0), _LEAST_DEVIATION)
    unit: np.ndarray = roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-9)
    return unit
