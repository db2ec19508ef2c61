"""Clips of a corpus for :mod:`accuracy`: which files, which places, which backgrounds."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
import numpy as np
from _common import measure_audio

from encoders import degrade
from encoders.audio import load_audio
from encoders.corpus import Item
from encoders.errors import AudioError

# Of the music that serves as distractors, one file in so many stays out of the catalog.
LEFT_OUT = 10
# A clip has to be at least so loud, dB re full scale (RMS).
MIN_LEVEL_DB = -50.0


@dataclasses.dataclass(frozen=True)
class Track:
    """A file of the corpus and its length."""

    path: Path
    seconds: float


@dataclasses.dataclass(frozen=True)
class Selection:
    """What goes into the catalog, and where clips and backgrounds come from."""

    references: list[Track]
    queries: list[Track]
    absent: list[Track]
    ambience: list[Track]

    @property
    def hours(self) -> float:
        """Of the references."""
        return sum(t.seconds for t in self.references) / 3600


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip before anything happens to it, and the background that it may get."""

    track: Track
    start_s: float
    signal: np.ndarray
    background: str
    noise: np.ndarray
    seed: int


def select(items: Sequence[Item], root: Path, split: str, hours: float) -> Selection:
    """Choose by the hash of a file's name, so that the choice is the same every time.

    Parameters
    ----------
    items : sequence of Item
        The corpus.
    root : Path
        Its folder.
    split : str
        Where clips are cut from; all its music is in the catalog.
    hours : float
        References, with music of the other split if needed.
    """

    def rank(item: Item) -> int:
        name = os.fsencode(os.path.relpath(item.path, root))
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")

    def tracks(role: str, of_split: bool) -> list[Item]:
        chosen = [i for i in items if i.role == role and (i.split == split) == of_split]
        return sorted(chosen, key=rank)

    queries = _measured(tracks("music", True))
    references, taken = list(queries), sum(t.seconds for t in queries)
    others = tracks("music", False)
    for track in _measured(i for i in others if rank(i) % LEFT_OUT):
        if taken >= 3600 * hours:
            break
        references.append(track)
        taken += track.seconds
    # One title often comes in several packages: a namesake might be in the catalog after all.
    titles = {title_of(t.path) for t in references}
    left_out = [i for i in others if not rank(i) % LEFT_OUT and title_of(i.path) not in titles]
    return Selection(references, queries, _measured(left_out), _measured(tracks("noise", True)))


def _measured(items: Iterable[Item]) -> list[Track]:
    tracks = []
    for item in items:
        with contextlib.suppress(AudioError):
            tracks.append(Track(item.path, measure_audio(item.path)[1]))
    return tracks


def title_of(path: Path) -> str:
    return path.stem.casefold()


def cut_clips(
    tracks: Sequence[Track], n: int, seconds: float, rate: int, rng: np.random.Generator
) -> list[tuple[Track, float, np.ndarray]]:
    """Cut ``n`` clips that are not silent; every second of the tracks is equally likely."""
    tracks = [t for t in tracks if t.seconds > seconds + 0.5]
    if not tracks:
        raise click.ClickException(f"no music longer than {seconds:g} s to cut clips from")
    weights = np.array([t.seconds - seconds for t in tracks])
    chosen = np.bincount(rng.choice(len(tracks), n, p=weights / weights.sum()))
    clips = []
    for number in np.flatnonzero(chosen):
        signal = load_audio(tracks[number].path, rate)
        n_samples = round(seconds * rate)
        if len(signal) <= n_samples:
            continue
        for _ in range(int(chosen[number])):
            for _ in range(50):
                start = int(rng.integers(len(signal) - n_samples))
                clip = signal[start : start + n_samples].copy()
                if 10 * np.log10(np.mean(clip**2) + 1e-12) >= MIN_LEVEL_DB:
                    clips.append((tracks[number], start / rate, clip))
                    break
    return clips


def make_clips(
    tracks: Sequence[Track], chosen: Selection, n: int, seconds: float, rate: int, seed: int
) -> list[Clip]:
    """Clips with a background each: ambience, coloured noise, or music that is in no catalog."""
    rng = np.random.default_rng(seed)
    kinds = ["coloured"]
    kinds += ["ambience"] if chosen.ambience else []
    kinds += ["music"] if chosen.absent else []
    ambience = [load_audio(t.path, rate) for t in chosen.ambience]
    places = cut_clips(tracks, n, seconds, rate, rng)
    others = cut_clips(chosen.absent, n, seconds, rate, rng) if chosen.absent else []
    clips = []
    for number, (track, start, signal) in enumerate(places):
        kind = kinds[number % len(kinds)]
        elsewhere = [o for o in others if o[0] != track]
        if kind == "music" and elsewhere:
            noise = elsewhere[int(rng.integers(len(elsewhere)))][2]
        elif kind == "ambience":
            source = ambience[int(rng.integers(len(ambience)))]
            noise = np.resize(np.roll(source, -int(rng.integers(len(source)))), len(signal))
        else:
            kind = "coloured"
            noise = degrade.colored_noise(len(signal), float(rng.uniform(0, 2)), rng)
        clips.append(Clip(track, start, signal, kind, noise, int(rng.integers(2**31))))
    return clips


def world(condition: str, snr_db: float, rate: int) -> Callable[[Clip], np.ndarray]:
    """What a condition does to a clip."""

    def hear(clip: Clip) -> np.ndarray:
        rng = np.random.default_rng(clip.seed)
        signal = clip.signal
        if condition == "clean":
            return signal
        if condition == "phone":
            return degrade.microphone(signal, rate, rng)
        if condition in degrade.CODECS:
            return degrade.transcode(signal, rate, condition)
        if condition == "room":
            rooms = degrade.shipped_rooms()
            signal = degrade.reverberate(signal, rooms[rng.integers(len(rooms))])
        return degrade.add_noise(signal, clip.noise, snr_db)

    return hear
