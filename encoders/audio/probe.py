"""Which format is it? By content, never by name."""

from __future__ import annotations

import dataclasses

from encoders.audio import containers, mpeg
from encoders.audio.containers import Promise
from encoders.audio.source import Source
from encoders.errors import AudioError


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the first bytes and the headers of a source tell.

    Parameters
    ----------
    container : str
        wav, aiff, flac, ogg, mp3, aac (ADTS), mp4, asf, matroska or webm.
    demuxer : str
        FFmpeg's name for the container. It is always forced, so that no playlist and no
        protocol handler of FFmpeg can be reached by a file's content.
    promise : Promise
        What the headers say about the length.
    by_soundfile : bool
        libsndfile decodes it, and PyAV only if libsndfile refuses.
    """

    container: str
    demuxer: str
    promise: Promise
    by_soundfile: bool


def probe(source: Source) -> Probe:
    """Recognise a source.

    Raises
    ------
    AudioError
        Stage ``"probe"``: none of the known formats.
    """
    head = source.read_at(0, 64)
    if source.error is not None:
        raise AudioError("open", source.error)
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        promise = containers.riff(source) if head[:4] != b"RIFX" else Promise()
        return Probe("wav", "wav", promise, not promise.needs_ffmpeg)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Probe("aiff", "aiff", containers.aiff(source), True)
    if head[:4] == b"OggS":
        promise = containers.ogg(source)
        # FFmpeg takes half as long for Opus.
        by_soundfile = b"\x01vorbis" in head or b"\x7fFLAC" in head
        return Probe("ogg", "ogg", promise, by_soundfile and not promise.needs_ffmpeg)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Probe("mp4", "mp4", containers.mp4(source), False)
    if head[:4] == b"\x1aE\xdf\xa3":
        container = "webm" if b"webm" in head else "matroska"
        return Probe(container, "matroska", containers.matroska(source), False)
    if head[:4] == b"0&\xb2u":
        return Probe("asf", "asf", containers.asf(source), False)
    start = mpeg.id3v2_length(source)
    if source.read_at(start, 4) == b"fLaC":
        return Probe("flac", "flac", containers.flac(source), True)
    return _probe_frames(source, start, head)


def _probe_frames(source: Source, start: int, head: bytes) -> Probe:
    adts = mpeg.first_frame(source, start, mpeg.parse_adts)
    if adts is not None:
        return Probe("aac", "aac", containers.adts(source, *adts), False)
    mp3 = mpeg.first_frame(source, start, mpeg.parse_mpeg)
    if mp3 is not None:
        promise = containers.mp3(source, *mp3)
        return Probe("mp3", "mp3", promise, not promise.needs_ffmpeg)
    if start > source.size:
        raise AudioError("probe", "truncated: the file ends inside its ID3 tag")
    if start:
        raise AudioError("probe", "an ID3 tag and no audio after it")
    if not any(head):
        raise AudioError("probe", "no audio format recognised: it starts with zeros")
    is_text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    raise AudioError("probe", "no audio format recognised" + (": it is text" if is_text else ""))
