"""The two decoders: libsndfile and FFmpeg. Both give mono float32 at the source's rate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from encoders.audio.source import Source

if TYPE_CHECKING:
    import av
    import av.container

# Samples per block, all channels together.
_BLOCK_SAMPLES = 1 << 17
# A demuxer that fails this often in a row has lost the stream.
_MAX_FAILURES_IN_A_ROW = 100
# Timestamps that run ahead of the samples by more than this (s) tell of lost audio; by less, if a
# packet is known to be lost. Sloppy timestamps of good files stay below.
_MIN_GAP, _MIN_GAP_AFTER_LOSS = 0.05, 0.015
# More than this (s) in one go is a damaged timestamp.
_MAX_GAP = 600.0
_INTEGER_FULL_SCALE = {"uint8": 128.0, "int16": 2.0**15, "int32": 2.0**31}


class DecoderError(Exception):
    """The decoder does not take this source. Its message is one plain line."""


class Decoder(Protocol):
    """What both decoders offer."""

    codec: str
    sample_rate: int
    channels: int
    seconds: float | None
    """Length that the headers promise, as the decoder's library reads them."""
    tolerance: float
    """Seconds by which a whole file may fall short of the promise."""
    seconds_missing: float
    """Seconds of the blocks so far that are silence in the place of lost audio."""
    errors: str | None
    """What could not be decoded, after the last block."""

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        """Mono blocks [shape=(n,), dtype=float32], each with its rate in Hz."""

    def close(self) -> None:
        """Free the library's memory."""


def to_mono(block: np.ndarray) -> np.ndarray:
    """Mean of the channels.

    Parameters
    ----------
    block : np.ndarray [shape=(n, channels), dtype=float32]

    Returns
    -------
    mono : np.ndarray [shape=(n,), dtype=float32]
        Always a new array.
    """
    n_channels = block.shape[1]
    if n_channels == 1:
        return block[:, 0].copy()
    if n_channels == 2:
        # Several times as fast as block.mean(axis=1).
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)
    return block @ np.full(n_channels, 1.0 / n_channels, np.float32)


