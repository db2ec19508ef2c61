"""What the world does to sound: noise, rooms, codecs, microphones, speed.

Every function takes and gives mono float32 at one rate and keeps time: sample ``n`` of the result
is sample ``n`` of the input (of :func:`change_speed` and :func:`change_tempo`: ``n * speed``).
Training and evaluation use the same functions; a ``numpy.random.Generator`` makes them repeatable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import soxr

ROOMS_FILE = Path(__file__).parent / "data" / "rooms.npy"


class NoiseSource(Protocol):
    """Where background sound comes from."""

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Give ``n_samples`` of some recording, at random."""


def add_noise(signal: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix in background sound.

    Parameters
    ----------
    signal, noise : np.ndarray [shape=(n,)]
        Of equal length. When either is silent the signal comes back unchanged.
    snr_db : float
        Power of the signal over that of the noise, both taken over the whole stretch.
    """
    signal_power = float(np.mean(np.square(signal)))
    noise_power = float(np.mean(np.square(noise)))
    if signal_power == 0.0 or noise_power == 0.0:
        return signal
    gain = np.sqrt(signal_power / noise_power / 10.0 ** (snr_db / 10.0))
    return signal + np.float32(gain) * noise


def colored_noise(n_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as ``1 / f ** exponent``: 0 is white, 1 pink, 2 brown."""
    size = scipy.fft.next_fast_len(n_samples, real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-exponent / 2)
    return scipy.fft.irfft(spectrum, size)[:n_samples]


def filter_response(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Apply a frequency response sampled evenly from 0 Hz to Nyquist, without delay.

    Parameters
    ----------
    response : np.ndarray [shape=(n_points,)]
        Linear gain, real.
    """
    size = scipy.fft.next_fast_len(len(signal), real=True)
    spectrum = scipy.fft.rfft(signal, size)
    points = np.linspace(0, len(response) - 1, len(spectrum))
    spectrum *= np.interp(points, np.arange(len(response)), response).astype(np.float32)
    return scipy.fft.irfft(spectrum, size)[: len(signal)]


def microphone(signal: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A small loudspeaker and a phone microphone: band limits, uneven response, soft clipping."""
    low, high = rng.uniform(80, 400), rng.uniform(3000, 7500)
    bands = np.linspace(0, sample_rate / 2, 65)
    tilt = np.interp(np.arange(65), np.arange(0, 65, 8), rng.normal(0, 5, 9))
    # Second-order slopes outside the pass band.
    edges = -10 * np.log10(1 + (low / np.maximum(bands, 1)) ** 4) - 10 * np.log10(
        1 + (bands / high) ** 8
    )
    heard = filter_response(signal, 10 ** ((tilt + edges) / 20))
    peak = float(np.max(np.abs(heard), initial=0.0))
    if peak == 0.0:
        return heard
    drive = rng.uniform(0.5, 2.5)
    return (np.tanh(heard * (drive / peak)) * (peak / drive)).astype(np.float32)


def reverberate(signal: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """Play the signal in a room; the direct sound keeps its place in time.

    Parameters
    ----------
    impulse_response : np.ndarray [shape=(n_taps,)]
        Its strongest tap is taken for the direct sound.
    """
    direct = int(np.argmax(np.abs(impulse_response)))
    wet = scipy.signal.fftconvolve(signal, impulse_response)
    return wet[direct : direct + len(signal)].astype(np.float32)


def change_speed(signal: np.ndarray, speed: float) -> np.ndarray:
    """Play faster (``speed > 1``) or slower: pitch and tempo change together."""
    return soxr.resample(signal, speed, 1.0, quality="QQ" if abs(speed - 1) < 0.1 else "HQ")


def babble(
    voices: NoiseSource, n_samples: int, n_voices: int, rng: np.random.Generator
) -> np.ndarray:
    """Several voices at once, each about as loud as the others [shape=(n_samples,)]."""
    mix = voices.excerpt(n_samples, rng)
    for _ in range(n_voices - 1):
        mix = add_noise(mix, voices.excerpt(n_samples, rng), rng.uniform(-3.0, 3.0))
    return mix


def control_gain(signal: np.ndarray, sample_rate: int, strength: float) -> np.ndarray:
    """Automatic gain control: loud stretches are turned down, soft ones up.

    Parameters
    ----------
    strength : float
        0 changes nothing; 1 brings every half second to the same level, within 20 dB.
    """
    level = scipy.ndimage.uniform_filter1d(np.square(signal), max(1, sample_rate // 2))
    mean = float(np.mean(level))
    if mean == 0.0:
        return signal
    gain = np.sqrt(np.clip(level / mean, 0.01, 100.0)) ** -strength
    return (signal * gain).astype(np.float32)


def clip_peaks(signal: np.ndarray, share: float) -> np.ndarray:
    """Cut off the loudest ``share`` of the samples, as an overdriven input does."""
    if len(signal) == 0:
        return signal
    limit = np.quantile(np.abs(signal), 1.0 - share).astype(np.float32)
    return np.clip(signal, -limit, limit)


def drop_out(signal: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Lose packets: about one gap of 20 to 120 ms in a second is silent."""
    heard = signal.copy()
    for _ in range(rng.poisson(len(signal) / sample_rate)):
        start = int(rng.integers(len(signal)))
        heard[start : start + int(rng.uniform(0.02, 0.12) * sample_rate)] = 0.0
    return heard


def change_tempo(signal: np.ndarray, sample_rate: int, tempo: float) -> np.ndarray:
    """Play faster (``tempo > 1``) or slower at the same pitch, by FFmpeg's ``atempo``.

    Sample ``n`` of the result is ``n * tempo`` of the input, to about 20 ms: it is made of pieces.
    """
    import av

    # Pieces run ahead of a slower tempo, and lag behind a faster one, by 10 to 20 ms.
    ahead = round(0.014 * sample_rate) * int(np.sign(1 - tempo))
    lead = sample_rate // 4
    padded = np.pad(signal.astype(np.float32), (lead + ahead, lead), mode="symmetric")
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")
    graph.link_nodes(source, graph.add("atempo", f"{tempo:.6f}"), graph.add("abuffersink"))
    graph.configure()
    frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
    frame.sample_rate = sample_rate
    graph.push(frame)
    graph.push(None)
    pieces = []
    with contextlib.suppress(av.EOFError):
        while True:
            pieces.append(graph.pull().to_ndarray()[0])
    first = round(lead / tempo)
    return np.concatenate(pieces)[first : first + round(len(signal) / tempo)]


def change_pitch(signal: np.ndarray, sample_rate: int, cents: float) -> np.ndarray:
    """Play higher (``cents > 0``) or lower at the same tempo; the length may differ by a sample."""
    ratio = 2.0 ** (cents / 1200)
    return change_tempo(change_speed(signal, ratio), sample_rate, 1 / ratio)


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


def simulate_rooms(n_rooms: int, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Impulse responses of random shoebox rooms by the image-source method (pyroomacoustics).

    Needs the ``train`` extra.

    Returns
    -------
    responses : np.ndarray [shape=(n_rooms, n_taps), dtype=float32]
        1 s each; the direct sound has unit gain. RT60 is drawn from 0.2 to 1.2 s.
    """
    import pyroomacoustics

    rng = np.random.default_rng(seed)
    n_taps = sample_rate
    responses = np.zeros((n_rooms, n_taps), np.float32)
    for response in responses:
        size = rng.uniform([2.5, 2.5, 2.2], [9.0, 7.0, 4.0])
        # Sabine's formula has no solution for a short RT60 in a large room: draw within its reach.
        rt60 = rng.uniform(0.1 + 0.02 * size.max(), 1.15)
        absorption, _ = pyroomacoustics.inverse_sabine(rt60, size)
        room = pyroomacoustics.ShoeBox(
            size,
            fs=sample_rate,
            materials=pyroomacoustics.Material(min(absorption, 0.99)),
            # So many reflections carry the tail of the liveliest of these rooms.
            max_order=35,
        )
        source, listener = rng.uniform(0.15, 0.85, (2, 3)) * size
        room.add_source(source)
        room.add_microphone(listener)
        room.compute_rir()
        taps = np.asarray(room.rir[0][0], np.float32)
        taps = taps[int(np.argmax(np.abs(taps))) :][:n_taps]
        response[: len(taps)] = taps / np.abs(taps).max()
    return responses


@functools.lru_cache(maxsize=1)
def shipped_rooms() -> np.ndarray:
    """A few rooms that come with the package, at 16 kHz [shape=(n_rooms, n_taps)]."""
    return np.load(ROOMS_FILE, allow_pickle=False).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class World:
    """A random way through the world, for training pairs.

    Parameters
    ----------
    sample_rate : int
    noises : sequence of NoiseSource
        Background sound: ambience, effects, other music. Coloured noise is always among them.
    rooms : np.ndarray [shape=(n_rooms, n_taps)]
        Impulse responses at ``sample_rate``.
    voices : sequence of NoiseSource
        Speech: heard one at a time or as babble.
    snr_db : tuple of float
        Range of the signal-to-noise ratio.
    p_room, p_noise, p_second : float
        How often there is a room; a background; a second background under the first.
    p_agc, p_microphone, p_clip, p_codec, p_dropout : float
        How often the level is controlled, a small loudspeaker and microphone are in the way, peaks
        are cut off, the sound goes through a codec, and moments of it are lost.
    """

    sample_rate: int
    noises: Sequence[NoiseSource]
    rooms: np.ndarray
    voices: Sequence[NoiseSource] = ()
    snr_db: tuple[float, float] = (-5.0, 15.0)
    p_room: float = 0.5
    p_noise: float = 0.85
    p_second: float = 0.2
    p_agc: float = 0.2
    p_microphone: float = 0.5
    p_clip: float = 0.1
    p_codec: float = 0.08
    p_dropout: float = 0.1

    def __call__(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degrade ``signal`` at random; same length, same timing."""
        if rng.random() < self.p_room:
            signal = reverberate(signal, self.rooms[rng.integers(len(self.rooms))])
        if rng.random() < self.p_noise:
            noise = self.background(len(signal), rng)
            if rng.random() < self.p_second:
                other = self.background(len(signal), rng)
                noise = add_noise(noise, other, rng.uniform(0.0, 10.0))
            signal = add_noise(signal, noise, rng.uniform(*self.snr_db))
        if rng.random() < self.p_agc:
            signal = control_gain(signal, self.sample_rate, rng.uniform(0.3, 1.0))
        if rng.random() < self.p_microphone:
            signal = microphone(signal, self.sample_rate, rng)
        if rng.random() < self.p_clip:
            signal = clip_peaks(signal, rng.uniform(0.005, 0.05))
        if rng.random() < self.p_codec:
            peak = max(float(np.max(np.abs(signal))), 1e-6)
            codec = list(CODECS)[rng.integers(len(CODECS))]
            signal = transcode(signal * np.float32(0.7 / peak), self.sample_rate, codec)
        if rng.random() < self.p_dropout:
            signal = drop_out(signal, self.sample_rate, rng)
        return signal

    def background(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """What sounds beside the signal, at any level [shape=(n_samples,)]."""
        which = int(rng.integers(len(self.noises) + 1 + bool(self.voices)))
        if which < len(self.noises):
            return self.noises[which].excerpt(n_samples, rng)
        if which == len(self.noises):
            return colored_noise(n_samples, rng.uniform(0, 2), rng)
        voices = self.voices[int(rng.integers(len(self.voices)))]
        return babble(voices, n_samples, int(rng.choice([1, 1, 2, 4, 6])), rng)
