"""Which kind of FAISS index for how many windows: the one place where that is decided.

Up to :data:`FLAT_LIMIT` windows every vector is compared. Above, inverted lists are: with 8 bits a
number, and from :data:`PQ_LIMIT` on with 4 bits for every two numbers (FAISS's fast scan), whose
best candidates are compared again in full with the row store. docs/index.md has the measurements.
"""

from __future__ import annotations

import dataclasses
import math
import re

from encoders.errors import EarmarkError

FLAT_LIMIT = 20_000
"""Up to this many windows (3 hours) every vector is compared; above, inverted lists are: at 12
hours they find as much of noisy queries as comparing everything does, in a twentieth of the time
(docs/experiments.md)."""

PQ_LIMIT = 50_000
"""From this many windows (7 hours) on vectors are kept in 4-bit codes: with the best candidates
compared in full they find as much as 8 bits do, in a third of the memory (docs/index.md)."""

_MAX_PROBES = 384
# Fewer lists tell little about what is in the others.
_MIN_FIRST = 8
_COMPACT_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class IndexKind:
    """A kind of index and how it is searched.

    Attributes
    ----------
    factory : str
        FAISS factory string.
    nprobe : int
        Inverted lists that a query looks into at most; 0 where there are none.
    rerank : int
        Candidates that are compared again with the row store, for each neighbour asked for.
    """

    factory: str
    nprobe: int
    rerank: int

    @property
    def n_first(self) -> int:
        """Inverted lists that every query looks into: see :class:`index.nearest.Inverted`."""
        return min(self.nprobe, max(_MIN_FIRST, -(-self.nprobe // 10)))

    @property
    def is_flat(self) -> bool:
        """Whether every vector is compared."""
        return self.factory == "Flat"


def choose(n_rows: int, dim: int) -> IndexKind:
    """The kind for a number of windows.

    Parameters
    ----------
    n_rows : int
    dim : int
        Of the fingerprints.

    >>> choose(5_000, 128)
    IndexKind(factory='Flat', nprobe=0, rerank=0)
    >>> choose(40_000, 128).factory
    'IVF512,SQ8'
    >>> choose(10_000_000, 128).factory
    'IVF4096,PQ64x4fs'
    """
    if n_rows <= FLAT_LIMIT:
        return IndexKind("Flat", 0, 0)
    if n_rows < PQ_LIMIT or dim % 2:
        n_lists = count_lists(n_rows)
        return IndexKind(f"IVF{n_lists},SQ8", n_lists // 6, 1)
    n_lists = 2 ** round(math.log2(math.sqrt(n_rows)))
    return IndexKind(f"IVF{n_lists},PQ{dim // 2}x4fs", min(n_lists // 3, _MAX_PROBES), 3)


def count_lists(n_rows: int) -> int:
    """Inverted lists for a number of vectors."""
    return int(2 ** round(math.log2(2 * math.sqrt(n_rows))))


def from_factory(factory: str) -> IndexKind:
    """The kind that a FAISS factory string names.

    >>> from_factory("IVF4096_HNSW32,PQ32x4fs")
    IndexKind(factory='IVF4096_HNSW32,PQ32x4fs', nprobe=64, rerank=10)

    Raises
    ------
    EarmarkError
        If it is neither Flat nor a plain list of inverted lists: others take in no new windows or
        let none go.
    """
    if factory == "Flat":
        return IndexKind("Flat", 0, 0)
    lists = re.match(r"IVF(\d+)(_\w+)?(\([^()]*\))?,[^,]+$", factory)
    if lists is None:
        raise EarmarkError(
            f"{factory!r} is not a kind of index that can grow and shrink: give 'Flat' or "
            "'IVF<lists>,<codes>', such as IVF1024,SQ8 or IVF8192,PQ64x4fs"
        )
    return IndexKind(factory, max(1, min(64, int(lists[1]))), 10)


def outgrown(kind: IndexKind, n_at_build: int, n_rows: int, dim: int) -> bool:
    """Whether a number of windows asks for another kind than it was built with.

    Not as soon as a border is passed: an index that only just does serves a while longer.

    Parameters
    ----------
    kind : IndexKind
        The present one, by :func:`choose`.
    n_at_build, n_rows : int
        Windows then and now.
    dim : int
    """
    wanted = choose(n_rows, dim)
    if wanted.factory == kind.factory:
        return False
    if kind.is_flat or (wanted.is_flat and 2 * n_rows < FLAT_LIMIT):
        return True
    return n_rows >= 2 * n_at_build or 8 * n_rows <= n_at_build


def sparse(n_vectors: int, n_rows: int) -> bool:
    """Whether so many vectors are of removed recordings that they should go."""
    return n_vectors - n_rows > _COMPACT_SHARE * n_vectors
