from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_helpers import (
    DIM,
    HOP_S,
    WINDOW_S,
    Recorded,
    Sound,
    add_recordings,
    empty_catalog,
    noisy,
)

from encoders.bundle import Calibration
from index.build import build_index
from index.calibration import Judged, fit_calibration
from index.match import STEPS, Alignment, Scored, find_alignments, score_alignments
from index.search import FingerprintIndex

STEP_S = HOP_S / STEPS
N_SOUNDS = 24
SECONDS = 60.0

# Seeds of sounds that are in no catalog.
STRANGERS = range(1000, 1030)

TWICE, LOOPED, SHORT = 50, 51, 52


def make_index(folder: Path, recordings: list[Recorded]) -> FingerprintIndex:
    catalog = empty_catalog(folder)
    add_recordings(catalog, recordings)
    with catalog.writer_lock():
        build_index(catalog)
    return FingerprintIndex.open(catalog)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FingerprintIndex:
    """Sounds of a minute; one of them twice, as by another encoding; a loop; a short one."""
    rng = np.random.default_rng(5)
    recordings = [Recorded(f"{i}", Sound(i, SECONDS).reference()) for i in range(N_SOUNDS)]
    twice = Sound(TWICE, SECONDS).reference()
    recordings += [Recorded("twice", twice), Recorded("twice again", noisy(twice, 0.95, rng))]
    recordings.append(Recorded("loop", np.concatenate([Sound(LOOPED, 10.5).reference()] * 3)))
    recordings.append(Recorded("short", Sound(SHORT, 3).reference()))
    return make_index(tmp_path_factory.mktemp("match") / "catalog", recordings)


@pytest.fixture(scope="module")
def calibration(index: FingerprintIndex) -> Calibration:
    """Fitted on the sounds that no other test asks for."""
    rng = np.random.default_rng(6)
    judged = []
    for seed in [*range(12), *STRANGERS[:20]]:
        for seconds in (1, 3, 8):
            start = rng.uniform(0, SECONDS - seconds)
            query = query_of(Sound(seed, SECONDS), start, seconds, seed=seed)
            best = scored(query, index, Calibration())[0]
            absent = seed >= STRANGERS.start
            right = index.uri(best.alignment.recording) == str(seed)
            judged.append(Judged([(best.options, right)], absent))
    return fit_calibration(judged)


def query_of(
    sound: Sound,
    start_s: float,
    seconds: float,
    speed: float = 1.0,
    similarity: float = 0.75,
    seed: int = 0,
) -> np.ndarray:
    """Fingerprints of a clip that plays ``sound`` from ``start_s`` at ``speed``, through noise.

    Where the clip is longer than the sound there is noise alone.
    """
    n = 1 + int(max(0.0, seconds - WINDOW_S) / STEP_S + 1e-9)
    starts = start_s + speed * STEP_S * np.arange(n)
    clean = sound.fingerprints(starts, window_s=speed * WINDOW_S)
    rng = np.random.default_rng(seed)
    query = noisy(clean, similarity, rng)
    outside = ~clean.any(axis=1)
    strange = Sound(99_000 + seed, seconds + 1).fingerprints(STEP_S * np.arange(n))
    query[outside] = strange[outside]
    return query


def scored(query: np.ndarray, index: FingerprintIndex, calibration: Calibration) -> list[Scored]:
    return score_alignments(query, find_alignments(query, index), index, calibration)


def times(a: Alignment, query: np.ndarray) -> Iterator[tuple[float, float]]:
    """Query and reference times (s) of the first, middle and last window of a query."""
    for step in (0, (len(query) - 1) / 2, len(query) - 1):
        yield step * STEP_S, a.reference_step(step) * STEP_S


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(12, N_SOUNDS - 1),
    place=st.floats(0, 1),
    seconds=st.floats(2, 15),
    speed=st.floats(0.95, 1.05),
)
def test_a_planted_clip_is_found_in_its_place(
    index: FingerprintIndex, seed: int, place: float, seconds: float, speed: float
) -> None:
    # The lag is anywhere between the grids of query and reference.
    start = place * (SECONDS - seconds * speed)
    query = query_of(Sound(seed, SECONDS), start, seconds, speed)
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == str(seed)
    for query_s, reference_s in times(best, query):
        assert reference_s == pytest.approx(start + speed * query_s, abs=0.25)
    middle = (len(query) - 1) / 2
    assert best.reference_step(middle) * STEP_S == pytest.approx(
        start + speed * middle * STEP_S, abs=0.125
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(12, N_SOUNDS - 1), place=st.floats(0, 1), seconds=st.floats(2, 15))
def test_at_its_own_speed_a_clip_is_placed_to_a_fifteenth_of_a_second(
    index: FingerprintIndex, seed: int, place: float, seconds: float
) -> None:
    start = place * (SECONDS - seconds)
    query = query_of(Sound(seed, SECONDS), start, seconds)
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == str(seed)
    assert best.speed == 1.0
    assert best.lag * STEP_S == pytest.approx(start, abs=1 / 15)
    # All of it agrees, and nothing more is claimed.
    assert best.first <= STEPS
    assert best.last >= len(query) - 1 - STEPS


