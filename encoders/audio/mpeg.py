"""MPEG audio (mp3) and ADTS (aac) frame streams: headers, tags, and walks from frame to frame."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

from encoders.audio.source import Source

_CHUNK = 1 << 20
# Bytes searched for the first frame, and for the last ones.
_SEARCH = 1 << 16

_BITRATES = {  # kbit/s by (MPEG 1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = (44_100, 48_000, 32_000)
_AAC_RATES = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)


class Frame(NamedTuple):
    """One frame header. ``key`` holds what does not change within a stream."""

    length: int
    n_samples: int
    sample_rate: int
    key: int


Parser = Callable[[bytes, int], "Frame | None"]


@functools.lru_cache(maxsize=4096)
def _mpeg_frame(b1: int, b2: int) -> Frame | None:
    version, layer = b1 >> 3 & 3, 4 - (b1 >> 1 & 3)
    bitrate_index, rate_index = b2 >> 4, b2 >> 2 & 3
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    mpeg1 = version == 3
    bitrate = 1000 * _BITRATES[mpeg1, layer][bitrate_index]
    rate = _MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = b2 >> 1 & 1
    n_samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    if layer == 1:
        length = (12 * bitrate // rate + padding) * 4
    else:
        length = n_samples // 8 * bitrate // rate + padding
    return Frame(length, n_samples, rate, version << 8 | layer << 4 | rate_index)


def parse_mpeg(data: bytes, i: int) -> Frame | None:
    """The MPEG-1/2/2.5 layer I-III frame header at ``data[i]``, if there is one."""
    if i + 4 > len(data) or data[i] != 0xFF or data[i + 1] & 0xE0 != 0xE0:
        return None
    return _mpeg_frame(data[i + 1], data[i + 2])


def parse_adts(data: bytes, i: int) -> Frame | None:
    """The ADTS frame header (ISO 13818-7) at ``data[i]``, if there is one."""
    if i + 7 > len(data) or data[i] != 0xFF or data[i + 1] & 0xF6 != 0xF0:
        return None
    rate_index = data[i + 2] >> 2 & 15
    length = (data[i + 3] & 3) << 11 | data[i + 4] << 3 | data[i + 5] >> 5
    if rate_index >= len(_AAC_RATES) or length < 8:
        return None
    n_samples = 1024 * ((data[i + 6] & 3) + 1)
    return Frame(length, n_samples, _AAC_RATES[rate_index], data[i + 1] << 8 | data[i + 2] & 0xFC)


def _id3v2_length_at(data: bytes, i: int) -> int:
    head = data[i : i + 10]
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def id3v2_length(source: Source) -> int:
    """Bytes taken by the ID3v2 tags at the start of a file."""
    position = 0
    while length := _id3v2_length_at(source.read_at(position, 10), 0):
        position += length
    return position


def audio_end(source: Source, start: int) -> int:
    """Position after the last audio byte, before the ID3v1, Lyrics3 and APE tags."""
    end = source.size
    if source.read_at(max(start, end - 128), 3) == b"TAG" and end - start >= 128:
        end -= 128
    lyrics = source.read_at(max(start, end - 15), 15)
    if lyrics[6:] == b"LYRICS200" and lyrics[:6].isdigit():
        end -= 15 + int(lyrics[:6])
    footer = source.read_at(max(start, end - 32), 32)
    if footer[:8] == b"APETAGEX":
        has_header = footer[23] & 0x80
        end -= int.from_bytes(footer[12:16], "little") + (32 if has_header else 0)
    return max(start, end)


def _in_sync(data: bytes, i: int, parse: Parser, key: int | None, n: int, final: bool) -> bool:
    """Whether ``n`` frames of one stream follow each other from ``data[i]``."""
    for _ in range(n):
        frame = parse(data, i)
        if frame is None or (key is not None and frame.key != key):
            return False
        key = frame.key
        i += frame.length
        if final and i >= len(data) - 3:
            return True
    return True


def first_frame(source: Source, start: int, parse: Parser) -> tuple[int, Frame] | None:
    """The first frame of a stream, after at most 64 KB of something else.

    Returns
    -------
    position : int
    frame : Frame
    """
    data = source.read_at(start, _SEARCH + 8192)
    final = start + len(data) >= source.size
    i = data.find(b"\xff")
    while 0 <= i < _SEARCH:
        # Only at the very start may the end of the file stand in for the frames that follow.
        if _in_sync(data, i, parse, None, 3, final and not data[:i].strip(b"\0")):
            frame = parse(data, i)
            assert frame is not None
            return start + i, frame
        i = data.find(b"\xff", i + 1)
    return None


@dataclasses.dataclass
class Walk:
    """What a walk from frame to frame met."""

    n_frames: int = 0
    n_samples: int = 0
    n_foreign: int = 0
    """Bytes between two frames that belong to neither."""
    n_trailing: int = 0
    """Bytes after the last frame."""
    is_cut: bool = False
    """The last frame goes on after the end of the file."""


def walk(source: Source, start: int, end: int, parse: Parser, key: int) -> Walk:
    """Go from frame header to frame header between two positions, in 1 MB reads."""
    result = Walk()
    data, base, i, lost_at = b"", start, 0, -1
    while base + i < end:
        if len(data) - i < 16_384 and base + len(data) < end:
            base, i = base + i, 0
            data = source.read_at(base, min(_CHUNK, end - base))
            if not data:
                break
        final = base + len(data) >= end
        frame = parse(data, i)
        if frame is not None and frame.key == key and lost_at < 0:
            result.n_frames += 1
            result.n_samples += frame.n_samples
            i += frame.length
            if final and i > len(data):
                result.is_cut = True
                result.n_frames -= 1
                result.n_samples -= frame.n_samples
            continue
        if lost_at < 0:
            tag = _id3v2_length_at(data, i)
            if tag:  # two files in one
                base, i, data = base + i + tag, 0, b""
                continue
            lost_at = base + i
        elif frame is not None and _in_sync(data, i, parse, key, 3, final):
            result.n_foreign += base + i - lost_at
            lost_at = -1
            continue
        following = data.find(b"\xff", i + 1)
        i = following if following >= 0 else len(data)
    if lost_at >= 0:
        result.n_trailing = end - lost_at
    return result


def xing_frames(data: bytes, frame: Frame) -> tuple[int, int] | None:
    """What the Xing, Info or VBRI header in the first frame promises.

    Parameters
    ----------
    data : bytes
        The first frame.

    Returns
    -------
    n_samples : int
        Samples per channel, without the encoder's delay and padding when LAME noted them.
    n_bytes : int
        Length of the stream; 0 if unknown.
    """
    for magic in (b"Xing", b"Info"):
        at = data.find(magic, 4, 64)
        if at < 0:
            continue
        flags = int.from_bytes(data[at + 4 : at + 8], "big")
        if not flags & 1:
            return None
        n_frames = int.from_bytes(data[at + 8 : at + 12], "big")
        n_bytes = int.from_bytes(data[at + 12 : at + 16], "big") if flags & 2 else 0
        tag = at + 8 + sum(n for bit, n in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
        gap = int.from_bytes(data[tag + 21 : tag + 24], "big") if data[tag : tag + 1] > b" " else 0
        n_samples = n_frames * frame.n_samples - (gap >> 12) - (gap & 0xFFF)
        return max(0, n_samples), n_bytes
    if data[36:40] == b"VBRI":
        n_bytes, n_frames = int.from_bytes(data[46:50], "big"), int.from_bytes(data[50:54], "big")
        return n_frames * frame.n_samples, n_bytes
    return None
