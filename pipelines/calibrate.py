"""Fit the score of matches: clips of known recordings, and of recordings that are not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from encoders.audio import load_audio
from encoders.bundle import Calibration, probability
from encoders.corpus import Item, PcmCache
from encoders.degrade import World, shipped_rooms
from encoders.errors import AudioError, EarmarkError
from index.calibration import Judged, fit_calibration
from index.identify import Identifier
from index.match import ENOUGH, Evidence, Scored

LENGTHS_S = (1, 2, 3, 5, 10)
_CLIPS_PER_FILE = 5
# Candidates of a clip that may be its best one.
_MAX_CANDIDATES = 4
_SILENT_RMS = 1e-3
# Music that is said to be absent is looked up clean, at several places of 10 s and around each
# clip. What is found like this, or so that the signs agree, is there after all: in another
# encoding, cut, as another mix, or as the sample of two pieces.
_PROBES, _PROBE_S = 10, 10
_KNOWN_SIMILARITY, _KNOWN_MARGIN = 0.65, 0.2

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A fitted calibration, and how it does on the clips it was fitted on."""

    calibration: Calibration
    n_present: int
    n_absent: int
    top1: float
    accepted: float
    false_accepts: int
    judged: list[Judged]


def calibrate(
    identifier: Identifier,
    items: Sequence[Item],
    split: str,
    cache: Path,
    n_clips: int = 2000,
    seed: int = 0,
    false_accept_rate: float = 0.002,
    progress: Progress | None = None,
) -> Outcome:
    """Fit the score to a catalog.

    Half of the clips are cut from recordings of the catalog, half from music of the corpus that
    was not ingested; all go through the world.

    Parameters
    ----------
    identifier : Identifier
    items : sequence of Item
        The corpus; ``split`` of it is used.
    cache : Path
        Where decoded background sound is kept.
    n_clips : int
    seed : int
    false_accept_rate : float
        Share of absent clips that the threshold lets pass.
    progress : callable, optional
        ``progress(clips done, clips in all)``.

    Raises
    ------
    EarmarkError
        If all of the corpus was ingested, or none of it.
    """
    rate = identifier.spec.sample_rate
    rng = np.random.default_rng(seed)
    rows = identifier.catalog.recordings(["uri", "recording_id"]).to_pylist()
    ingested = {str(Path(row["uri"]).absolute()): row["recording_id"] for row in rows}
    mine = [i for i in items if i.split == split]
    music = [i.path.absolute() for i in mine if i.role == "music"]
    present = [p for p in music if str(p) in ingested]
    absent = [p for p in music if str(p) not in ingested]
    if not present or not absent:
        raise EarmarkError(
            f"of the music in split {split!r}, {len(present)} files are in the catalog and "
            f"{len(absent)} are not: ingest about half of it, and calibrate with all of it"
        )
    noises, voices = _backgrounds(mine, cache, rate)
    world = World(rate, noises, shipped_rooms(), voices)
    judged: list[Judged] = []
    made = {False: 0, True: 0}

    def is_unknown(signal: np.ndarray) -> bool:
        return not _is_known(signal, identifier)

    for paths, is_absent, usable in ((present, False, _anything), (absent, True, is_unknown)):
        for path, clip in _clips(paths, n_clips // 2, world, rng, usable):
            scored, seconds = identifier.candidates([clip])
            if is_absent and _agrees(scored):
                # Not by chance: what sounds behind it is there.
                continue
            made[is_absent] += 1
            if scored:
                candidates = _judge(scored, identifier, None if is_absent else ingested[str(path)])
                judged.append(Judged(candidates, is_absent, seconds))
            if progress:
                progress(sum(made.values()), n_clips)
    calibration = fit_calibration(judged, false_accept_rate)
    return Outcome(
        calibration,
        n_present=made[False],
        n_absent=made[True],
        top1=sum(j.best(calibration)[1] for j in judged) / made[False],
        accepted=sum(passes(j, calibration) and j.best(calibration)[1] for j in judged)
        / made[False],
        false_accepts=sum(j.absent and passes(j, calibration) for j in judged),
        judged=judged,
    )


def _anything(signal: np.ndarray) -> bool:
    return True


def _judge(
    scored: Sequence[Scored], identifier: Identifier, recording_id: str | None
) -> list[tuple[Sequence[Evidence], bool]]:
    # By likeness, not by score: that is what is being fitted.
    order = sorted(scored, key=lambda s: -s.alignment.likeness)[:_MAX_CANDIDATES]
    found = [identifier.index.recording_id(s.alignment.recording) for s in order]
    return [(s.options, name == recording_id) for s, name in zip(order, found, strict=True)]


def passes(judged: Judged, calibration: Calibration) -> bool:
    """Whether a candidate is reported at the default threshold."""
    return probability(judged.best(calibration)[0]) >= calibration.threshold


def _backgrounds(
    items: Sequence[Item], cache: Path, rate: int
) -> tuple[list[PcmCache], list[PcmCache]]:
    # Ambience and effects; speech. Not music: it may be in the catalog, and then it is rightly
    # found.
    noise, event, speech = (
        PcmCache.build([i for i in items if i.role == role], cache, rate)
        for role in ("noise", "event", "speech")
    )
    return [c for c in (noise, event) if len(c)], [speech] if len(speech) else []


def _clips(
    paths: Sequence[Path],
    n: int,
    world: World,
    rng: np.random.Generator,
    usable: Callable[[np.ndarray], bool],
) -> Iterator[tuple[Path, np.ndarray]]:
    made, reach = 0, _PROBE_S * world.sample_rate // 2
    for _ in range(20 * n):
        if made == n:
            return
        path = paths[int(rng.integers(len(paths)))]
        signal = _load(path, world.sample_rate)
        if not usable(signal):
            continue
        for _ in range(min(_CLIPS_PER_FILE, n - made)):
            length = int(rng.choice(LENGTHS_S)) * world.sample_rate
            if len(signal) <= length:
                break
            start = int(rng.integers(len(signal) - length))
            clip = signal[start : start + length]
            around = signal[max(0, start + length // 2 - reach) : start + length // 2 + reach]
            if np.sqrt(np.mean(np.square(clip))) < _SILENT_RMS or not usable(around):
                continue
            made += 1
            yield path, world(clip, rng)
    raise EarmarkError(
        f"only {made} of {n} clips could be cut from {len(paths)} files: they are too short, "
        "silent, unreadable, or in the catalog under other names"
    )


def _load(path: Path, sample_rate: int) -> np.ndarray:
    try:
        return load_audio(path, sample_rate)
    except AudioError:
        return np.empty(0, np.float32)


def _agrees(scored: Sequence[Scored]) -> bool:
    return any(s.alignment.detail.strength >= ENOUGH for s in scored)


def _is_known(signal: np.ndarray, identifier: Identifier) -> bool:
    n = _PROBE_S * identifier.spec.sample_rate
    starts = np.linspace(0, max(0, len(signal) - n), _PROBES).astype(int)
    for start in np.unique(starts):
        scored, _ = identifier.candidates([signal[start : start + n]])
        best = max((s.options[0] for s in scored), key=lambda e: e.similarity, default=None)
        if best and best.similarity > _KNOWN_SIMILARITY and best.lead > _KNOWN_MARGIN:
            return True
        if _agrees(scored):
            return True
    return False
