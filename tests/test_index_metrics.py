"""Scores on cases that can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from index.metrics import (
    Outcome,
    Share,
    correlate,
    detection_curve,
    phase_correlate,
    summarise,
    wilson,
)


def test_wilson_interval() -> None:
    assert wilson(170, 200) == pytest.approx((0.7940, 0.8929), abs=5e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_mean_of_equal_cells_is_their_pooled_share() -> None:
    cells = [Share.of(10, 20), Share.of(20, 20), Share.of(0, 20)]
    mean, pooled = Share.mean(cells), Share.of(30, 60)
    assert mean.value == pytest.approx(0.5)
    assert (mean.low, mean.high, mean.n) == pytest.approx((pooled.low, pooled.high, 60))


def test_mean_gives_every_cell_the_same_weight() -> None:
    mean = Share.mean([Share.of(100, 100), Share.of(0, 1)])
    assert mean.value == 0.5
    # A variance of (1/100 + 1/1) / 4 times p (1 - p).
    assert mean.n == pytest.approx(4 / 1.01)


def test_mean_leaves_empty_cells_out() -> None:
    assert Share.mean([Share.of(3, 4), Share.of(0, 0)]) == Share.mean([Share.of(3, 4)])
    assert Share.mean([]) == Share.of(0, 0)
    assert Share.of(0, 0).to_dict() == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0}


def outcome(score: float | None, **hits: bool) -> Outcome:
    return Outcome(score=score, **hits)


def test_summary_of_a_cell() -> None:
    outcomes = [
        Outcome(0.9, True, True, True, True, True, True, True, error_s=0.01),
        Outcome(0.8, True, True, True, True, False, False, False, error_s=0.03, correlation=0.9),
        Outcome(0.4, False, True, True, True, True, True, True, error_s=0.02),
        Outcome(0.7, True, True, False, False, True, False, False, error_s=60.0, correlation=0.1),
        Outcome(0.6, True, correlation=0.0),
        Outcome(),
    ]
    summary = summarise(outcomes)
    hits = {name: round(share.value * 6) for name, share in summary.shares.items()}
    assert hits == {
        "recording": 4,
        "exact": 3,
        "near": 3,
        "recording_at_threshold": 3,
        "exact_at_threshold": 2,
        "same_recording": 3,
        "strictly_exact": 2,
        "strictly_near": 2,
        "strictly_exact_at_threshold": 1,
    }
    assert summary.n == 6
    assert summary.median_error_s == pytest.approx(0.025)
    assert summary.to_dict()["exact"]["value"] == 0.5
    assert summarise([]).median_error_s is None


def test_detection_curve_counted_by_hand() -> None:
    present = [
        outcome(0.9, exact=True),
        outcome(0.5, exact=True),
        outcome(0.95),  # wrong: never kept
        outcome(None),
    ]
    absent = [outcome(0.6), outcome(None)]
    curve = detection_curve(present, absent)
    assert curve.thresholds.tolist() == [math.inf, 0.9, 0.6, 0.5]
    assert curve.kept.tolist() == [0.0, 0.25, 0.25, 0.5]
    assert curve.false_accepts.tolist() == [0.0, 0.0, 0.5, 0.5]
    # 0.25 up to a false accept rate of one half, then 0.5.
    assert curve.area == pytest.approx(0.375)
    assert curve.kept_at(0.0) == 0.25
    assert curve.kept_at(0.5) == 0.5
    assert curve.to_dict()["thresholds"] == [None, 0.9, 0.6, 0.5]


def test_detection_curve_of_nothing() -> None:
    assert detection_curve([], []).area == 0.0
    assert detection_curve([outcome(0.5, exact=True)], []).area == 1.0


def test_correlation_finds_the_clip_at_any_level() -> None:
    rng = np.random.default_rng(0)
    stretch = rng.normal(0, 0.1, 3000).astype(np.float32)
    clip = 7 * stretch[1234:2234]
    correlation = correlate(clip, stretch)
    assert correlation.shape == (2001,)
    assert np.argmax(correlation) == 1234
    assert correlation[1234] == pytest.approx(1.0)
    assert np.abs(np.delete(correlation, 1234)).max() < 0.2
    assert correlate(-clip, stretch)[1234] == pytest.approx(-1.0)
    slow = [np.corrcoef(clip, stretch[i : i + 1000])[0, 1] for i in (0, 700)]
    assert correlation[[0, 700]] == pytest.approx(slow, abs=0.02)


def test_correlation_with_silence_is_nothing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    stretch = np.concatenate([noise, np.zeros(300)])
    assert correlate(noise, stretch)[0] == pytest.approx(1.0)
    assert (correlate(noise, stretch)[150:] == 0).all()
    assert (correlate(np.zeros(10), noise) == 0).all()


def test_phases_tell_where_a_part_is_the_same() -> None:
    rng = np.random.default_rng(0)
    part, mine, theirs = (rng.normal(0, 1, 16_000) for _ in range(3))
    tone = 20 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 16_000)
    clip = 0.3 * part + mine + tone[:16_000]
    stretch = np.concatenate([np.zeros(3000), 0.3 * part + theirs, np.zeros(5000)]) + tone
    deviations = phase_correlate(clip, stretch, 16_000)
    assert deviations.shape == (8001,)
    assert np.argmax(deviations) == 3000
    assert deviations[3000] > 7
    assert np.delete(deviations, 3000).max() < 6
    # The tone alone correlates as a whole, at many places.
    assert np.argmax(correlate(clip, stretch)) != 3000
    other = phase_correlate(mine + tone[:16_000], theirs.repeat(2)[:24_000] + tone, 16_000)
    assert other.max() < 7


def test_phases_of_silence_tell_nothing() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 1000)
    assert not phase_correlate(np.zeros(100), noise, 16_000).any()
    assert not phase_correlate(noise[:100], np.zeros(1000), 16_000).any()
