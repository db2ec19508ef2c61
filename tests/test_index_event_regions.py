from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.features import FeatureSpec
from index.event_regions import RegionOptions, find_regions, hysteresis, smooth, window_span

SPEC = FeatureSpec()


def test_an_event_goes_on_while_the_score_is_above_the_lower_threshold() -> None:
    scores = np.array([0.1, 0.5, 0.9, 0.5, 0.1, 0.5, 0.1])
    assert [(r.first, r.last, r.score) for r in hysteresis(scores, 0.8, 0.4)] == [(1, 3, 0.9)]


def test_short_gaps_are_closed_and_short_events_left_out() -> None:
    scores = np.array([0.9, 0.0, 0.9, 0.9, 0.0, 0.0, 0.0, 0.9])
    regions = hysteresis(scores, 0.8, 0.4, gap=1, least=2)
    assert [(r.first, r.last) for r in regions] == [(0, 3)]


@given(
    st.lists(st.floats(0, 1), max_size=40), st.floats(0.05, 1), st.floats(0, 1), st.integers(0, 3)
)
def test_regions_are_apart_and_reach_the_threshold(
    values: list[float], threshold: float, share: float, gap: int
) -> None:
    scores, low = np.array(values), share * threshold
    regions = hysteresis(scores, threshold, low, gap)
    for region in regions:
        assert region.score >= threshold
        assert scores[region.first] >= low
        assert scores[region.last] >= low
    for a, b in itertools.pairwise(regions):
        assert b.first - a.last - 1 > gap
    covered = {i for r in regions for i in range(r.first, r.last + 1)}
    assert set(np.flatnonzero(scores >= threshold)) <= covered


def test_the_median_takes_out_single_steps() -> None:
    scores = np.array([[0, 1, 0, 0, 1, 1, 1, 0.0]]).T
    smoothed = smooth(scores, 0.5, 1.5)[:, 0]
    assert smoothed.tolist() == [0, 0, 0, 0, 1, 1, 1, 0]
    assert smooth(scores, 0.5, 0.4) is scores


def test_classes_do_not_see_each_other() -> None:
    scores = np.array([[0.9, 0.0], [0.9, 0.8], [0.0, 0.8]])
    dog, cat = find_regions(scores, np.array([0.7, 0.7]), 0.5, RegionOptions())
    assert [(r.first, r.last) for r in dog] == [(0, 1)]
    assert [(r.first, r.last) for r in cat] == [(1, 2)]


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [(0, 9, (0.0, 5.7)), (2, 4, (1.25, 2.75)), (3, 3, (1.5, 2.5)), (9, 9, (4.5, 5.7))],
)
def test_onset_and_offset(first: int, last: int, span: tuple[float, float]) -> None:
    assert window_span(first, last, 10, 5.7, SPEC) == span
    assert window_span(0, 0, 1, 0.2, SPEC) == (0.0, 0.2)
