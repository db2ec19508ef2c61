"""Several matches in one clip, exact places in long recordings, on made-up fingerprints."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from index_helpers import DIM, HOP_S, WINDOW_S, Sound, noisy

from encoders.bundle import Calibration
from index.match import STEPS, Scored, find_alignments, refine, score_alignments
from index.search import FingerprintIndex

STEP_S = HOP_S / STEPS
SECONDS = 40.0
# Weights and threshold such as a fitted encoder has.
CALIBRATION = Calibration(
    -6.5, {"field": 42.0, "focus": 12.0, "length": 0.0, "share": 4.0}, threshold=0.85
)


class ExactIndex:
    """Fingerprints in memory, every one of them compared."""

    def __init__(self, recordings: dict[str, np.ndarray]) -> None:
        self.names = list(recordings)
        self.n_rows = np.array([len(r) for r in recordings.values()])
        self.first_rows = np.cumsum(self.n_rows) - self.n_rows
        self.vectors = np.concatenate(list(recordings.values())).astype(np.float16)
        self.info = types.SimpleNamespace(n_rows=len(self.vectors))
        self._all = self.vectors.astype(np.float32)

    def search(
        self, queries: np.ndarray, k: int, effort: float = 1.0, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self._all.T
        rows = np.argpartition(-scores, k, axis=1)[:, :k]
        best = np.take_along_axis(scores, rows, axis=1)
        order = np.argsort(-best, axis=1)
        return np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def recording_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def fingerprints(self, recording: int) -> np.ndarray:
        first = self.first_rows[recording]
        return self.vectors[first : first + self.n_rows[recording]]


def open_index(recordings: dict[str, np.ndarray]) -> FingerprintIndex:
    return cast(FingerprintIndex, ExactIndex(recordings))


@pytest.fixture(scope="module")
def index() -> FingerprintIndex:
    recordings = {f"{seed}": Sound(seed, SECONDS).reference() for seed in range(20)}
    recordings["loop"] = np.concatenate([Sound(50, 10.5).reference()] * 3)
    recordings["copy of 3"] = noisy(recordings["3"], 0.95, np.random.default_rng(0))
    return open_index(recordings)


def heard(
    seed: int, start_s: float, seconds: float, speed: float = 1.0, similarity: float = 0.8
) -> np.ndarray:
    n = 1 + int((seconds - WINDOW_S) / STEP_S + 1e-9)
    starts = start_s + speed * STEP_S * np.arange(n)
    clean = Sound(seed, SECONDS).fingerprints(starts, window_s=speed * WINDOW_S)
    return noisy(clean, similarity, np.random.default_rng(seed))


def stranger(seconds: float, seed: int = 0) -> np.ndarray:
    n = round(seconds / STEP_S)
    return Sound(7000 + seed, seconds + 2).fingerprints(STEP_S * np.arange(n))


def found(query: np.ndarray, index: FingerprintIndex) -> dict[str, Scored]:
    """The best place in every recording that is sure enough."""
    scored = score_alignments(query, find_alignments(query, index), index, CALIBRATION)
    best: dict[str, Scored] = {}
    for s in scored:
        if s.score >= CALIBRATION.threshold:
            best.setdefault(cast(Any, index).names[s.alignment.recording], s)
    return best


def place_s(scored: Scored, query_s: float) -> float:
    return STEP_S * scored.alignment.reference_step(query_s / STEP_S)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(5, 19),
    start=st.floats(0, 15),
    speed=st.floats(0.94, 1.06),
    before=st.floats(2, 6),
    gap=st.floats(0, 3),
    after=st.floats(4, 8),
    silent=st.booleans(),
)
def test_a_planted_clip_with_a_gap_is_found(
    index: FingerprintIndex,
    seed: int,
    start: float,
    speed: float,
    before: float,
    gap: float,
    after: float,
    silent: bool,
) -> None:
    query = heard(seed, start, before + gap + after, speed)
    first, last = round(before / STEP_S), round((before + gap) / STEP_S)
    query[first:last] = 0.0 if silent else stranger(20)[: last - first]
    match = found(query, index)[f"{seed}"]
    middle = len(query) * STEP_S / 2
    assert place_s(match, middle) == pytest.approx(start + speed * middle, abs=0.2)


@settings(max_examples=12, deadline=None)
@given(
    seeds=st.lists(st.integers(5, 19), min_size=2, max_size=2, unique=True),
    starts=st.tuples(st.floats(0, 30), st.floats(0, 30)),
    seconds=st.tuples(st.floats(4, 8), st.floats(4, 8)),
)
@example(seeds=[5, 6], starts=(0.0, 0.0), seconds=(7.0, 4.0))
@example(seeds=[5, 6], starts=(0.0, 32.0), seconds=(7.0, 7.9))
def test_two_recordings_one_after_the_other_are_two_matches(
    index: FingerprintIndex,
    seeds: list[int],
    starts: tuple[float, float],
    seconds: tuple[float, float],
) -> None:
    parts = [heard(*args) for args in zip(seeds, starts, seconds, strict=True)]
    query = np.concatenate(parts)
    matches = found(query, index)
    assert set(matches) == {str(seed) for seed in seeds}
    begins = (0.0, len(parts[0]) * STEP_S)
    for seed, start, begin, part in zip(seeds, starts, begins, parts, strict=True):
        match = matches[f"{seed}"]
        # A few seconds of a clip do not tell their speed well.
        assert place_s(match, begin) == pytest.approx(start, abs=0.5)
        assert match.alignment.first * STEP_S == pytest.approx(begin, abs=0.76)
        end = begin + len(part) * STEP_S
        assert match.alignment.last * STEP_S == pytest.approx(end, abs=0.76)
        assert match.group != matches[f"{seeds[0]}"].group or seed == seeds[0]


@settings(max_examples=10, deadline=None)
@given(
    seeds=st.lists(st.integers(5, 19), min_size=2, max_size=2, unique=True),
    starts=st.tuples(st.floats(0, 30), st.floats(0, 30)),
    share=st.floats(0.45, 0.55),
)
def test_two_recordings_at_once_are_two_matches(
    index: FingerprintIndex, seeds: list[int], starts: tuple[float, float], share: float
) -> None:
    one, other = (heard(seed, start, 8.0) for seed, start in zip(seeds, starts, strict=True))
    query = share * one + (1 - share) * other
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    matches = found(query, index)
    assert set(matches) == {str(seed) for seed in seeds}
    for seed, start in zip(seeds, starts, strict=True):
        assert place_s(matches[f"{seed}"], 0.0) == pytest.approx(start, abs=0.2)


@pytest.mark.parametrize("start", [0.3, 3.2, 4.9])
def test_the_places_of_a_loop_are_one_sound(index: FingerprintIndex, start: float) -> None:
    clip = Sound(50, 10.5).fingerprints(start + STEP_S * np.arange(33))
    query = noisy(clip, 0.8, np.random.default_rng(1))
    scored = score_alignments(query, find_alignments(query, index), index, CALIBRATION)
    sure = [s for s in scored if s.score >= CALIBRATION.threshold]
    assert {cast(Any, index).names[s.alignment.recording] for s in sure} == {"loop"}
    assert len({s.group for s in sure}) == 1
    places = sorted(place_s(s, 0.0) for s in sure)
    assert places == pytest.approx([start, start + 10, start + 20], abs=0.1)


@pytest.mark.parametrize("start", [5.0, 5.125, 5.25, 5.375])
def test_the_right_place_comes_before_a_variation_of_it(start: float) -> None:
    # Both are sure; the variation has its windows elsewhere, and now and then one more of them.
    theme = Sound(60, 20.0)
    played = theme.fingerprints(HOP_S * np.arange(38))
    varied = theme.fingerprints(0.25 + HOP_S * np.arange(38))
    varied = noisy(varied, 0.68, np.random.default_rng(1))
    strangers = {str(seed): Sound(seed, SECONDS).reference() for seed in range(8)}
    index = open_index(
        {"song": np.concatenate([varied, stranger(5.0)[::STEPS], played])} | strangers
    )
    query = noisy(
        theme.fingerprints(start + STEP_S * np.arange(42)), 0.97, np.random.default_rng(2)
    )
    alignments = find_alignments(query, index)
    weights = CALIBRATION.weights | {"length": 0.2}
    calibration = dataclasses.replace(CALIBRATION, weights=weights)
    best = score_alignments(query, alignments, index, calibration)[0]
    assert best.score > CALIBRATION.threshold
    assert best.alignment.similarity == max(a.similarity for a in alignments)
    assert len([a for a in alignments if a.recording == 0 and a.similarity > 0.6]) == 2


def test_a_copy_is_a_match_of_its_own_and_no_rival(index: FingerprintIndex) -> None:
    matches = found(heard(3, 12.3, 5.0), index)
    assert set(matches) == {"3", "copy of 3"}
    assert len({s.group for s in matches.values()}) == 1
    assert all(s.evidence.lead > 0.2 for s in matches.values())


def test_strangers_are_not_found(index: FingerprintIndex) -> None:
    # Slow ones too: like a drone, each window resembles the next.
    accepted = 0
    for seed in range(30):
        for pace in (1.0, 0.2):
            starts = STEP_S * pace * np.arange(40)
            query = Sound(8000 + seed, 20).fingerprints(starts, window_s=WINDOW_S)
            accepted += bool(found(query, index))
    assert accepted == 0


PLACES_S = (0.0, 380.0, 3600.0, 32_400.0)


@pytest.fixture(scope="module")
def long_index() -> FingerprintIndex:
    """A recording of more than nine hours, with another sound at each of some places."""
    rng = np.random.default_rng(3)
    long = rng.normal(size=(round(2 * (PLACES_S[-1] + 60)), DIM)).astype(np.float32)
    long /= np.linalg.norm(long, axis=1, keepdims=True)
    for seed, at_s in enumerate(PLACES_S, 5):
        planted = Sound(seed, SECONDS).reference()
        first = round(at_s / HOP_S)
        long[first : first + len(planted)] = planted
    others = {f"{seed}": Sound(seed, SECONDS).reference() for seed in range(10, 16)}
    return open_index({"long": long, **others})


@pytest.mark.parametrize(("similarity", "limit_ms"), [(0.95, 25), (0.55, 60)])
@pytest.mark.parametrize("place", range(len(PLACES_S)))
def test_times_are_exact_hours_into_a_recording(
    long_index: FingerprintIndex, similarity: float, limit_ms: float, place: int
) -> None:
    errors = []
    for start in np.linspace(0.05, 30.0, 7).tolist():
        query = heard(5 + place, start, 5.0, similarity=similarity)
        best = find_alignments(query, long_index)[0]
        assert best.recording == 0
        best = refine(query, long_index, best)
        expected = PLACES_S[place] + start + STEP_S * 16
        errors.append(abs(STEP_S * best.reference_step(16) - expected))
    assert 1000 * float(np.median(errors)) <= limit_ms


def test_a_clip_of_several_minutes_is_laid_pair_by_pair(long_index: FingerprintIndex) -> None:
    first, n = 7000, 640
    held = long_index.vectors[first : first + n].astype(np.float32)
    query = noisy(np.repeat(held, STEPS, axis=0), 0.7, np.random.default_rng(2))
    best = find_alignments(query, long_index)[0]
    assert best.recording == 0
    assert best.speed == 1.0
    assert best.lag == pytest.approx(STEPS * first, abs=STEPS)
    # Lag and speed are searched with fewer.
    assert best.n_pairs == pytest.approx(n, abs=1)
    assert best.similarity == pytest.approx(0.7, abs=0.02)


@settings(max_examples=15, deadline=None)
@given(speed=st.floats(0.94, 1.06), start=st.floats(0, 10))
def test_the_slope_is_fitted_below_the_grid(
    index: FingerprintIndex, speed: float, start: float
) -> None:
    query = heard(8, start, 25.0, speed)
    best = refine(query, index, find_alignments(query, index)[0])
    assert best.speed == pytest.approx(speed, abs=0.004)
    for step in (0, len(query) - 1):
        expected = start + speed * STEP_S * step
        assert STEP_S * best.reference_step(step) == pytest.approx(expected, abs=0.1)
