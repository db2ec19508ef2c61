"""Chromaprint (AcoustID): 32-bit sub-fingerprints, slid along every reference."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.storage import write_atomically
from pipelines.peers.peer import NOTHING, Answer, Progress, digest, failure, run, wav_batches

# Frames of 4096 samples at 11025 Hz, two thirds overlapping: one item each 1365 samples.
SECONDS_PER_ITEM = 1365 / 11_025

# The whole file as plain integers. FFmpeg 5 reports the end of a file as an error, after which
# fpcalc 1.5.1 stops unless it is told to go on.
_OPTIONS = ("-raw", "-plain", "-length", "0", "-ignore-errors")
_TOO_SHORT = ("Empty fingerprint", "Not enough audio data")
_CLIPS_PER_BATCH = 256

# As chromaprint's own matcher (src/fingerprint_matcher.cpp): fewer than 10 of 32 bits wrong on
# average, at an alignment where the upper 12 bits of two or more items agree.
_MAX_BIT_ERRORS = 10.0
_ALIGNMENT_BITS = 12
_LEAST_ALIGNED = 2

# Alignments at a time; what is held of them then fits in a cache.
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Where a clip fits best.

    Parameters
    ----------
    reference : int
        Position in the list.
    item : int
        Item of the reference at which the clip's first one lies.
    bit_error_rate : float
        Share of bits that differ, 0 to 1.
    is_match : bool
        By the rule of chromaprint's own matcher.
    """

    reference: int
    item: int
    bit_error_rate: float
    is_match: bool


class SlidingMatcher:
    """Compares a clip with every place of every reference.

    Parameters
    ----------
    items : np.ndarray [shape=(n_items,), dtype=uint32]
        The references' fingerprints, one after the other.
    lengths : np.ndarray [shape=(n_references,), dtype=int64]
        Items of each; their sum is ``n_items``.
    """

    def __init__(self, items: np.ndarray, lengths: np.ndarray) -> None:
        self._items = items
        self._ends = np.cumsum(lengths)
        # Items from each on to the end of its reference: a clip has to fit in there.
        self._room = np.repeat(self._ends, lengths) - np.arange(len(items))

    def best(self, clip: np.ndarray) -> Alignment | None:
        """The alignment with the fewest bit errors; the first of several.

        Parameters
        ----------
        clip : np.ndarray [shape=(n,), dtype=uint32]

        Returns
        -------
        alignment : Alignment or None
            None if the clip is empty or longer than every reference.
        """
        n = len(clip)
        n_starts = len(self._items) - n + 1
        if n == 0:
            return None
        most = 32 * n + 1
        least, place = most, 0
        for first in range(0, n_starts, _CHUNK):
            stop = min(first + _CHUNK, n_starts)
            errors = np.zeros(stop - first, np.int32)
            for i, item in enumerate(clip):
                errors += count_ones(self._items[first + i : stop + i] ^ item)
            errors[self._room[first:stop] < n] = most
            best = int(errors.argmin())
            if errors[best] < least:
                least, place = int(errors[best]), first + best
        return None if least == most else self._alignment(clip, place, least)

    def _alignment(self, clip: np.ndarray, place: int, n_errors: int) -> Alignment:
        reference = int(np.searchsorted(self._ends, place, side="right"))
        begin = int(self._ends[reference - 1]) if reference else 0
        different = self._items[place : place + len(clip)] ^ clip
        n_aligned = np.count_nonzero(different >> (32 - _ALIGNMENT_BITS) == 0)
        is_match = n_errors < _MAX_BIT_ERRORS * len(clip) and n_aligned >= _LEAST_ALIGNED
        return Alignment(reference, place - begin, n_errors / (32 * len(clip)), bool(is_match))


