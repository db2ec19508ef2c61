"""What a peer is, and what the adapters share: decoding, caching, running a program."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import soundfile

from encoders.audio import open_audio
from encoders.errors import AudioError, EarmarkError

SAMPLE_RATE = 16_000
"""Hz of what the peers get to hear: references and clips alike."""

_FILES_PER_BATCH = 16

Progress = Callable[[int, int], None]
"""``progress(done, total)``, in files."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best candidate of a peer for one clip.

    Parameters
    ----------
    reference : str or None
        The path given to ``index``; None if nothing was found.
    start_s : float or None
        Place in the reference where the first sample of the clip lies, s.
    score : float
        The peer's own evidence: higher is surer, 0 where nothing was found.
    accepted : bool
        By the peer's own decision.
    speed : float
        Seconds of the reference per second of the clip.
    """

    reference: str | None
    start_s: float | None
    score: float
    accepted: bool
    speed: float = 1.0


NOTHING = Answer(reference=None, start_s=None, score=0.0, accepted=False)


class Peer(Protocol):
    """A fingerprinter to compare with."""

    name: str

    @property
    def version(self) -> str:
        """Version of the peer's program."""
        ...

    def index(
        self, references: Sequence[Path], folder: Path, progress: Progress | None = None
    ) -> None:
        """Build the peer's data base, or reuse the one that is there for the same references.

        Parameters
        ----------
        references : sequence of Path
            Audio of any format.
        folder : Path
            Keeps the data base; made if missing.
        progress : callable, optional

        Raises
        ------
        EarmarkError
            A reference that cannot be decoded, or a program that fails.
        """
        ...

    def query(self, clips: Sequence[Path], progress: Progress | None = None) -> list[Answer]:
        """Look clips up in the data base of the last ``index``.

        Parameters
        ----------
        clips : sequence of Path
            WAV, 16 kHz, mono, 16 bits.
        progress : callable, optional

        Returns
        -------
        answers : list of Answer
            One for each clip, in the same order.

        Raises
        ------
        EarmarkError
            A program that fails.
        """
        ...


def digest(references: Sequence[Path], settings: Sequence[str]) -> str:
    """Sixteen hex digits that change with the list, any file's size or time, and the settings."""
    hashed = hashlib.sha256("\0".join(settings).encode())
    for path in references:
        try:
            stat = path.stat()
        except OSError as error:
            raise AudioError("open", f"{path}: {error.strerror}") from error
        hashed.update(b"\0" + os.fsencode(path.resolve()))
        hashed.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return hashed.hexdigest()[:16]


def wav_batches(references: Sequence[Path], folder: Path) -> Iterator[list[Path]]:
    """Decode references in batches, so that they never all lie on the disk as WAV.

    Yields
    ------
    wavs : list of Path
        ``<folder>/<position in references>.wav``: 16 kHz, mono, 16 bits. Gone with the next batch.

    Raises
    ------
    EarmarkError
        Without references, or for one without audio.
    """
    if not references:
        raise EarmarkError("no references: name the audio that the peers are to know")
    for first in range(0, len(references), _FILES_PER_BATCH):
        batch = []
        for position in range(first, min(first + _FILES_PER_BATCH, len(references))):
            wav = folder / numbered(position, ".wav")
            _decode(references[position], wav)
            batch.append(wav)
        yield batch
        for wav in batch:
            wav.unlink()


def _decode(reference: Path, wav: Path) -> None:
    try:
        with (
            open_audio(reference, SAMPLE_RATE) as stream,
            soundfile.SoundFile(wav, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file,
        ):
            for block in stream.blocks():
                file.write(block)
    except AudioError as error:
        raise AudioError(error.stage, f"{reference}: {error.reason}") from error


def numbered(position: int, suffix: str) -> str:
    """A file name that no program's output can garble."""
    return f"{position:06d}{suffix}"


def run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a peer's program in a folder and keep what it prints.

    Raises
    ------
    EarmarkError
        If it cannot be started.
    """
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise EarmarkError(f"cannot run {command[0]}: {error.strerror}") from error


def failure(name: str, done: subprocess.CompletedProcess[str]) -> EarmarkError:
    """The sentence for a peer's program that failed, with its last words."""
    words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
    return EarmarkError(f"{name} ended with exit code {done.returncode}: {words}")
