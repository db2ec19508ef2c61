"""What the containers promise: is the file as long as its own headers say?

Each function reads a few headers and gives a :class:`Promise`. The decoders return the half of a
truncated file without an error, so this is how one is told from a whole file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from encoders.audio import mpeg
from encoders.audio.source import Source

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Bytes of an unknown tag or of padding after the last frame that mean no harm.
_MAX_TRAILING = 4096
_EBML_SEGMENT, _EBML_CLUSTER = 0x18538067, 0x1F43B675


@dataclasses.dataclass
class Promise:
    """What the headers of a file say about its length."""

    seconds: float | None = None
    """Length of the audio; None if the headers do not say, or the decoder reads them itself."""
    fault: str | None = None
    """Why the file cannot be whole."""
    is_cut: bool = False
    """The fault is that bytes lack at the end."""
    needs_ffmpeg: bool = False
    """libsndfile would miss audio that FFmpeg finds."""

    @classmethod
    def cut(cls, reason: str, seconds: float | None = None) -> Promise:
        """A file that lacks bytes at the end."""
        return cls(seconds, reason, is_cut=True)

    @property
    def kind(self) -> str:
        """The word for the fault."""
        return "truncated" if self.is_cut else "damaged"

    @property
    def verdict(self) -> str | None:
        """The fault with its kind, for a person."""
        return f"{self.kind}: {self.fault}" if self.fault is not None else None


def _chunks(source: Source, byteorder: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stated length of the chunks of a RIFF or IFF file."""
    position = 12
    while position + 8 <= source.size:
        head = source.read_at(position, 8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little" if byteorder == "little" else "big")
        yield head[:4], position + 8, length
        position += 8 + length + (length & 1)


def _is_placeholder(length: int) -> bool:
    """Whether a writer that could not go back left this length: it means "to the end"."""
    return length >= 0xFFFFFF00 or 0x7FFFEF00 <= length <= 0x80000000


def _is_chunk(source: Source, position: int) -> bool:
    """Whether a whole RIFF chunk, or the end of the file, is at a position."""
    head = source.read_at(position, 8)
    end = position + 8 + int.from_bytes(head[4:], "little")
    return len(head) < 8 or (head[:4].isascii() and end <= source.size)


def riff(source: Source) -> Promise:
    """WAV, RF64 and BW64: the length of the data chunk."""
    bytes_per_second = 0
    long_length = None
    for name, start, length in _chunks(source, "little"):
        if name == b"ds64":
            long_length = int.from_bytes(source.read_at(start + 8, 8), "little")
        elif name == b"fmt ":
            head = source.read_at(start, 16)
            rate, stated = (int.from_bytes(head[i : i + 4], "little") for i in (4, 8))
            block_align = int.from_bytes(head[12:14], "little")
            is_pcm = int.from_bytes(head[:2], "little") in (1, 3, 6, 7, 0xFFFE)
            bytes_per_second = rate * block_align if is_pcm else stated
        elif name == b"data":
            if length == 0xFFFFFFFF and long_length:
                length = long_length
            if length == 0 and not _is_chunk(source, start):
                return Promise(needs_ffmpeg=True)
            if start + length <= source.size or (_is_placeholder(length) and length != long_length):
                return Promise()
            seconds = length / bytes_per_second if bytes_per_second else None
            return Promise.cut("the data chunk is longer than the file", seconds)
    return Promise()


def aiff(source: Source) -> Promise:
    """AIFF and AIFF-C: the lengths of the COMM and SSND chunks."""
    seconds = None
    for name, start, length in _chunks(source, "big"):
        if name == b"COMM":
            comm = source.read_at(start, 18)
            exponent = int.from_bytes(comm[8:10], "big") & 0x7FFF
            mantissa = int.from_bytes(comm[10:18], "big")
            rate = mantissa * 2.0 ** (min(exponent, 16_500) - 16_446) if exponent < 16_500 else 0.0
            seconds = int.from_bytes(comm[2:6], "big") / rate if rate > 0 else None
        elif name == b"SSND" and start + length > source.size:
            return Promise.cut("the sound chunk is longer than the file", seconds)
    return Promise()


def flac(source: Source) -> Promise:
    """FLAC: the samples that STREAMINFO counts."""
    info = source.read_at(mpeg.id3v2_length(source) + 4, 26)
    if len(info) < 26:
        return Promise.cut("the header is cut off")
    packed = int.from_bytes(info[14:22], "big")
    rate, n_samples = packed >> 44, packed & (1 << 36) - 1
    return Promise(n_samples / rate if rate and n_samples else None)


def mp3(source: Source, start: int, first: mpeg.Frame) -> Promise:
    """MPEG audio: the Xing, Info or VBRI header if there is one, and every frame header."""
    end = mpeg.audio_end(source, start)
    promise = _walked(mpeg.walk(source, start, end, mpeg.parse_mpeg, first.key))
    stated = mpeg.xing_frames(source.read_at(start, max(first.length, 192)), first)
    if stated is not None:
        n_samples, n_bytes = stated
        promise.seconds = n_samples / first.sample_rate
        # Some writers count the tags too.
        promise.is_cut |= n_bytes > 1.01 * (source.size - start)
    # libsndfile's mpg123 gives up after 1 KB of garbage, and prints what it thinks of it.
    promise.needs_ffmpeg = promise.fault is not None or promise.is_cut
    return promise


def adts(source: Source, start: int, first: mpeg.Frame) -> Promise:
    """ADTS promises nothing: every frame header is looked at."""
    end = mpeg.audio_end(source, start)
    return _walked(mpeg.walk(source, start, end, mpeg.parse_adts, first.key))


def _walked(walk: mpeg.Walk) -> Promise:
    foreign = walk.n_foreign + (walk.n_trailing if walk.n_trailing > _MAX_TRAILING else 0)
    if foreign:
        return Promise(fault=f"{foreign} bytes between the frames are not audio")
    return Promise.cut("the last frame is cut off") if walk.is_cut else Promise()


def ogg(source: Source) -> Promise:
    """Ogg: whole pages in sequence, and at the end one with the end-of-stream flag (RFC 3533)."""
    sequence: dict[bytes, int] = {}
    flags, n_foreign, n_missing, is_chained, has_data = 0, 0, 0, False, False
    position = 0
    while position < source.size:
        head = source.read_at(position, 27 + 255)
        if head[:5] != b"OggS\0" or len(head) < 27:
            if len(head) < 27 and head[:4] == b"OggS"[: len(head)]:
                return Promise.cut("the last page is cut off")
            following = _find(source, b"OggS\0", position + 1)
            if following < 0:
                break
            n_foreign += following - position
            position = following
            continue
        flags, serial = head[5], head[14:18]
        number = int.from_bytes(head[18:22], "little")
        is_chained |= bool(flags & 2) and has_data
        has_data |= not flags & 2
        n_missing += max(0, number - sequence.get(serial, number - 1) - 1)
        sequence[serial] = number
        table = head[27 : 27 + head[26]]
        position += 27 + head[26] + sum(table)
    if position > source.size:
        promise = Promise.cut("the last page is cut off")
    elif not flags & 4:
        promise = Promise.cut("the end-of-stream page is missing")
    else:
        promise = Promise()
    if n_foreign or n_missing:
        promise.fault = f"{n_missing} pages are missing, {n_foreign} bytes are not Ogg"
    # libsndfile decodes only the first of several streams, and where pages are lost it moves the
    # rest forward.
    promise.needs_ffmpeg = is_chained or n_foreign > 0 or n_missing > 0
    return promise


def _find(source: Source, pattern: bytes, start: int) -> int:
    """The first position of ``pattern`` at or after ``start``, or -1."""
    while data := source.read_at(start, 1 << 16):
        at = data.find(pattern)
        if at >= 0:
            return start + at
        start += max(1, len(data) - len(pattern) + 1)
    return -1


def mp4(source: Source) -> Promise:
    """MP4, M4A, MOV: every top-level box must end inside the file."""
    position, names = 0, set()
    while position + 8 <= source.size:
        head = source.read_at(position, 16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = source.size - position
        if length < 8 or not name.isascii():
            break
        names.add(name)
        if position + length > source.size:
            return Promise.cut(f"the {name.decode()!r} box is longer than the file")
        position += length
    return Promise() if b"moov" in names else Promise.cut("the 'moov' box is missing")


def asf(source: Source) -> Promise:
    """ASF (WMA): the file size that the header states."""
    header = source.read_at(0, 1 << 16)
    at = header.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(header):
        return Promise()
    n_bytes = int.from_bytes(header[at + 40 : at + 48], "little")
    play_duration, preroll = (
        int.from_bytes(header[at + i : at + i + 8], "little") for i in (64, 80)
    )
    is_broadcast = header[at + 88] & 1
    if n_bytes > source.size and not is_broadcast:
        seconds = max(0.0, play_duration / 1e7 - preroll / 1e3)
        return Promise.cut(
            f"the header states {n_bytes} bytes, the file has {source.size}", seconds or None
        )
    return Promise()


def _vint(data: bytes, i: int, keep_marker: bool) -> tuple[int, int] | None:
    """An EBML number: its value and the position after it."""
    if i >= len(data) or data[i] == 0:
        return None
    n = 9 - data[i].bit_length()
    if i + n > len(data):
        return None
    value = int.from_bytes(data[i : i + n], "big")
    return (value if keep_marker else value & (1 << 7 * n) - 1), i + n


def matroska(source: Source) -> Promise:
    """Matroska and WebM: every element must end inside the file; live writers leave sizes open."""
    position = 0
    while position < source.size:
        head = source.read_at(position, 12)
        element = _vint(head, 0, keep_marker=True)
        size = _vint(head, element[1], keep_marker=False) if element else None
        if element is None or size is None:
            # Inside the 12 bytes read, so this is the end of the file or no EBML at all.
            return Promise.cut("the last element is cut off") if len(head) < 12 else Promise()
        is_open = size[0] == (1 << 7 * (size[1] - element[1])) - 1
        if not is_open and position + size[1] + size[0] > source.size:
            return Promise.cut("the last element is longer than the file")
        if is_open and element[0] not in (_EBML_SEGMENT, _EBML_CLUSTER):
            return Promise()
        position += size[1] + (0 if is_open else size[0])
    return Promise()