class SoundFileDecoder:
    """libsndfile: wav, aiff, flac, mp3, ogg vorbis. Where it gives up, FFmpeg goes on."""

    def __init__(self, source: Source, container: str, demuxer: str) -> None:
        import soundfile

        self._source = source
        self._demuxer = demuxer
        self.seconds_missing = 0.0
        self._failure = soundfile.LibsndfileError
        source.seek(0)
        file: Any = source
        if source.path is not None:
            # libsndfile reads a path itself, without a callback into Python per block.
            file = source.path if os.name == "nt" else os.fsencode(source.path)
        try:
            self._file = soundfile.SoundFile(file)
        except soundfile.LibsndfileError as error:
            raise DecoderError(error.error_string.rstrip(".")) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise DecoderError("libsndfile does not take it") from error
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        subtype = self._file.subtype.lower()
        self.codec = {"mpeg_layer_iii": "mp3", "mpeg_layer_ii": "mp2", "mpeg_layer_i": "mp1"}.get(
            subtype, container if container == "flac" else subtype
        )
        self.errors: str | None = None
        # For mp3 libsndfile may only guess from the file size.
        is_exact = container != "mp3" and 0 < self._file.frames < 1 << 60
        self.seconds = self._file.frames / self.sample_rate if is_exact else None
        self.tolerance = (2400 if container == "mp3" else 1.5) / self.sample_rate

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        n = max(1, _BLOCK_SAMPLES // self.channels)
        buffer = np.empty((n, self.channels), np.float32)
        n_done = 0
        while True:
            try:
                n_read = self._file.buffer_read_into(buffer, dtype="float32")
            except self._failure as error:
                self.errors = error.error_string.removeprefix("Error : ").rstrip(".")
                yield from self._rest_by_ffmpeg(n_done)
                return
            if n_read <= 0:
                return
            n_done += n_read
            yield to_mono(buffer[:n_read]), self.sample_rate

    def _rest_by_ffmpeg(self, n_done: int) -> Iterator[tuple[np.ndarray, int]]:
        """What follows the first ``n_done`` samples."""
        try:
            other = AvDecoder(self._source, self._demuxer)
        except DecoderError:
            return
        with contextlib.closing(other):
            for mono, rate in other.blocks():
                if n_done < len(mono):
                    yield mono[n_done:], rate
                n_done = max(0, n_done - len(mono))
                self.seconds_missing = other.seconds_missing

    def close(self) -> None:
        self._file.close()


class AvDecoder:
    """FFmpeg through PyAV: everything else."""

    def __init__(self, source: Source, demuxer: str) -> None:
        source.seek(0)
        self._open(source, demuxer, {})

    @classmethod
    def live(cls, source: Any, options: dict[str, str]) -> AvDecoder:
        """Of a URL, or of a file object that can only be read.

        Raises
        ------
        DecoderError
        """
        decoder = cls.__new__(cls)
        decoder._open(source, None, options)
        return decoder

    def _open(self, source: Any, demuxer: str | None, options: dict[str, str]) -> None:
        import av

        av.logging.set_level(None)
        self._failure = av.FFmpegError
        try:
            self._container = av.open(
                source, mode="r", format=demuxer, options=options, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise DecoderError(_reason(error)) from error
        demuxer = demuxer or self._container.format.name
        streams = self._container.streams.audio
        if not streams:
            self._container.close()
            raise DecoderError("it has no audio stream")
        self._stream = streams[0]
        context = self._stream.codec_context
        if context is None:
            self._container.close()
            raise DecoderError("its codec is not supported")
        context.thread_count = 1
        self.codec = context.name
        self.sample_rate = context.sample_rate
        self.channels = context.channels
        self.errors: str | None = None
        self.seconds = self._promised(demuxer)
        # Encoder delay and padding, which edit lists and pre-skip take off.
        self.tolerance = 0.1 + 4096 / max(1, self.sample_rate)
        # A raw AAC stream has no field for the encoder's delay: at least one frame, which only
        # primes the overlap-add.
        self._n_skip = 1024 if demuxer == "aac" else 0
        # Where the next frame should start, in s.
        self._clock: float | None = None
        self._n_bad = 0
        self.seconds_missing = 0.0

    def _promised(self, demuxer: str) -> float | None:
        stream, container = self._stream, self._container
        if demuxer == "aac":
            return None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
            head = stream.codec_context.extradata
            if self.codec == "opus" and demuxer == "ogg" and head:
                # The pre-skip counts in the page positions, but is not audio (RFC 7845).
                seconds -= int.from_bytes(head[10:12], "little") / 48_000
            return seconds
        tagged = _parse_clock(stream.metadata.get("DURATION", ""))
        if tagged is not None:
            return tagged
        # The container is as long as its longest stream.
        if container.duration is not None and len(container.streams) == 1:
            return container.duration / 1e6
        return None

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        import av

        fifo, form = av.AudioFifo(), None
        for frame in self._frames():
            if self._n_skip > 0:
                self._n_skip -= frame.samples
                continue
            new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
            gap = self._gap(frame)
            if gap or (form is not None and form != new_form):
                yield from self._drain(fifo, 0)
                fifo = av.AudioFifo()
                yield from self._silence(gap, frame.sample_rate)
            form = new_form
            # The queue refuses timestamps that are not quite the sum of the samples.
            frame.pts = None
            fifo.write(frame)
            n = max(1, _BLOCK_SAMPLES // max(1, len(frame.layout.channels)))
            if fifo.samples >= n:
                yield from self._drain(fifo, n)
        yield from self._drain(fifo, 0)

    def _gap(self, frame: av.AudioFrame) -> float:
        """Seconds of audio that are lost before a frame, by the timestamps."""
        gap = 0.0
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base)
            if self._clock is None:
                self._clock = time
            lag = time - self._clock
            if (_MIN_GAP_AFTER_LOSS if self._n_bad else _MIN_GAP) < lag < _MAX_GAP:
                gap = lag
        if self._clock is not None:
            self._clock += gap + frame.samples / frame.sample_rate
        return gap

    def _silence(self, seconds: float, rate: int) -> Iterator[tuple[np.ndarray, int]]:
        """Silence for lost audio, so that what follows it stays in its place."""
        n_left = round(seconds * rate)
        while n_left > 0:
            n = min(n_left, _BLOCK_SAMPLES)
            self.seconds_missing += n / rate
            yield np.zeros(n, np.float32), rate
            n_left -= n

    def _drain(self, fifo: av.AudioFifo, n: int) -> Iterator[tuple[np.ndarray, int]]:
        """Give what is queued, in blocks of ``n``; the rest too if ``n`` is 0."""
        while fifo.samples and fifo.samples >= n:
            frame = fifo.read(n)
            if frame is None:
                return
            yield to_mono(_samples(frame)), frame.sample_rate

    def _frames(self) -> Iterator[av.AudioFrame]:
        """Every frame that decodes; packets that do not are counted."""
        packets = self._container.demux(self._stream)
        in_a_row = 0
        while in_a_row < _MAX_FAILURES_IN_A_ROW:
            try:
                frames = next(packets).decode()
            except StopIteration:
                break
            except self._failure:
                self._n_bad, in_a_row = self._n_bad + 1, in_a_row + 1
                packets = self._container.demux(self._stream)
                continue
            in_a_row = 0
            yield from frames
        errors = []
        if self._n_bad:
            errors.append(f"{self._n_bad} packets could not be decoded")
        if self.seconds_missing:
            errors.append(f"{self.seconds_missing:.2f} s are missing in the middle")
        self.errors = "; ".join(errors) or None

    def close(self) -> None:
        self._container.close()


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame [shape=(n, channels), dtype=float32]."""
    data = frame.to_ndarray()
    n_channels = len(frame.layout.channels)
    data = data.reshape(-1, n_channels) if frame.format.is_packed else data.T
    full_scale = _INTEGER_FULL_SCALE.get(data.dtype.name)
    if data.dtype == np.uint8:
        data = data.astype(np.float32) - 128.0
    if full_scale is not None:
        return data.astype(np.float32) / np.float32(full_scale)
    return data.astype(np.float32, copy=False)


def _parse_clock(text: str) -> float | None:
    """Seconds in ``"HH:MM:SS.sss"``."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or "FFmpeg does not take it")
