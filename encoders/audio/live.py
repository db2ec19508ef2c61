"""Audio that has no end yet: standard input, a file that is being written, a stream on the net."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np

from encoders.audio.decoders import AvDecoder, DecoderError
from encoders.audio.resampler import MonoResampler
from encoders.errors import AudioError

# Seconds between two looks at a file that does not grow at the moment.
_LOOK_AGAIN_S = 0.5
# Microseconds without a byte from the net after which a stream counts as ended.
_NET_TIMEOUT_US = 30_000_000
# Of a WAV file that is being written the header gives a length that is wrong.
_OPTIONS = {"ignore_length": "1"}
_NET_OPTIONS = {"rw_timeout": str(_NET_TIMEOUT_US), "reconnect_on_network_error": "1"}


class LiveStream:
    """An open source that is decoded as it comes in, in bounded memory. A context manager.

    Attributes
    ----------
    problem : str or None
        After the last block, what could not be decoded.
    """

    def __init__(
        self,
        decoder: AvDecoder,
        sample_rate: int,
        reader: _Reader | None,
        close: Callable[[], None],
    ) -> None:
        self.problem: str | None = None
        self._decoder = decoder
        self._reader = reader
        self._sample_rate = sample_rate
        self._close = close

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode, once, until the source ends.

        Yields
        ------
        block : np.ndarray [shape=(n,), dtype=float32]
            Mono, at the rate asked for. Where timestamps tell of lost audio, silence keeps the
            rest in place.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C while waiting for more, after the last block of what had come.
        """
        resampler: MonoResampler | None = None
        for mono, rate in self._decoder.blocks():
            if resampler is None or resampler.rate_in != rate:
                if resampler is not None:
                    yield from resampler.finish()
                resampler = MonoResampler(rate, self._sample_rate)
            yield from resampler.push(np.nan_to_num(mono, posinf=0.0, neginf=0.0))
        if resampler is not None:
            yield from resampler.finish()
        self.problem = self._decoder.errors
        if self._reader is not None:
            self.problem = self._reader.error or self.problem
            if self._reader.interrupted:
                raise KeyboardInterrupt

    def close(self) -> None:
        """Free the decoder and the connection."""
        self._decoder.close()
        self._close()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_live(source: str | BinaryIO, sample_rate: int) -> LiveStream:
    """Open a URL, or a file object that need not be seekable.

    Parameters
    ----------
    source : str or binary file
        What FFmpeg takes as a URL (``http://``, ``https://``, ``rtsp://`` …), or an open file,
        which stays open.
    sample_rate : int
        Hz of the blocks to come.

    Raises
    ------
    AudioError
        Stage ``"open"``: there is no audio.
    """
    if isinstance(source, str):
        return _live(source, _NET_OPTIONS, sample_rate, lambda: None)
    return _live(_Reader(source), _OPTIONS, sample_rate, lambda: None)


def follow_file(
    path: str | os.PathLike[str], sample_rate: int, idle_s: float | None = None
) -> LiveStream:
    """Open a file that is still being written, and wait for more at its end.

    Parameters
    ----------
    path : str or os.PathLike
    sample_rate : int
        Hz of the blocks to come.
    idle_s : float, optional
        The file is complete when it has not grown for so many seconds. [default: never]

    Raises
    ------
    AudioError
        Stage ``"open"``: the file cannot be read, or holds no audio.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115, PTH123
    except OSError as error:
        raise AudioError("open", error.strerror or str(error)) from None
    try:
        return _live(_Growing(file, idle_s), _OPTIONS, sample_rate, file.close)
    except BaseException:
        file.close()
        raise


def _live(
    source: str | _Reader, options: dict[str, str], sample_rate: int, close: Callable[[], None]
) -> LiveStream:
    reader = source if isinstance(source, _Reader) else None
    try:
        return LiveStream(AvDecoder.live(source, options), sample_rate, reader, close)
    except DecoderError as error:
        raise AudioError("open", str(error)) from None


class _Reader:
    """The part of a file that FFmpeg takes for a stream: it can be read, and no more.

    FFmpeg calls from C, where an exception would be lost: it sees the end of the file, and what
    happened is kept in ``interrupted`` and ``error``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.interrupted = False
        self.error: str | None = None

    def read(self, n: int) -> bytes:
        if self.interrupted or self.error is not None:
            return b""
        try:
            return self._read(n)
        except KeyboardInterrupt:
            self.interrupted = True
        except OSError as error:
            self.error = error.strerror or str(error)
        return b""

    def _read(self, n: int) -> bytes:
        return self._file.read(n)


class _Growing(_Reader):
    def __init__(self, file: BinaryIO, idle_s: float | None) -> None:
        super().__init__(file)
        self._idle_s = idle_s

    def _read(self, n: int) -> bytes:
        waited = 0.0
        while not (data := self._file.read(n)):
            if self._idle_s is not None and waited >= self._idle_s:
                break
            time.sleep(_LOOK_AGAIN_S)
            waited += _LOOK_AGAIN_S
        return data
