"""Any audio file to mono float32 blocks at one rate, with a verdict on whether it is whole.

wav, aiff, flac, mp3 and ogg vorbis are decoded by libsndfile; opus, aac, m4a, wma, webm and the
sound of mp4 and mkv by FFmpeg (PyAV); soxr resamples. Memory does not grow with the length.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np

from encoders.audio.decoders import AvDecoder, Decoder, DecoderError, SoundFileDecoder
from encoders.audio.probe import Probe, probe
from encoders.audio.resampler import MonoResampler
from encoders.audio.source import Source
from encoders.errors import AudioError

__all__ = [
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "AudioInfo",
    "AudioStream",
    "load_audio",
    "open_audio",
]

MIN_SAMPLE_RATE = 100
"""Hz. Less carries no sound, and a small file would claim to last for days."""

MAX_SAMPLE_RATE = 10_000_000
"""Hz. More is a damaged header."""

# Full scale is 1; float files in 16 or 24-bit units are still below this.
_MAX_AMPLITUDE = np.float32(1e8)


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself.

    Parameters
    ----------
    container : str
        wav, aiff, flac, ogg, mp3, aac (ADTS), mp4, asf, matroska or webm.
    codec : str
        Such as pcm_16, float, flac, vorbis, opus, mp3, aac, wmav2.
    sample_rate : int
        Hz, of the source.
    channels : int
        Of the source.
    seconds_expected : float or None
        Length that the headers promise; None if they promise nothing.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    seconds_expected: float | None


class AudioStream:
    """An open source that is decoded while :meth:`blocks` is consumed. A context manager.

    Attributes
    ----------
    info : AudioInfo
    seconds_decoded : float
        Source time decoded so far.
    problem : str or None
        After the last block, why the audio is not whole; None if it is.
    """

    def __init__(self, source: Source, found: Probe, decoder: Decoder, sample_rate: int) -> None:
        promised = found.promise.seconds
        # A cut Ogg file ends with some page, which says nothing about the pages that are gone.
        if promised is None and not (found.container == "ogg" and found.promise.is_cut):
            promised = decoder.seconds
        self.info = AudioInfo(
            found.container, decoder.codec, decoder.sample_rate, decoder.channels, promised
        )
        self.seconds_decoded = 0.0
        self.problem: str | None = None
        self._source = source
        self._promise = found.promise
        self._decoder = decoder
        self._sample_rate = sample_rate
        self._n_bad_samples = 0

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode, once, from start to end.

        Yields
        ------
        block : np.ndarray [shape=(n,), dtype=float32]
            Mono, at the rate asked for; ``n`` is bounded. In all
            ``round(n_decoded * sample_rate / info.sample_rate)`` samples, and at least one.
            Where a container's timestamps tell of lost audio, silence keeps the rest in place.

        Raises
        ------
        AudioError
            Stage ``"decode"``: not one sample came out.
        """
        resampler: MonoResampler | None = None
        seconds = 0.0
        for mono, rate in self._decoder.blocks():
            if resampler is None or resampler.rate_in != rate:
                if resampler is not None:
                    yield from resampler.finish()
                resampler = MonoResampler(rate, self._sample_rate)
            self._silence_bad_samples(mono)
            seconds += len(mono) / rate
            self.seconds_decoded = seconds - self._decoder.seconds_missing
            yield from resampler.push(mono)
        if resampler is None:
            reason = self._source.error or self._promise.verdict or self._decoder.errors
            raise AudioError("decode", "no audio samples" + (f" ({reason})" if reason else ""))
        yield from resampler.finish()
        self.problem = self._verdict()

    def _silence_bad_samples(self, mono: np.ndarray) -> None:
        # One pass in the common case: the sum of squares is finite and small only if all are.
        with np.errstate(invalid="ignore", over="ignore"):
            if np.dot(mono, mono) < _MAX_AMPLITUDE:
                return
            bad = ~(np.abs(mono) < _MAX_AMPLITUDE)
        mono[bad] = 0.0
        self._n_bad_samples += int(np.count_nonzero(bad))

    def _verdict(self) -> str | None:
        problems = []
        promise, expected = self._promise, self.info.seconds_expected
        is_short = (
            expected is not None and self.seconds_decoded < expected - self._decoder.tolerance
        )
        kind = promise.kind
        if is_short and promise.fault is None and not promise.is_cut:
            kind = "truncated or damaged"
        if is_short:
            problems.append(f"{kind}: {self.seconds_decoded:.2f} of {expected:.2f} s decoded")
        elif promise.fault is not None:
            problems.append(f"{promise.verdict}, {self.seconds_decoded:.2f} s decoded")
        if self._source.error is not None:
            problems.append(f"reading failed: {self._source.error}")
        if self._decoder.errors is not None:
            problems.append(self._decoder.errors)
        if self._n_bad_samples:
            problems.append(f"{self._n_bad_samples} non-finite samples set to zero")
        return "; ".join(problems) or None

    def close(self) -> None:
        """Free the decoder, and close the file unless it was passed in open."""
        self._decoder.close()
        self._source.close()

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_audio(source: str | os.PathLike[str] | bytes | BinaryIO, sample_rate: int) -> AudioStream:
    """Open audio of any format, recognised by its content.

    Parameters
    ----------
    source : str or os.PathLike or bytes or binary file
        A path, the bytes of a file, or an open seekable file (which stays open).
    sample_rate : int
        Hz of the blocks to come.

    Returns
    -------
    stream : AudioStream

    Raises
    ------
    AudioError
        Stage ``"open"`` or ``"probe"``.

    Examples
    --------
    >>> with open_audio("track.opus", 16_000) as stream:
    ...     for block in stream.blocks():
    ...         ...
    ...     print(stream.seconds_decoded, stream.problem)
    """
    opened = Source(source)
    try:
        found = probe(opened)
        decoder = _open_decoder(opened, found)
    except BaseException:
        opened.close()
        raise
    return AudioStream(opened, found, decoder, sample_rate)


