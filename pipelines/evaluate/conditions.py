"""What happens to queries before anybody hears them: each condition by name, in one place."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from encoders import degrade
from encoders.corpus import Item, PcmCache
from encoders.errors import EarmarkError
from index.storage import write_atomically
from pipelines.evaluate.references import SAMPLE_RATE
from pipelines.evaluate.selection import Selection

N_ROOMS = 60
# Far from the seeds of training: no room of these has been learnt.
ROOMS_SEED = 1000
MIN_LEVEL_DB = -50.0
"""Of queries, and of what sounds behind them: RMS re full scale."""

_LEAD_S = 1.0
_TAIL_S = 0.1
# Peaks above that are turned down with all the rest.
_FULL_SCALE = 0.99


class Sounding:
    """A :class:`~encoders.degrade.NoiseSource` that leaves out stretches of near silence."""

    def __init__(self, source: degrade.NoiseSource) -> None:
        self._source = source

    def excerpt(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Give ``n_samples`` of some recording, at random."""
        for _ in range(50):
            signal = self._source.excerpt(n_samples, rng)
            if level_db(signal) >= MIN_LEVEL_DB:
                break
        return signal


def level_db(signal: np.ndarray) -> float:
    """RMS in dB re full scale."""
    return float(10 * np.log10(np.mean(np.square(signal), dtype=np.float64) + 1e-12))


