"""Plants duplicates: variants of real recordings, and what each pair of them is."""

from __future__ import annotations

import dataclasses
import enum
import json
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from encoders.degrade import add_noise, change_pitch, change_speed
from index.schema import DuplicateKind

RATE = 44_100

Write = Callable[[Path, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Plant:
    """One file made from a source.

    Parameters
    ----------
    uri : str
    source : str
        What it was made from.
    variant : str
    start, end : float
        The stretch of the source that it holds, in seconds.
    lead : float
        Seconds of silence before it.
    speed : float
        Seconds of the source in one of the file.
    is_near : bool
        Whether it is more than encoded: mixed, or at another speed or pitch.
    """

    uri: str
    source: str
    variant: str
    start: float
    end: float
    lead: float = 0.0
    speed: float = 1.0
    is_near: bool = False

    def time_of(self, source_s: float) -> float:
        """When a moment of the source is heard in the file."""
        return self.lead + (source_s - self.start) / self.speed


class Unclear(enum.Enum):
    """Not counted, whether it is reported or not."""

    BRIEF = "share little"
    TWICE_CHANGED = "both changed"


def truth(a: Plant, b: Plant, least_s: float = 5.0) -> DuplicateKind | Unclear | None:
    """What two plants of one source are.

    Parameters
    ----------
    least_s : float
        Sharing less than this is unclear.

    Returns
    -------
    kind : DuplicateKind, Unclear or None
        None when they share nothing.
    """
    if {a.variant, b.variant} <= {"original", "identical"}:
        return DuplicateKind.IDENTICAL
    shared = min(a.end, b.end) - max(a.start, b.start)
    if shared <= 0:
        return None
    if a.is_near and b.is_near:
        return Unclear.TWICE_CHANGED
    fits = [p.end - p.start - shared <= min(0.5, 0.2 * (p.end - p.start)) for p in (a, b)]
    if not any(fits) and shared < least_s:
        return Unclear.BRIEF
    if a.is_near or b.is_near:
        return DuplicateKind.NEAR
    if all(fits):
        return DuplicateKind.SAME_AUDIO
    return DuplicateKind.EXCERPT if any(fits) else DuplicateKind.OVERLAP


def read_stereo(path: Path, seconds: float | None = None) -> np.ndarray:
    """The start of a file at ``RATE`` [shape=(n, 2), dtype=float32]."""
    try:
        with soundfile.SoundFile(path) as file:
            n = -1 if seconds is None else round(seconds * file.samplerate)
            samples = file.read(n, dtype="float32", always_2d=True)
            # One channel is heard on both sides.
            stereo = samples[:, [0, min(1, file.channels - 1)]]
            return soxr.resample(stereo, file.samplerate, RATE)
    except soundfile.LibsndfileError:
        return _read_by_ffmpeg(path, seconds)


def _read_by_ffmpeg(path: Path, seconds: float | None) -> np.ndarray:
    blocks, n = [], 0
    resampler = av.AudioResampler(format="flt", layout="stereo", rate=RATE)
    with av.open(str(path), metadata_errors="replace") as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            for out in resampler.resample(frame):
                blocks.append(out.to_ndarray().reshape(-1, 2))
                n += len(blocks[-1])
            if seconds is not None and n >= seconds * RATE:
                break
        else:
            blocks += [out.to_ndarray().reshape(-1, 2) for out in resampler.resample(None)]
    samples = np.concatenate(blocks)
    return samples if seconds is None else samples[: round(seconds * RATE)]


def encode(path: Path, samples: np.ndarray, encoder: str, rate: int, bit_rate: int) -> None:
    """Write a lossy file with FFmpeg."""
    if rate != RATE:
        samples = soxr.resample(samples, RATE, rate)
    pcm = np.ascontiguousarray(np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=rate, layout="stereo")
        stream.bit_rate = bit_rate
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        convert = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
        for converted in convert.resample(frame):
            fifo.write(converted)
        size = stream.codec_context.frame_size or 1024
        while piece := fifo.read(size, partial=True):
            piece.pts = None
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))


def to_flac(path: Path, samples: np.ndarray) -> None:
    """Write without loss, at 16 bits."""
    soundfile.write(path, np.clip(samples, -1, 1), RATE, "PCM_16")


def to_mp3(path: Path, samples: np.ndarray) -> None:
    """64 kbit/s."""
    encode(path, samples, "libmp3lame", RATE, 64_000)


def to_opus(path: Path, samples: np.ndarray) -> None:
    """24 kbit/s."""
    encode(path, samples, "libopus", 48_000, 24_000)


