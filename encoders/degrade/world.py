"""All of it at random, for training pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from encoders.degrade.codecs import CODECS, transcode
from encoders.degrade.devices import clip_peaks, control_gain, drop_out, microphone
from encoders.degrade.noise import NoiseSource, add_noise, babble, colored_noise, drone
from encoders.degrade.rooms import reverberate
from encoders.degrade.tempo import change_speed


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
    p_respeed, p_drone : float
        How often a background is played at another speed, up to a third faster or slower, and
        how often it is smeared into a drone: hours of ambience from minutes.
    p_agc, p_microphone, p_clip, p_codec, p_dropout : float
        How often the level is controlled, a small loudspeaker and microphone are in the way, peaks
        are cut off, the sound goes through a codec, and moments of it are lost.
    """

    sample_rate: int
    noises: Sequence[NoiseSource]
    rooms: np.ndarray
    voices: Sequence[NoiseSource] = ()
    snr_db: tuple[float, float] = (-6.0, 13.0)
    p_room: float = 0.5
    p_noise: float = 0.9
    p_second: float = 0.2
    p_respeed: float = 0.4
    p_drone: float = 0.15
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
            return self._varied(self.noises[which], n_samples, rng)
        if which == len(self.noises):
            return colored_noise(n_samples, rng.uniform(0, 2), rng)
        voices = self.voices[int(rng.integers(len(self.voices)))]
        return babble(voices, n_samples, int(rng.choice([1, 1, 2, 4, 6])), rng)

    def _varied(self, source: NoiseSource, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        # Speeds by soxr's quickest resampler give or take a sample: cut a little more than needed.
        speed = float(np.exp(rng.uniform(-0.29, 0.29))) if rng.random() < self.p_respeed else 1.0
        sound = source.excerpt(int(n_samples * speed) + 16, rng)
        if speed != 1.0:
            sound = change_speed(sound, speed)
        sound = sound[:n_samples]
        return drone(sound, rng) if rng.random() < self.p_drone else sound
