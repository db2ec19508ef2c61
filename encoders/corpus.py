"""Training audio: a manifest of files, decoded once into memory-mapped PCM."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from encoders.audio import load_audio
from encoders.errors import AudioError, EarmarkError

ROLES = ("music", "speech", "noise", "event")


@dataclasses.dataclass(frozen=True)
class Item:
    """One file of a training corpus.

    Parameters
    ----------
    path : Path
    role : str
        One of :data:`ROLES`.
    split : str
        ``"train"`` or ``"dev"``.
    label : str
        What kind of sound it is; empty if that is unknown.
    source : str
        Where it is from: files of one source may be takes of one sound.
    """

    path: Path
    role: str
    split: str
    label: str = ""
    source: str = ""


def best_covered(items: Iterable[Item], split: str, n: int) -> list[str]:
    """The labels with most recordings in the scarcer of train and ``split``, at most ``n``, sorted.

    Of events only; none of which either split has no recording.
    """
    counts = Counter((i.label, i.split) for i in items if i.role == "event" and i.label)
    scarcer = {label: min(counts[label, "train"], counts[label, split]) for label, _ in counts}
    ranked = sorted((k for k, least in scarcer.items() if least), key=lambda k: (-scarcer[k], k))
    return sorted(ranked[:n])


def read_corpus(corpus: Path) -> list[Item]:
    """List a training corpus.

    Parameters
    ----------
    corpus : Path
        A CSV with the columns ``path`` (relative to the CSV), ``role`` (music, speech, noise or
        event) and ``split`` (train or dev), and perhaps ``label`` (the kind of sound) and
        ``source`` (default: the first folder of the path); or a folder, whose files are all taken
        as music, one in ten, by the hash of its name, for dev.
    """
    if corpus.is_dir():
        paths = sorted(p for p in corpus.rglob("*") if p.is_file() and not p.name.startswith("."))
        # By the hash of the name, so that a split stays when files are added; never an empty one.
        ranked = sorted(paths, key=lambda p: _name_hash(p.relative_to(corpus)))
        first = set(ranked[:1]) if len(ranked) > 1 else set()
        dev = first | {p for p in paths if _name_hash(p.relative_to(corpus)) < 2**32 // 10}
        return [Item(p, "music", "dev" if p in dev else "train") for p in paths]
    try:
        with corpus.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise EarmarkError(f"cannot read the corpus {corpus}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise EarmarkError(f"{corpus} is neither a folder nor a CSV") from None
    missing = {"path", "role", "split"} - set(rows[0] if rows else ())
    if missing:
        raise EarmarkError(f"{corpus} lacks the column(s) {', '.join(sorted(missing))}")
    unknown = {row["role"] for row in rows} - set(ROLES)
    if unknown:
        raise EarmarkError(f"{corpus}: unknown role {unknown.pop()!r}; known: {', '.join(ROLES)}")
    return [
        Item(
            corpus.parent / row["path"],
            row["role"],
            row["split"],
            row.get("label") or "",
            row.get("source") or "".join(Path(row["path"]).parts[:1]),
        )
        for row in rows
    ]


def _name_hash(name: Path) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=4).digest(), "big")


class PcmCache:
    """Decoded recordings of one role and split, end to end in one memory-mapped array.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,), dtype=int16]
    lengths : np.ndarray [shape=(n_recordings,)]
        Samples in each recording.
    kept : sequence of int [shape=(n_recordings,)], optional
        Which of the items each recording is. [default: they are the items]
    """

    def __init__(
        self, samples: np.ndarray, lengths: np.ndarray, kept: Sequence[int] | None = None
    ) -> None:
        self.samples = samples
        self.kept = list(range(len(lengths)) if kept is None else kept)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @classmethod
    def build(
        cls,
        items: Iterable[Item],
        folder: Path,
        sample_rate: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> PcmCache:
        """Decode ``items`` into ``folder``, or open what an earlier run left there.

        Files that cannot be decoded are left out.
        """
        paths = [item.path for item in items]
        key = json.dumps([sample_rate, [os.fspath(p) for p in paths]])
        name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        pcm, index = folder / f"{name}.pcm", folder / f"{name}.json"
        if not index.exists():
            folder.mkdir(parents=True, exist_ok=True)
            lengths = []
            with pcm.open("wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
                for done, samples in enumerate(pool.map(lambda p: _pcm(p, sample_rate), paths)):
                    out.write(samples.tobytes())
                    lengths.append(len(samples))
                    if progress:
                        progress(done + 1, len(paths))
            index.write_text(json.dumps(lengths))
        lengths = json.loads(index.read_text())
        kept = [number for number, n in enumerate(lengths) if n]
        if not kept:
            return cls(np.empty(0, np.int16), np.empty(0))
        return cls(np.memmap(pcm, np.int16, "r"), np.array([lengths[k] for k in kept]), kept)

    def __len__(self) -> int:
        return len(self.lengths)

    def recording(self, number: int) -> np.ndarray:
        """A recording from beginning to end [shape=(n_samples,), dtype=float32]."""
        start = self.starts[number]
        pcm = self.samples[start : start + self.lengths[number]]
        return pcm.astype(np.float32) / np.float32(32768)

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """A stretch at random, every second of the cache equally likely; short files repeat.

        Returns
        -------
        signal : np.ndarray [shape=(n_samples,), dtype=float32]
        """
        at = int(rng.integers(len(self.samples)))
        recording = int(np.searchsorted(self.starts, at, side="right")) - 1
        start, length = self.starts[recording], int(self.lengths[recording])
        if length >= n_samples:
            first = start + (at - start) * (length - n_samples + 1) // length
            pcm = self.samples[first : first + n_samples]
        else:
            pcm = np.resize(self.samples[start : start + length], n_samples)
        return pcm.astype(np.float32) / np.float32(32768)


def _pcm(path: Path, sample_rate: int) -> np.ndarray:
    try:
        signal = load_audio(path, sample_rate)
    except AudioError:
        return np.empty(0, np.int16)
    return np.round(np.clip(signal, -1, 1) * 32767).astype(np.int16)
