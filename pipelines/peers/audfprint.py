"""audfprint (Dan Ellis): pairs of spectral peaks, a hash table, a vote on the time difference."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import soundfile

from pipelines.peers.peer import (
    NOTHING,
    Answer,
    Progress,
    digest,
    failure,
    numbered,
    run,
    wav_batches,
)

# What the author entered for phone recordings of music in MIREX 2014 (config.txt in his
# repository): many more peak pairs than the defaults, and the count that his decision then asks.
_EXTRACTION = ("--density", "70", "--fanout", "8")
_MATCHING = ("--search-depth", "1000")
_BUCKET_SIZE = 500
_MIN_COUNT = 10

# Reference tracks once; clips at four part-frame shifts, the default of its match command.
_REFERENCE_SHIFTS = "1"
_CLIP_SHIFTS = "4"

# A frame is 256 samples at 11025 Hz.
_FRAMES_PER_SECOND = 11_025 / 256
_LEAST_TIME_BITS = 14

_CLIPS_PER_BATCH = 256

_MATCHED = re.compile(
    r"Matched (?P<clip>\d+)\.afpt .* as (?P<reference>\d+)\.afpt "
    r"at +(?P<start>-?\d+\.\d+) s with +(?P<count>\d+) of +\d+ common hashes"
)


class Audfprint:
    """The package ``audfprint2``, run as a program.

    Parameters
    ----------
    bucket_size : int
        Entries a hash keeps; its table takes 4 MiB of memory for each.
    n_cores : int
        Processes that extract fingerprints.
    """

    name = "audfprint"

    def __init__(self, bucket_size: int = _BUCKET_SIZE, n_cores: int = 1) -> None:
        self._bucket_size = bucket_size
        self._n_cores = n_cores
        self._references: Sequence[Path] = ()
        self._database: Path | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether the package is here, and ffmpeg, through which it reads even WAV."""
        ffmpeg = os.environ.get("AUDFPRINT_FFMPEG", "ffmpeg")
        found = importlib.util.find_spec("audfprint2") is not None
        return found and shutil.which(ffmpeg) is not None

    @property
    def version(self) -> str:
        """Version of the package."""
        return importlib.metadata.version("audfprint2")

    def index(
        self, references: Sequence[Path], folder: Path, progress: Progress | None = None
    ) -> None:
        """See :meth:`pipelines.peers.peer.Peer.index`."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = (self.version, *_EXTRACTION, str(self._bucket_size))
        database = folder.resolve() / f"audfprint-{digest(references, settings)}.hdf"
        if not database.exists():
            self._build(references, database, progress)
        self._references, self._database = tuple(references), database

    def _build(self, references: Sequence[Path], database: Path, progress: Progress | None) -> None:
        seconds = 0.0
        with tempfile.TemporaryDirectory(dir=database.parent) as name:
            work = Path(name)
            for wavs in wav_batches(references, work):
                seconds = max(seconds, *(soundfile.info(wav).duration for wav in wavs))
                self._extract(wavs, _REFERENCE_SHIFTS)
                if progress is not None:
                    progress(int(wavs[-1].stem) + 1, len(references))
            table = ("--bucketsize", str(self._bucket_size), "--maxtimebits", time_bits(seconds))
            _audfprint("new", work, _fingerprints(work), "--dbase", "built.hdf", *table)
            (work / "built.hdf").replace(database)

    def query(self, clips: Sequence[Path], progress: Progress | None = None) -> list[Answer]:
        """See :meth:`pipelines.peers.peer.Peer.query`.

        The score is the number of peak pairs that agree on the time difference.
        """
        if self._database is None:
            raise RuntimeError("query before index")
        answers = [NOTHING] * len(clips)
        with tempfile.TemporaryDirectory(dir=self._database.parent) as name:
            work = Path(name)
            links = [work / numbered(position, ".wav") for position in range(len(clips))]
            for link, path in zip(links, clips, strict=True):
                link.symlink_to(path.resolve())
            for first in range(0, len(clips), _CLIPS_PER_BATCH):
                batch = links[first : first + _CLIPS_PER_BATCH]
                self._extract(batch, _CLIP_SHIFTS)
                if progress is not None:
                    progress(first + len(batch), len(clips))
            # Its own decision first; then its best guess for the clips that this left open.
            pending = _fingerprints(work)
            for min_count, accepted in ((_MIN_COUNT, True), (0, False)):
                found = self._match(work, pending, min_count)
                for clip, (reference, start, count) in found.items():
                    known = str(self._references[reference])
                    answers[clip] = Answer(known, start, float(count), accepted)
                pending = [name for name in pending if int(Path(name).stem) not in found]
        return answers

    def _extract(self, wavs: Sequence[Path], shifts: str) -> None:
        """Write a ``.afpt`` file beside each WAV that gives fingerprints."""
        options = (*_EXTRACTION, "--shifts", shifts, "--ncores", str(self._n_cores))
        _audfprint("precompute", wavs[0].parent, [wav.name for wav in wavs], *options)

    def _match(
        self, folder: Path, names: Sequence[str], min_count: int
    ) -> dict[int, tuple[int, float, int]]:
        if not names:
            return {}
        options = (*_MATCHING, "--min-count", str(min_count), "--dbase", str(self._database))
        # Only at its verbose level does it print where and how well a clip matched.
        return parse_matches(_audfprint("match", folder, names, *options, "--verbose").splitlines())


def time_bits(seconds: float) -> str:
    """Bits for the time in its table, so that the end of the longest reference is no alias."""
    return str(max(_LEAST_TIME_BITS, int(seconds * _FRAMES_PER_SECOND + 1).bit_length()))


def parse_matches(lines: Iterable[str]) -> dict[int, tuple[int, float, int]]:
    """Read what the match command prints.

    Parameters
    ----------
    lines : iterable of str
        Of numbered clips against numbered references.

    Returns
    -------
    found : dict
        Position of the clip → (position of the reference, s of the reference where the clip
        begins, number of consistent peak pairs).
    """
    found = {}
    for line in lines:
        match = _MATCHED.search(line)
        if match is not None:
            reference, count = int(match["reference"]), int(match["count"])
            found[int(match["clip"])] = reference, float(match["start"]), count
    return found


def _fingerprints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.afpt"))


def _audfprint(command: str, folder: Path, names: Sequence[str], *options: str) -> str:
    (folder / "files.list").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    arguments = (command, "files.list", "--list", *options)
    done = run((sys.executable, "-m", "audfprint2", *arguments), folder)
    if done.returncode != 0:
        raise failure("audfprint", done)
    return done.stderr