def to_22_khz(path: Path, samples: np.ndarray) -> None:
    """Half the rate, 16 bits."""
    halved = soxr.resample(samples, RATE, RATE // 2)
    soundfile.write(path, np.clip(halved, -1, 1), RATE // 2, "PCM_16")


def to_mono(path: Path, samples: np.ndarray) -> None:
    """One channel, flac."""
    soundfile.write(path, np.clip(samples.mean(axis=1), -1, 1), RATE, "PCM_16")


ENCODINGS: dict[str, tuple[str, Write]] = {
    "mp3-64k": (".mp3", to_mp3),
    "opus-24k": (".opus", to_opus),
    "22-khz": (".flac", to_22_khz),
    "mono": (".flac", to_mono),
}


class Planter:
    """Makes the variants of one source after the other.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def music(self, number: int, path: Path, speech: np.ndarray, seconds: float) -> list[Plant]:
        """A piece of music: 17 files.

        Parameters
        ----------
        speech : np.ndarray [shape=(n,)]
            What is mixed in, at ``RATE``.
        seconds : float
            Length of the original, at most; what follows it in the source serves the overlap.
        """
        make = _Maker(self.folder, number, str(path))
        if make.is_done:
            return make.plants
        samples = read_stereo(path, seconds + 20.0)
        length = min(seconds, 0.7 * len(samples) / RATE)
        base = samples[: round(length * RATE)]
        rng = random.Random(number)
        make.add("original", base, 0, length)
        make.twin("identical")
        self._encodings(make, base, length)
        make.add("trim-0.3s", base[round(0.3 * RATE) :], 0.3, length)
        silence = np.zeros((RATE, 2), np.float32)
        make.add("silence-2s", np.concatenate([silence, base, silence]), 0, length, lead=1.0)
        for excerpt in (30.0, 10.0):
            if length > 1.3 * excerpt:
                start = rng.uniform(0, length - excerpt)
                cut = base[round(start * RATE) : round((start + excerpt) * RATE)]
                make.add(f"excerpt-{excerpt:.0f}s", cut, start, start + excerpt)
        if length > 25.0:
            following = samples[round((length - 20) * RATE) :]
            make.add("overlap-20s", following, length - 20, len(samples) / RATE)
        mono = base.mean(axis=1)
        mixed = add_noise(mono, np.resize(speech, len(mono)), 6.0)
        make.near("voice-6db", mixed, length)
        for percent in (1, 5, -5):
            speed = 1 + percent / 100
            make.near(f"speed{percent:+d}%", change_speed(mono, speed), length, speed)
        for semitones in (1, -1):
            shifted = change_pitch(mono, RATE, 100.0 * semitones)
            make.near(f"pitch{semitones:+d}", shifted, length)
        make.finish()
        return make.plants

    def short(self, number: int, path: Path) -> list[Plant]:
        """An effect or a prompt: 8 files."""
        make = _Maker(self.folder, number, str(path))
        if make.is_done:
            return make.plants
        base = read_stereo(path)
        length = len(base) / RATE
        make.add("original", base, 0, length)
        make.twin("identical")
        self._encodings(make, base, length)
        make.add("trim-50ms", base[round(0.05 * RATE) :], 0.05, length)
        make.finish()
        return make.plants

    def _encodings(self, make: _Maker, base: np.ndarray, length: float) -> None:
        for name, (suffix, write) in ENCODINGS.items():
            make.add(name, base, 0, length, suffix=suffix, write=write)
        make.add("gain-12db", base * np.float32(10 ** (-12 / 20)), 0, length)


class _Maker:
    # The files of one source; what they are is written last, so that no source is read twice.
    def __init__(self, folder: Path, number: int, source: str) -> None:
        self._folder, self._number, self._source = folder, number, source
        self._list = folder / f"{number:05d}.json"
        self.plants: list[Plant] = []
        if self._list.exists():
            found = [Plant(**row) for row in json.loads(self._list.read_text("utf-8"))]
            self.plants = [plant for plant in found if plant.source == source]

    @property
    def is_done(self) -> bool:
        return bool(self.plants)

    def finish(self) -> None:
        unfinished = self._list.with_suffix(".tmp")
        rows = [dataclasses.asdict(plant) for plant in self.plants]
        unfinished.write_text(json.dumps(rows), "utf-8")
        unfinished.replace(self._list)

    def add(
        self,
        variant: str,
        samples: np.ndarray,
        start: float,
        end: float,
        suffix: str = ".flac",
        write: Write = to_flac,
        **how: float,
    ) -> None:
        path = self._folder / f"{self._number:05d}-{variant}{suffix}"
        write(path, samples)
        self.plants.append(Plant(str(path), self._source, variant, start, end, **how))

    def twin(self, variant: str) -> None:
        # The bytes of the last file under another name.
        last = self.plants[-1]
        path = self._folder / f"{self._number:05d}-{variant}{Path(last.uri).suffix}"
        path.unlink(missing_ok=True)
        path.hardlink_to(last.uri)
        self.plants.append(dataclasses.replace(last, uri=str(path), variant=variant))

    def near(self, variant: str, mono: np.ndarray, length: float, speed: float = 1.0) -> None:
        quiet = mono / np.float32(max(1.0, float(np.abs(mono).max())))
        self.add(variant, quiet, 0, length, speed=speed, is_near=True)


def voices(paths: Sequence[Path], seconds: float) -> np.ndarray:
    """Spoken words one after the other [shape=(n,)], at ``RATE``."""
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < seconds * RATE:
        pieces.append(read_stereo(paths[len(pieces) % len(paths)]).mean(axis=1))
    return np.concatenate(pieces)[: round(seconds * RATE)]