@dataclasses.dataclass(frozen=True)
class Resources:
    """What conditions need beside the signal.

    Attributes
    ----------
    sources : dict
        A :class:`~encoders.degrade.NoiseSource` for ``ambience``, ``voices`` and ``music``, where
        the corpus has any.
    rooms : np.ndarray [shape=(n_rooms, n_taps)]
        Impulse responses.
    """

    sources: dict[str, degrade.NoiseSource]
    rooms: np.ndarray

    @classmethod
    def prepare(cls, selection: Selection, cache: Path, with_rooms: bool) -> Resources:
        """Decode the backgrounds and simulate the rooms (once: ``cache`` keeps them)."""
        sources: dict[str, degrade.NoiseSource] = {}
        for name in ("ambience", "voices", "music"):
            items = [Item(path, name, "") for path in getattr(selection, name)]
            pcm = PcmCache.build(items, cache / "pcm", SAMPLE_RATE)
            if len(pcm):
                sources[name] = Sounding(pcm)
        return cls(sources, _rooms(cache) if with_rooms else np.empty((0, 0)))

    @property
    def backgrounds(self) -> list[str]:
        """Kinds of background that there are."""
        return [kind for kind, source in BACKGROUNDS.items() if source in self.sources] or [
            "coloured"
        ]

    def background(self, kind: str, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """What sounds behind a query [shape=(n_samples,)].

        Parameters
        ----------
        kind : str
            One of :attr:`backgrounds`.
        """
        if kind == "coloured":
            return degrade.colored_noise(n_samples, rng.uniform(0, 2), rng)
        source = self.sources[BACKGROUNDS[kind]]
        if kind == "babble":
            return degrade.babble(source, n_samples, int(rng.integers(3, 7)), rng)
        return source.excerpt(n_samples, rng)


BACKGROUNDS = {"ambience": "ambience", "speech": "voices", "babble": "voices", "music": "music"}
"""Kinds of background, and the source of each. Where there is none at all: coloured noise."""


def _rooms(cache: Path) -> np.ndarray:
    path = cache / f"rooms-{N_ROOMS}-{ROOMS_SEED}.npy"
    if not path.exists():
        if importlib.util.find_spec("pyroomacoustics") is None:
            raise EarmarkError("rooms need pyroomacoustics: pip install 'earmark[train]'")
        rooms = degrade.simulate_rooms(N_ROOMS, SAMPLE_RATE, ROOMS_SEED)
        with write_atomically(path) as file:
            np.save(file, rooms)
    return np.load(path, allow_pickle=False)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a step of a condition may use.

    Attributes
    ----------
    rng : numpy.random.Generator
        The query's own.
    background : str
        Kind of background, where there is one.
    resources : Resources
    """

    rng: np.random.Generator
    background: str
    resources: Resources


Step = Callable[[np.ndarray, Scene], np.ndarray]
"""Signal in, signal out, at :data:`SAMPLE_RATE`."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """A way through the world.

    Attributes
    ----------
    name, title : str
    steps : tuple of Step
        In order.
    speed : float
        Seconds of the reference that pass in a second of the query.
    lead_s, tail_s : float
        Sound before the query that the first step hears, and drops; and after it.
    noisy : bool
        Whether there is a background.
    core : bool
        Whether it counts for the mean over the core cells.
    """

    name: str
    title: str
    steps: tuple[Step, ...] = ()
    speed: float = 1.0
    lead_s: float = 0.0
    tail_s: float = 0.0
    noisy: bool = False
    core: bool = False

    def play(self, signal: np.ndarray, n_samples: int, scene: Scene) -> np.ndarray:
        """What is heard of a signal.

        Parameters
        ----------
        signal : np.ndarray [shape=(at least :meth:`n_source`,)]
        n_samples : int
            Of the query.

        Returns
        -------
        heard : np.ndarray [shape=(n_samples,), dtype=int16]
        """
        for step in self.steps:
            signal = step(signal, scene)
        heard = signal[:n_samples]
        peak = max(float(np.max(np.abs(heard), initial=0.0)), _FULL_SCALE)
        return np.round(heard * (_FULL_SCALE / peak * 32767)).astype(np.int16)

    def n_source(self, n_samples: int) -> int:
        """Samples of the reference that :meth:`play` needs, the lead among them."""
        return self.n_lead + math.ceil(n_samples * self.speed) + round(self.tail_s * SAMPLE_RATE)

    @property
    def n_lead(self) -> int:
        """Samples before the query."""
        return round(self.lead_s * SAMPLE_RATE)


def _codec(name: str) -> Step:
    return lambda signal, scene: degrade.transcode(signal, SAMPLE_RATE, name)


def _any_codec(signal: np.ndarray, scene: Scene) -> np.ndarray:
    peak = max(float(np.max(np.abs(signal))), 1e-6)
    name = list(degrade.CODECS)[scene.rng.integers(len(degrade.CODECS))]
    return degrade.transcode(signal * np.float32(0.7 / peak), SAMPLE_RATE, name)


def _noise(low_db: float, high_db: float | None = None) -> Step:
    def step(signal: np.ndarray, scene: Scene) -> np.ndarray:
        noise = scene.resources.background(scene.background, len(signal), scene.rng)
        snr_db = scene.rng.uniform(low_db, low_db if high_db is None else high_db)
        return degrade.add_noise(signal, noise, snr_db)

    return step


def _room(signal: np.ndarray, scene: Scene) -> np.ndarray:
    rooms = scene.resources.rooms
    heard = degrade.reverberate(signal, rooms[scene.rng.integers(len(rooms))])
    return heard[round(_LEAD_S * SAMPLE_RATE) :]


def _phone(signal: np.ndarray, scene: Scene) -> np.ndarray:
    heard = degrade.control_gain(signal, SAMPLE_RATE, scene.rng.uniform(0.3, 1.0))
    heard = degrade.microphone(heard, SAMPLE_RATE, scene.rng)
    return degrade.clip_peaks(heard, scene.rng.uniform(0.005, 0.05))


def _speed(percent: int) -> Condition:
    speed = 1 + percent / 100
    steps = (lambda signal, scene: degrade.change_speed(signal, speed),)
    return Condition(f"speed{percent:+d}", f"speed {percent:+d} %", steps, speed, tail_s=_TAIL_S)


def _tempo(percent: int) -> Condition:
    tempo = 1 + percent / 100
    steps = (lambda signal, scene: degrade.change_tempo(signal, SAMPLE_RATE, tempo),)
    return Condition(f"tempo{percent:+d}", f"tempo {percent:+d} %", steps, tempo, tail_s=_TAIL_S)


def _pitch(cents: int) -> Condition:
    steps = (lambda signal, scene: degrade.change_pitch(signal, SAMPLE_RATE, cents),)
    return Condition(f"pitch{cents:+d}", f"pitch {cents:+d} cents", steps, tail_s=_TAIL_S)


def _all_conditions() -> Sequence[Condition]:
    core_codecs = ("mp3-24k", "opus-12k", "gsm")
    return [
        Condition("clean", "clean"),
        *(Condition(c, c, (_codec(c),), core=c in core_codecs) for c in degrade.CODECS),
        *(
            Condition(f"noise{db}", f"noise {db} dB", (_noise(db),), noisy=True, core=db >= 0)
            for db in (10, 5, 0, -5)
        ),
        *(
            Condition(
                f"room{db}", f"room + noise {db} dB", (_room, _noise(db)),
                lead_s=_LEAD_S, noisy=True, core=True,
            )
            for db in (5, 0)
        ),
        Condition("phone", "phone microphone", (_phone,), core=True),
        *map(_speed, (2, -2, 5, -5)),
        *map(_tempo, (5, -5)),
        *map(_pitch, (50, -50)),
        Condition(
            "mixed", "room, noise 5 to 10 dB, phone, codec",
            (_room, _noise(5, 10), _phone, _any_codec), lead_s=_LEAD_S, noisy=True,
        ),
    ]  # fmt: skip


CONDITIONS: dict[str, Condition] = {c.name: c for c in _all_conditions()}
"""Every condition by name, in the order of the report."""
