"""Real codecs, there and back."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import soxr


@dataclasses.dataclass(frozen=True)
class Codec:
    """A real encoder to go through and come back from.

    Parameters
    ----------
    encoder : str
        FFmpeg's name of the encoder, or ``"gsm"`` for GSM 06.10 by libsndfile.
    container : str
        FFmpeg's name of the format to write.
    sample_rate : int
        Hz on the wire.
    bit_rate : int
        Bits per second; 0 = the codec's own.
    delay : int
        Samples on the wire by which it is late, beyond what its container makes good.
    """

    encoder: str
    container: str
    sample_rate: int
    bit_rate: int = 0
    delay: int = 0


CODECS: dict[str, Codec] = {
    "mp3-64k": Codec("libmp3lame", "mp3", 44_100, 64_000),
    "mp3-24k": Codec("libmp3lame", "mp3", 22_050, 24_000),
    "opus-12k": Codec("libopus", "ogg", 48_000, 12_000),
    "opus-6k": Codec("libopus", "ogg", 48_000, 6_000),
    "amr-12k": Codec("libopencore_amrnb", "amr", 8_000, 12_200, delay=40),
    "gsm": Codec("gsm", "wav", 8_000),
}


def transcode(signal: np.ndarray, sample_rate: int, codec: str) -> np.ndarray:
    """Encode with a real codec and decode again.

    Parameters
    ----------
    codec : str
        A key of :data:`CODECS`.

    Returns
    -------
    decoded : np.ndarray
        At the same rate and of the same length as ``signal``.
    """
    if len(signal) == 0:
        return signal
    wire = CODECS[codec]
    sent = np.clip(_resample(signal, sample_rate, wire.sample_rate), -1.0, 1.0)
    heard = _gsm(sent, wire) if wire.encoder == "gsm" else _ffmpeg(sent, wire)
    back = _resample(heard[wire.delay :], wire.sample_rate, sample_rate)[: len(signal)]
    return np.pad(back, (0, len(signal) - len(back)))


def _resample(signal: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    if source_rate == target_rate:
        return signal
    return soxr.resample(signal, source_rate, target_rate, quality="MQ")


def _gsm(signal: np.ndarray, wire: Codec) -> np.ndarray:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, signal, wire.sample_rate, format="WAV", subtype="GSM610")
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


def _ffmpeg(signal: np.ndarray, wire: Codec) -> np.ndarray:
    import av

    buffer = io.BytesIO()
    pcm = np.round(signal * 32767).astype(np.int16)
    with av.open(buffer, "w", format=wire.container) as out:
        stream = out.add_stream(wire.encoder, rate=wire.sample_rate, layout="mono")
        if wire.bit_rate:
            stream.bit_rate = wire.bit_rate
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = wire.sample_rate
        to_codec = av.AudioResampler(format=stream.format, layout="mono", rate=wire.sample_rate)
        fifo = av.AudioFifo()
        for converted in to_codec.resample(frame):
            fifo.write(converted)
        size = stream.codec_context.frame_size or 1024
        while piece := fifo.read(size, partial=True):
            piece.pts = None
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as back:
        to_float = av.AudioResampler(format="flt", layout="mono", rate=wire.sample_rate)
        frames = [f for packet in back.decode(audio=0) for f in to_float.resample(packet)]
        frames += to_float.resample(None)
    return np.concatenate([f.to_ndarray()[0] for f in frames])