@pytest.mark.parametrize("speed", [0.95, 0.97, 1.03, 1.05])
def test_the_speed_of_a_longer_clip_is_told(index: FingerprintIndex, speed: float) -> None:
    query = query_of(Sound(15, SECONDS), 12.3, 20, speed)
    best = find_alignments(query, index)[0]
    assert best.speed == pytest.approx(speed, abs=0.0101)


def test_a_long_clip_at_another_speed_is_found(index: FingerprintIndex) -> None:
    # The lag drifts by more than two seconds from its start to its end.
    query = query_of(Sound(16, SECONDS), 3.0, 52, 1.05)
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == "16"
    for query_s, reference_s in times(best, query):
        assert reference_s == pytest.approx(3.0 + 1.05 * query_s, abs=0.3)


@settings(max_examples=20, deadline=None)
@given(place=st.floats(0, 1), seconds=st.floats(3, 7))
def test_all_repeats_are_found(
    index: FingerprintIndex, calibration: Calibration, place: float, seconds: float
) -> None:
    # Ten seconds, three times over; 20 windows each.
    start = place * (10 - seconds)
    query = query_of(Sound(LOOPED, 10.5), start, seconds)
    found = [s for s in scored(query, index, calibration) if s.score >= calibration.threshold]
    assert {index.uri(s.alignment.recording) for s in found} == {"loop"}
    starts = sorted(s.alignment.lag * STEP_S for s in found)
    assert starts == pytest.approx([start, start + 10, start + 20], abs=0.1)


def test_the_same_sound_indexed_twice_is_no_rival(
    index: FingerprintIndex, calibration: Calibration
) -> None:
    for seconds in (1, 3, 10):
        query = query_of(Sound(TWICE, SECONDS), 20.3, seconds)
        first, second, *others = scored(query, index, calibration)
        uris = {index.uri(s.alignment.recording) for s in (first, second)}
        assert uris == {"twice", "twice again"}
        assert second.score >= calibration.threshold
        assert second.evidence.lead > 0.15
        for s in (first, second):
            assert s.alignment.lag * STEP_S == pytest.approx(20.3, abs=0.15)
        assert all(s.score < calibration.threshold for s in others)


def test_another_sound_that_fits_as_well_is_a_rival(tmp_path: Path) -> None:
    # Two recordings that have nothing in common, and a clip halfway between them.
    a, b = (Sound(seed, 20).reference() for seed in (1, 2))
    index = make_index(tmp_path / "catalog", [Recorded("a", a), Recorded("b", b)])
    query = np.zeros((33, a.shape[1]), np.float32)
    starts = 5 + STEP_S * np.arange(33)
    query = Sound(1, 20).fingerprints(starts) + Sound(2, 20).fingerprints(starts)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    first, second = scored(query, index, Calibration())[:2]
    assert {first.alignment.recording, second.alignment.recording} == {0, 1}
    assert first.evidence.similarity > 0.6
    assert first.evidence.lead < 0.1
    lag_behind = second.evidence.similarity - first.evidence.similarity
    assert second.evidence.lead == pytest.approx(lag_behind, abs=1e-4)
    clean = scored(Sound(1, 20).fingerprints(starts), index, Calibration())[0]
    assert clean.score > first.score


@pytest.mark.parametrize("seconds", [5, 8, 20])
def test_a_clip_longer_than_the_recording(
    index: FingerprintIndex, calibration: Calibration, seconds: float
) -> None:
    # The recording of 3 s begins 1 s into the clip; what follows is another sound.
    query = query_of(Sound(SHORT, 3), -1.0, seconds)
    best = scored(query, index, calibration)[0]
    assert index.uri(best.alignment.recording) == "short"
    assert best.score >= calibration.threshold
    assert best.alignment.lag * STEP_S == pytest.approx(-1.0, abs=0.15)
    assert best.alignment.n_pairs <= 5


