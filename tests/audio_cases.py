"""Audio files of every kind, good and bad, made at test time from real music."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 48_000
"""Hz of every good file: the one rate that all the codecs take."""


def read_music(folder: Path, seconds: float, start: float = 5.0) -> np.ndarray:
    """Real stereo music from the tracks that ship with the package.

    Returns
    -------
    music : np.ndarray [shape=(n, 2), dtype=float32]
        At ``RATE`` Hz (as it is, so a little faster than it was recorded).
    """
    with soundfile.SoundFile(folder / "palace.ogg") as file:
        file.seek(int(start * file.samplerate))
        music = file.read(int(seconds * RATE), dtype="float32", always_2d=True)
    return np.ascontiguousarray(np.broadcast_to(music, (len(music), 2)) * np.float32(0.7))


def by_soundfile(
    music: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None
) -> bytes:
    """Encode with libsndfile."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", rate, music.shape[1], subtype=subtype, format=format
    ) as file:
        for start in range(0, len(music), 4096):
            file.write(music[start : start + 4096])
    return buffer.getvalue()


def by_ffmpeg(
    music: np.ndarray,
    format: str,
    codec: str,
    options: dict[str, str] | None = None,
    video_seconds: int = 0,
) -> bytes:
    """Encode with FFmpeg, on request beside a video stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format, options=options or {}) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.codec_context.layout = "stereo"
        stream.codec_context.bit_rate = 160_000
        video = container.add_stream("mpeg4", rate=10) if video_seconds else None
        if video is not None:
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            for _ in range(10 * video_seconds):
                picture = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuv420p")
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        for start in range(0, len(music), RATE):
            block = np.ascontiguousarray(music[start : start + RATE].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate = RATE
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def id3_tag(n_bytes: int) -> bytes:
    """An ID3v2.3 tag with a private frame of ``n_bytes``."""

    def size(n: int) -> bytes:
        return bytes(n >> shift & 127 for shift in (21, 14, 7, 0))

    frame = b"PRIV" + struct.pack(">I", n_bytes) + b"\0\0" + b"\xff\xfb" * (n_bytes // 2)
    return b"ID3\x03\0\0" + size(len(frame)) + frame


def wav_header(
    n_bytes: int, channels: int = 1, rate: int = 16_000, bits: int = 16, code: int = 1
) -> bytes:
    """A 44-byte WAV header that says what it is told to, true or not."""
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * align, align, bits)
    riff_length = min(36 + n_bytes, 0xFFFFFFFF)
    return (
        b"RIFF" + struct.pack("<I", riff_length) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    ) + (b"data" + struct.pack("<I", n_bytes))


def _pcm16(music: np.ndarray) -> bytes:
    return (music * 32767).astype("<i2").tobytes()


def _streamed_wav(music: np.ndarray) -> bytes:
    return wav_header(0xFFFFFFFF, 2, RATE) + _pcm16(music)


def _unclosed_wav(music: np.ndarray) -> bytes:
    return wav_header(0, 2, RATE) + _pcm16(music)


_FRAGMENTED = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}
_MP3_NO_HEADER = {"write_xing": "0", "id3v2_version": "0"}

GOOD: dict[str, Callable[[np.ndarray], bytes]] = {
    "wav-u8": lambda m: by_soundfile(m, subtype="PCM_U8"),
    "wav-16": lambda m: by_soundfile(m, subtype="PCM_16"),
    "wav-24": lambda m: by_soundfile(m, subtype="PCM_24"),
    "wav-32": lambda m: by_soundfile(m, subtype="PCM_32"),
    "wav-float": lambda m: by_soundfile(m, subtype="FLOAT"),
    "wav-double": lambda m: by_soundfile(m, subtype="DOUBLE"),
    "wav-ulaw": lambda m: by_soundfile(m, subtype="ULAW"),
    "wav-extensible": lambda m: by_soundfile(m, format="WAVEX", subtype="PCM_24"),
    "wav-rf64": lambda m: by_soundfile(m, format="RF64", subtype="PCM_16"),
    "wav-streamed": _streamed_wav,
    "wav-unclosed": _unclosed_wav,
    "aiff": lambda m: by_soundfile(m, format="AIFF", subtype="PCM_16"),
    "flac": lambda m: by_soundfile(m, format="FLAC", subtype="PCM_16"),
    "flac-id3": lambda m: id3_tag(5000) + by_soundfile(m, format="FLAC", subtype="PCM_24"),
    "mp3": lambda m: by_ffmpeg(m, "mp3", "libmp3lame"),
    "mp3-id3": lambda m: id3_tag(1_000_000) + by_ffmpeg(m, "mp3", "libmp3lame"),
    "mp3-no-header": lambda m: by_ffmpeg(m, "mp3", "libmp3lame", _MP3_NO_HEADER),
    "vorbis": lambda m: by_soundfile(m, format="OGG", subtype="VORBIS"),
    "ogg-flac": lambda m: by_ffmpeg(m, "ogg", "flac"),
    "opus": lambda m: by_ffmpeg(m, "ogg", "libopus"),
    "m4a": lambda m: by_ffmpeg(m, "ipod", "aac"),
    "m4a-moov-first": lambda m: by_ffmpeg(m, "ipod", "aac", {"moov_size": "50000"}),
    "m4a-fragmented": lambda m: by_ffmpeg(m, "mp4", "aac", _FRAGMENTED),
    "alac": lambda m: by_ffmpeg(m, "ipod", "alac"),
    "aac": lambda m: by_ffmpeg(m, "adts", "aac"),
    "wma": lambda m: by_ffmpeg(m, "asf", "wmav2"),
    "webm": lambda m: by_ffmpeg(m, "webm", "libopus"),
    "mkv": lambda m: by_ffmpeg(m, "matroska", "aac"),
    "mp4-video": lambda m: by_ffmpeg(m, "mp4", "aac", video_seconds=len(m) // RATE + 3),
    "mkv-video": lambda m: by_ffmpeg(m, "matroska", "aac", video_seconds=len(m) // RATE + 3),
}
"""Name of a format -> encoder of stereo music [shape=(n, 2)] at ``RATE`` Hz."""

CONTAINERS = {"vorbis": "ogg", "opus": "ogg", "m4a": "mp4", "alac": "mp4", "wma": "asf"} | {
    "mkv": "matroska"
}
"""Container of a format, where it is not the first word of its name."""

NO_END = ("wav-streamed", "wav-unclosed")
"""Formats that say nothing about where they end: a cut leaves a whole file."""


def container_of(name: str) -> str:
    """The container that ``open_audio`` should recognise in a format of ``GOOD``."""
    word = name.split("-")[0]
    return CONTAINERS.get(word, word)


def with_garbage(data: bytes, at: float = 0.5, n_bytes: int = 3000) -> bytes:
    """Overwrite bytes in the middle with noise."""
    start = int(len(data) * at)
    noise = np.random.default_rng(0).bytes(n_bytes)
    return data[:start] + noise + data[start + n_bytes :]


@dataclasses.dataclass(frozen=True)
class BadFile:
    """A bad input and what should become of it.

    Parameters
    ----------
    path : Path
    status : str
        ``"ok"`` (odd, but whole), ``"partial"`` or ``"failed"``.
    stage : str or None
        Of the AudioError, when failed.
    reason : str
        Regular expression for the reason.
    """

    path: Path
    status: str
    stage: str | None = None
    reason: str = ""


def write_bad_files(folder: Path, music: np.ndarray) -> list[BadFile]:
    """Write every bad file that a test can write anywhere.

    Parameters
    ----------
    folder : Path
    music : np.ndarray [shape=(n, 2)]
        At ``RATE`` Hz.
    """
    mono = music[:, 0].copy()
    with_nan = mono.copy()
    with_nan[1000:1010], with_nan[5000] = np.nan, np.inf
    pcm = _pcm16(mono)
    contents: list[tuple[str, bytes, str, str | None, str]] = [
        ("empty.wav", b"", "failed", "open", "empty"),
        ("text.mp3", b"This is not music.\n" * 500, "failed", "probe", "text"),
        ("noise.flac", np.random.default_rng(1).bytes(20_000), "failed", "probe", "no audio"),
        ("zeros.ogg", bytes(10_000), "failed", "probe", "zeros"),
        ("tag-only.mp3", id3_tag(2000), "failed", "probe", "ID3"),
        ("header-only.wav", wav_header(0), "failed", "decode", "no audio samples"),
        ("header-only.ogg", GOOD["vorbis"](music)[:58], "failed", "probe", "ogg"),
        ("no-moov.m4a", GOOD["m4a"](music)[:20_000], "failed", "probe", "truncated"),
        ("no-channels.wav", wav_header(len(pcm), 0) + pcm, "failed", "probe", "wav"),
        ("1-hz.wav", wav_header(len(pcm), rate=1) + pcm, "failed", "probe", "1 Hz"),
        ("2-ghz.wav", wav_header(len(pcm), rate=2_000_000_000) + pcm, "failed", "probe", "Hz"),
        ("768-khz.wav", wav_header(len(pcm), rate=768_000) + pcm, "ok", None, ""),
        ("one-sample.wav", wav_header(2) + b"\x10\x27", "ok", None, ""),
        ("silence.wav", wav_header(64_000) + bytes(64_000), "ok", None, ""),
        ("8-channels.wav", by_soundfile(np.tile(music, (1, 4))), "ok", None, ""),
        (
            "nan.wav",
            by_soundfile(with_nan[:, None], subtype="FLOAT"),
            "partial",
            None,
            "11 non-fin",
        ),
    ]
    for name in ("wav-16", "aiff", "flac", "mp3", "vorbis", "opus", "aac", "wma", "webm"):
        data = GOOD[name](music)
        contents.append((f"cut.{name}", data[: len(data) * 6 // 10], "partial", None, "truncated"))
        if name not in ("wav-16", "aiff"):  # any bytes are PCM
            contents.append((f"garbage.{name}", with_garbage(data), "partial", None, ""))
    files = []
    for name, data, status, stage, reason in contents:
        (folder / name).write_bytes(data)
        files.append(BadFile(folder / name, status, stage, reason))
    (folder / "directory.wav").mkdir()
    files.append(BadFile(folder / "directory.wav", "failed", "open", "directory"))
    (folder / "broken-link.wav").symlink_to(folder / "nowhere.wav")
    files.append(BadFile(folder / "broken-link.wav", "failed", "open", "No such file"))
    if os.geteuid() != 0:  # root reads everything
        (folder / "unreadable.wav").write_bytes(wav_header(len(pcm)) + pcm)
        (folder / "unreadable.wav").chmod(0)
        files.append(BadFile(folder / "unreadable.wav", "failed", "open", "Permission denied"))
    return files


def write_odd_names(folder: Path, data: bytes) -> list[Path]:
    """Write the same good bytes under names that break careless programs."""
    names = [
        "with space.wav",
        "new\nline.wav",
        "emoji 🎵.wav",
        "-dash.wav",
        "-",
        "%20.wav",
        "a:b.wav",
    ]
    paths = [folder / name for name in names]
    paths.append(Path(os.fsdecode(os.fsencode(folder) + b"/not-utf8-\xff\xe9.wav")))
    for path in paths:
        path.write_bytes(data)
    return paths
