"""What the world does to sound: noise, rooms, codecs, microphones, speed.

Every function takes and gives mono float32 at one rate and keeps time: sample ``n`` of the result
is sample ``n`` of the input (of :func:`change_speed` and :func:`change_tempo`: ``n * speed``).
Training and evaluation use the same functions; a ``numpy.random.Generator`` makes them repeatable.
"""

from __future__ import annotations

from encoders.degrade.codecs import CODECS, Codec, transcode
from encoders.degrade.devices import (
    clip_peaks,
    control_gain,
    drop_out,
    filter_response,
    microphone,
)
from encoders.degrade.noise import NoiseSource, add_noise, babble, colored_noise, drone
from encoders.degrade.rooms import reverberate, shipped_rooms, simulate_rooms
from encoders.degrade.tempo import change_pitch, change_speed, change_tempo
from encoders.degrade.world import World

__all__ = [
    "CODECS",
    "Codec",
    "NoiseSource",
    "World",
    "add_noise",
    "babble",
    "change_pitch",
    "change_speed",
    "change_tempo",
    "clip_peaks",
    "colored_noise",
    "control_gain",
    "drone",
    "drop_out",
    "filter_response",
    "microphone",
    "reverberate",
    "shipped_rooms",
    "simulate_rooms",
    "transcode",
]