def _open_decoder(source: Source, found: Probe) -> Decoder:
    try:
        decoder = _first_that_opens(source, found)
    except DecoderError as error:
        reason = source.error or found.promise.verdict or str(error)
        raise AudioError("probe", f"{found.container}: {reason}") from error
    unusable = None
    if decoder.channels < 1:
        unusable = "it has no channels"
    elif not MIN_SAMPLE_RATE <= decoder.sample_rate <= MAX_SAMPLE_RATE:
        unusable = f"a sample rate of {decoder.sample_rate} Hz is outside "
        unusable += f"{MIN_SAMPLE_RATE} Hz to {MAX_SAMPLE_RATE // 1_000_000} MHz"
    if unusable is not None:
        decoder.close()
        raise AudioError("probe", f"{found.container}: {unusable}")
    return decoder


def _first_that_opens(source: Source, found: Probe) -> Decoder:
    if found.by_soundfile:
        try:
            return SoundFileDecoder(source, found.container, found.demuxer)
        except DecoderError as error:
            try:
                return AvDecoder(source, found.demuxer)
            except DecoderError:
                raise error from None
    return AvDecoder(source, found.demuxer)


def load_audio(source: str | os.PathLike[str] | bytes | BinaryIO, sample_rate: int) -> np.ndarray:
    """Decode a whole source into memory, also if it is damaged.

    Parameters
    ----------
    source : str or os.PathLike or bytes or binary file
    sample_rate : int
        Hz.

    Returns
    -------
    signal : np.ndarray [shape=(n,), dtype=float32]
        Mono.

    Raises
    ------
    AudioError
        Stage ``"open"``, ``"probe"`` or ``"decode"``.
    """
    with open_audio(source, sample_rate) as stream:
        return np.concatenate(list(stream.blocks()))
