"""The main job on the tracks that come with earmark: ingest, degrade, identify, show."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from encoders.audio import load_audio
from encoders.degrade import (
    add_noise,
    change_speed,
    microphone,
    reverberate,
    shipped_rooms,
    transcode,
)
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec, log_mel
from index.identify import Identifier
from index.schema import Match
from pipelines.ingest import IngestOptions, IngestSummary, ingest
from pipelines.plots import plot_match

TRACKS = Path(__file__).parent / "demo_tracks"

# Never ingested: the place where the clips are played, and the track that must not be found.
AMBIENCE = "restaurant.ogg"
ABSENT = "hacienda.mp3"

# Takes mono float32 at a rate in Hz, gives what is heard of it.
World = Callable[[np.ndarray, int], np.ndarray]


def in_a_restaurant(signal: np.ndarray, rate: int) -> np.ndarray:
    """Music as loud as the guests."""
    return add_noise(signal, _guests(len(signal), rate), 0.0)


def on_the_phone(signal: np.ndarray, rate: int) -> np.ndarray:
    """Through the codec of a mobile phone call."""
    return transcode(signal, rate, "gsm")


def across_a_room(signal: np.ndarray, rate: int) -> np.ndarray:
    """From a loudspeaker, through the room and the guests, to a phone's microphone."""
    heard = add_noise(reverberate(signal, shipped_rooms()[0]), _guests(len(signal), rate), 6.0)
    return microphone(heard, rate, np.random.default_rng(7))


def sped_up(signal: np.ndarray, rate: int) -> np.ndarray:
    """Two per cent too fast, at a tenth of a decent bit rate."""
    return transcode(change_speed(signal, 1.02), rate, "opus-6k")


def untouched(signal: np.ndarray, rate: int) -> np.ndarray:
    """As it is."""
    return signal


def _guests(n_samples: int, rate: int) -> np.ndarray:
    return load_audio(TRACKS / AMBIENCE, rate)[:n_samples]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip that the demo makes: where it is from, and what happens to it."""

    track: str
    start_s: float
    seconds: float
    world: World
    story: str


CLIPS = (
    Clip("media-threat.ogg", 12.3, 6, in_a_restaurant, "guests as loud as the music"),
    Clip("morning-coffee.mp3", 4.6, 5, on_the_phone, "mobile phone call (GSM)"),
    Clip("palace.ogg", 21.7, 6, across_a_room, "room + guests at 6 dB + microphone"),
    Clip("eureka.m4a", 9.1, 4, sped_up, "2 % too fast, Opus at 6 kbit/s"),
    Clip(ABSENT, 15.0, 6, untouched, "clean, but never ingested"),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a clip."""

    clip: Clip
    path: Path
    match: Match | None
    milliseconds: float

    @property
    def right(self) -> bool:
        """The right recording within half a second; or nothing, where nothing was to be found."""
        if self.clip.track == ABSENT or self.match is None:
            return self.clip.track == ABSENT and self.match is None
        assert self.match.reference is not None
        return Path(self.match.reference).name == self.clip.track and abs(self.error_s) < 0.5

    @property
    def error_s(self) -> float:
        """Time found minus true time, where the match begins."""
        assert self.match is not None
        assert self.match.reference_start_s is not None
        assert self.match.query_start_s is not None
        speed = self.match.speed or 1.0
        return self.match.reference_start_s - self.match.query_start_s * speed - self.clip.start_s


def run_demo(out: Path) -> tuple[IngestSummary, list[Outcome]]:
    """Run the demo.

    Parameters
    ----------
    out : Path
        Gets ``catalog/`` and the degraded clips.

    Returns
    -------
    summary, outcomes
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EarmarkError(f"cannot write to {out}: {error.strerror}") from None
    tracks = [
        str(p)
        for p in sorted(TRACKS.iterdir())
        if p.suffix not in (".md", ".csv") and p.name not in (AMBIENCE, ABSENT)
    ]
    summary = ingest(tracks, out / "catalog", IngestOptions())
    paths = [make_clip(clip, out) for clip in CLIPS]
    identifier = Identifier(out / "catalog")
    outcomes = []
    for clip, path in zip(CLIPS, paths, strict=True):
        begin = time.perf_counter()
        matches = identifier.identify(path, top=1)
        elapsed = (time.perf_counter() - begin) * 1000
        outcomes.append(Outcome(clip, path, matches[0] if matches else None, elapsed))
    return summary, outcomes


def draw(outcome: Outcome, spec: FeatureSpec, path: Path) -> None:
    """The picture of a clip that was found, over its recording."""
    assert outcome.match is not None
    query, reference = (
        log_mel(load_audio(source, spec.sample_rate), spec)
        for source in (outcome.path, TRACKS / outcome.clip.track)
    )
    plot_match(query, reference, outcome.match, spec, path)


def make_clip(clip: Clip, out: Path) -> Path:
    """Cut a clip, let the world have it, and write it as WAV."""
    rate = FeatureSpec().sample_rate
    first, n = round(clip.start_s * rate), round(clip.seconds * rate)
    heard = clip.world(load_audio(TRACKS / clip.track, rate)[first : first + n], rate)
    heard = heard * np.float32(0.8 / max(float(np.abs(heard).max()), 1e-6))
    path = out / f"clip-{Path(clip.track).stem}.wav"
    soundfile.write(path, heard, rate)
    return path