def count_ones(values: np.ndarray) -> np.ndarray:
    """Bits that are set in each value.

    Parameters
    ----------
    values : np.ndarray [dtype=uint32]

    Returns
    -------
    n_ones : np.ndarray [dtype=uint8]
    """
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    ones = _ones_of_16_bits()  # NumPy 1
    return ones[values & 0xFFFF] + ones[values >> 16]


@functools.cache
def _ones_of_16_bits() -> np.ndarray:
    return np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


class Chromaprint:
    """The program ``fpcalc``, and a sliding bit-error match of what it gives."""

    name = "chromaprint"

    def __init__(self) -> None:
        self._references: Sequence[Path] = ()
        self._matcher: SlidingMatcher | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether ``fpcalc`` is in the path."""
        return shutil.which("fpcalc") is not None

    @property
    def version(self) -> str:
        """Version of fpcalc."""
        done = run(("fpcalc", "-version"), Path())
        match = re.search(r"version (\S+)", done.stdout)
        if match is None:
            raise failure("fpcalc -version", done)
        return match[1]

    def index(
        self, references: Sequence[Path], folder: Path, progress: Progress | None = None
    ) -> None:
        """See :meth:`pipelines.peers.peer.Peer.index`."""
        folder.mkdir(parents=True, exist_ok=True)
        database = folder / f"chromaprint-{digest(references, (self.version, *_OPTIONS))}.npz"
        if not database.exists():
            self._build(references, database, progress)
        with np.load(database) as saved:
            self._matcher = SlidingMatcher(saved["items"], saved["lengths"])
        self._references = tuple(references)

    def _build(self, references: Sequence[Path], database: Path, progress: Progress | None) -> None:
        found: list[np.ndarray] = []
        with tempfile.TemporaryDirectory(dir=database.parent) as name:
            for wavs in wav_batches(references, Path(name).resolve()):
                found += fingerprint(wavs)
                if progress is not None:
                    progress(len(found), len(references))
        with write_atomically(database) as file:
            np.savez(file, items=np.concatenate(found), lengths=[len(items) for items in found])

    def query(self, clips: Sequence[Path], progress: Progress | None = None) -> list[Answer]:
        """See :meth:`pipelines.peers.peer.Peer.query`.

        The score is the share of bits that agree. Clips of less than about 2.8 s have no
        fingerprint, so nothing is found for them.
        """
        if self._matcher is None:
            raise RuntimeError("query before index")
        answers: list[Answer] = []
        for first in range(0, len(clips), _CLIPS_PER_BATCH):
            batch = [clip.resolve() for clip in clips[first : first + _CLIPS_PER_BATCH]]
            alignments = [self._matcher.best(items) for items in fingerprint(batch)]
            answers += [self._answer(found) for found in alignments]
            if progress is not None:
                progress(len(answers), len(clips))
        return answers

    def _answer(self, found: Alignment | None) -> Answer:
        if found is None:
            return NOTHING
        path = str(self._references[found.reference])
        start = found.item * SECONDS_PER_ITEM
        return Answer(path, start, 1.0 - found.bit_error_rate, found.is_match)


def fingerprint(wavs: Sequence[Path]) -> list[np.ndarray]:
    """Run fpcalc over files.

    Parameters
    ----------
    wavs : sequence of Path
        Absolute.

    Returns
    -------
    fingerprints : list of np.ndarray [shape=(n_items,), dtype=uint32]
        One for each file; empty for one that is too short to have any item.

    Raises
    ------
    EarmarkError
        If fpcalc fails.
    """
    found: list[np.ndarray] = []
    while len(found) < len(wavs):
        done = run(("fpcalc", *_OPTIONS, *wavs[len(found) :]), Path())
        found += [np.array(line.split(","), dtype=np.uint32) for line in done.stdout.split()]
        if len(found) == len(wavs):
            break
        # It stops at the first file without a fingerprint.
        if done.returncode == 0 or not done.stderr.strip().endswith(_TOO_SHORT):
            raise failure("fpcalc", done)
        found.append(np.zeros(0, np.uint32))
    return found
