"""Which files of a corpus are references, which sound beside them, and which stay away."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from encoders.audio import AudioInfo, open_audio
from encoders.corpus import Item
from encoders.errors import AudioError, EarmarkError

# Of the music for training, one file in so many is no reference: it sounds behind the queries.
LEFT_OUT = 10


@dataclasses.dataclass(frozen=True)
class Selection:
    """Files by what they do in an evaluation.

    Attributes
    ----------
    kept, withheld : list of Path
        Music that queries are cut from. The second data base lacks ``withheld``.
    distractors : list of Path
        More references, which no query is cut from.
    music, voices, ambience : list of Path
        What sounds behind queries; the music is in no data base.
    """

    kept: list[Path]
    withheld: list[Path]
    distractors: list[Path]
    music: list[Path]
    voices: list[Path]
    ambience: list[Path]

    @property
    def references(self) -> list[Path]:
        """All of the first data base."""
        return self.without_withheld + self.withheld

    @property
    def without_withheld(self) -> list[Path]:
        """All of the second data base."""
        return self.kept + self.distractors


def select(items: Sequence[Item], root: Path, hours: float) -> Selection:
    """Choose by the hash of a file's name, so that the choice is the same every time and anywhere.

    Parameters
    ----------
    items : sequence of Item
        The corpus: queries and backgrounds are taken from ``dev``, distractors from ``train``.
    root : Path
        Its folder.
    hours : float
        References, with distractors as far as they are needed.

    Raises
    ------
    EarmarkError
        If there are fewer than two files of music to cut queries from.
    """

    def rank(path: Path) -> int:
        name = os.fsencode(Path(os.path.relpath(path, root)).as_posix())
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")

    def files(role: str, split: str) -> list[Path]:
        return sorted((i.path for i in items if (i.role, i.split) == (role, split)), key=rank)

    queries = list(_measured(files("music", "dev")))
    if len(queries) < 2:
        raise EarmarkError(
            "the corpus needs at least two files of music in split 'dev' that can be decoded, to "
            f"cut queries from; it has {len(queries)}"
        )
    train = files("music", "train")
    distractors = []
    seconds = sum(length for _, length in queries)
    for path, length in _measured(p for p in train if rank(p) % LEFT_OUT):
        if seconds >= 3600 * hours:
            break
        distractors.append(path)
        seconds += length
    paths = [path for path, _ in queries]
    # One title often comes in several packages, and may be a reference under another name.
    titles = {_title(p) for p in paths + distractors}
    music = [p for p in train if not rank(p) % LEFT_OUT and _title(p) not in titles]
    return Selection(
        kept=paths[1::2],
        withheld=paths[::2],
        distractors=distractors,
        music=music,
        voices=files("speech", "dev"),
        ambience=files("noise", "dev"),
    )


def _title(path: Path) -> str:
    return path.stem.casefold()


def _measured(paths: Iterable[Path]) -> Iterator[tuple[Path, float]]:
    # Lazily: only as many as are asked for.
    for path in paths:
        with contextlib.suppress(AudioError):
            yield path, measure_audio(path)[1]


def measure_audio(path: Path) -> tuple[AudioInfo, float]:
    """What a file is, and its seconds: from its headers, or by decoding it if they do not tell.

    Raises
    ------
    AudioError
    """
    with open_audio(path, 16_000) as stream:
        if stream.info.seconds_expected is None:
            for _ in stream.blocks():
                pass
        return stream.info, stream.info.seconds_expected or stream.seconds_decoded