@pytest.mark.parametrize("before", [True, False])
def test_a_clip_that_begins_before_or_ends_after_its_recording(
    index: FingerprintIndex, calibration: Calibration, before: bool
) -> None:
    start = -2.6 if before else SECONDS - 5.4
    query = query_of(Sound(17, SECONDS), start, 8)
    best = scored(query, index, calibration)[0]
    assert index.uri(best.alignment.recording) == "17"
    assert best.score >= calibration.threshold
    assert best.alignment.lag * STEP_S == pytest.approx(start, abs=0.15)
    # 5.4 s of it, in windows of 1 s every 0.5 s.
    assert 8 <= best.alignment.n_pairs <= 11


def test_only_the_stretch_that_agrees_is_claimed(index: FingerprintIndex) -> None:
    # Ten seconds, of which the first three and the last one are another sound.
    query = query_of(Sound(18, SECONDS), 30.1, 10)
    stranger = Sound(STRANGERS[-1], 10).fingerprints(STEP_S * np.arange(len(query)))
    query[:24], query[64:] = stranger[:24], stranger[64:]
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == "18"
    assert best.first * STEP_S == pytest.approx(3.0, abs=0.5)
    assert best.last * STEP_S == pytest.approx(8.0, abs=0.5)
    # Of all ten seconds, of which five agree.
    assert best.similarity > 0.35


def test_silent_stretches_do_not_matter(index: FingerprintIndex, calibration: Calibration) -> None:
    query = query_of(Sound(19, SECONDS), 30.1, 10)
    query[:16] = query[40:48] = 0.0
    best = scored(query, index, calibration)[0]
    assert index.uri(best.alignment.recording) == "19"
    assert best.score >= calibration.threshold
    assert best.alignment.lag * STEP_S == pytest.approx(30.1, abs=0.1)
    assert best.alignment.first * STEP_S == pytest.approx(2.0, abs=0.5)


def test_silence_alone_is_nothing(index: FingerprintIndex) -> None:
    assert find_alignments(np.zeros((20, DIM), np.float32), index) == []
    assert find_alignments(np.zeros((0, DIM), np.float32), index) == []


@pytest.mark.parametrize("start", [0.0, 7.5, 7.75, 30.2, 58.9])
def test_one_window_is_enough(index: FingerprintIndex, start: float) -> None:
    query = query_of(Sound(20, SECONDS), start, 1, similarity=0.95)
    assert len(query) == 1
    best = find_alignments(query, index)[0]
    assert index.uri(best.recording) == "20"
    assert best.n_pairs == 1
    assert best.lag * STEP_S == pytest.approx(start, abs=0.3)
    assert (best.first, best.last) == (0, 0)


def test_what_is_not_there_scores_low(index: FingerprintIndex, calibration: Calibration) -> None:
    accepted = 0
    for seed in STRANGERS[20:]:
        for seconds in (1, 3, 8):
            query = query_of(Sound(seed, SECONDS), 7.7, seconds, seed=seed)
            found = scored(query, index, calibration)
            accepted += bool(found) and found[0].score >= calibration.threshold
    assert accepted <= 1
    for seed in range(12, N_SOUNDS, 2):
        for seconds in (3, 8):
            best = scored(query_of(Sound(seed, SECONDS), 7.7, seconds), index, calibration)[0]
            assert best.score >= calibration.threshold


def test_the_best_score_comes_first(index: FingerprintIndex, calibration: Calibration) -> None:
    for seed in (12, TWICE, LOOPED, STRANGERS[-1]):
        found = scored(query_of(Sound(seed, SECONDS), 4.4, 4), index, calibration)
        assert len(found) > 1
        scores = [s.score for s in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


def test_no_place_is_named_twice(index: FingerprintIndex) -> None:
    for seed in range(12, N_SOUNDS):
        places: dict[int, list[float]] = {}
        for a in find_alignments(query_of(Sound(seed, SECONDS), 21.3, 6), index):
            assert all(abs(a.lag - lag) > STEPS for lag in places.get(a.recording, []))
            places.setdefault(a.recording, []).append(a.lag)


def test_a_longer_clip_is_surer(index: FingerprintIndex, calibration: Calibration) -> None:
    scores = []
    for seconds in (1, 3, 10):
        one = [
            scored(
                query_of(Sound(seed, SECONDS), 21.3, seconds, similarity=0.6), index, calibration
            )
            for seed in range(12, N_SOUNDS, 2)
        ]
        scores.append(np.mean([found[0].score for found in one]))
    assert scores == sorted(scores)
