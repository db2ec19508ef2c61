"""Fit the score of matches: clips of known recordings, and of recordings that are not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from encoders.audio import load_audio
from encoders.bundle import Calibration
from encoders.corpus import Item, PcmCache
from encoders.degrade import World, shipped_rooms
from encoders.errors import AudioError, EarmarkError
from index.calibration import Evidence, fit_calibration
from index.identify import Identifier

LENGTHS_S = (1, 2, 3, 5, 10)
_CLIPS_PER_FILE = 5

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


def calibrate(
    identifier: Identifier,
    items: Sequence[Item],
    split: str,
    cache: Path,
    n_clips: int = 600,
    seed: int = 0,
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
    progress : callable, optional
        ``progress(clips done, clips in all)``.

    Raises
    ------
    EarmarkError
        If all of the corpus was ingested, or none of it.
    """
    rate = identifier.spec.sample_rate
    rng = np.random.default_rng(seed)
    ingested = {str(Path(uri).absolute()) for uri in identifier.index.uris()}
    mine = [i for i in items if i.split == split]
    music = [i.path for i in mine if i.role == "music"]
    present = [p for p in music if str(p.absolute()) in ingested]
    absent = [p for p in music if str(p.absolute()) not in ingested]
    if not present or not absent:
        raise EarmarkError(
            f"of the music in split {split!r}, {len(present)} files are in the catalog and "
            f"{len(absent)} are not: ingest about half of it, and calibrate with all of it"
        )
    world = World(rate, _backgrounds(mine, cache, rate), shipped_rooms())
    evidence: list[Evidence] = []
    for paths, is_absent in ((present, False), (absent, True)):
        for path, clip in _clips(paths, n_clips // 2, world, rng):
            scored, _ = identifier.candidates([clip])
            if scored:
                best = scored[0]
                found = identifier.index.uri(best.alignment.recording)
                right = not is_absent and Path(found).absolute() == path.absolute()
                evidence.append(
                    Evidence(best.similarity, best.margin, best.alignment.n_pairs, right, is_absent)
                )
            if progress:
                progress(len(evidence), n_clips)
    calibration = fit_calibration(evidence)
    there = [e for e in evidence if not e.absent]
    return Outcome(
        calibration,
        n_present=len(there),
        n_absent=len(evidence) - len(there),
        top1=sum(e.right for e in there) / len(there),
        accepted=sum(e.right and passes(e, calibration) for e in there) / len(there),
        false_accepts=sum(e.absent and passes(e, calibration) for e in evidence),
    )


def passes(evidence: Evidence, calibration: Calibration) -> bool:
    """Whether a candidate is reported at the default threshold."""
    score = calibration.score(evidence.similarity, evidence.margin, evidence.n_pairs)
    return score >= calibration.threshold


def _backgrounds(items: Sequence[Item], cache: Path, rate: int) -> list[PcmCache]:
    by_role = ([i for i in items if i.role == role] for role in ("noise", "speech"))
    caches = [PcmCache.build(chosen, cache, rate) for chosen in by_role if chosen]
    return [c for c in caches if len(c)]


def _clips(
    paths: Sequence[Path], n: int, world: World, rng: np.random.Generator
) -> Iterator[tuple[Path, np.ndarray]]:
    made = 0
    while made < n:
        path = paths[int(rng.integers(len(paths)))]
        try:
            signal = load_audio(path, world.sample_rate)
        except AudioError:
            continue
        for _ in range(min(_CLIPS_PER_FILE, n - made)):
            length = int(rng.choice(LENGTHS_S)) * world.sample_rate
            if len(signal) <= length:
                break
            start = int(rng.integers(len(signal) - length))
            clip = signal[start : start + length]
            if np.sqrt(np.mean(np.square(clip))) < 1e-3:
                continue
            made += 1
            yield path, world(clip, rng)
