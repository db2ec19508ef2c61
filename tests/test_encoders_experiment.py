"""Figures of a run: what they add up to, and an examination whose result is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoders.batches import Batch
from encoders.cost import Cost
from encoders.experiment import Tally, examine, log_run


def test_a_tally_keeps_the_newest_and_the_mean_wait() -> None:
    shown: list[tuple[int, dict[str, float]]] = []
    tally = Tally(lambda step, figures: shown.append((step, figures)))
    tally(5, {"loss": 3.0, "waited": 0.2, "dev_accuracy": 0.4})
    tally(6, {"loss": 2.0, "waited": 0.6})
    assert [step for step, _ in shown] == [5, 6]
    # The held-back figures of the last checkpoint stay in sight.
    assert shown[1][1] == {"loss": 2.0, "waited": pytest.approx(0.4), "dev_accuracy": 0.4}
    figures = tally.figures()
    assert figures["steps_taken"] == 2
    assert figures["seconds_per_step"] >= 0.0
    assert figures["loss"] == 2.0


def test_a_run_of_no_steps_has_no_figures() -> None:
    assert Tally().figures() == {}


class Directions:
    """Batches whose inputs are angles in degrees; heard ones are a degree off."""

    def __init__(self, known: list[list[float]], heard: list[list[float]]) -> None:
        self.known, self.heard = known, heard

    def batch(self, number: int) -> Batch:
        n = len(self.known[number])
        same = np.zeros((n, n), bool)
        if number == 1:  # Its first two are one loop.
            same[0, 1] = same[1, 0] = True
        return np.array(self.known[number]), np.array(self.heard[number]), same


def on_circle(degrees: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_an_examination_looks_among_all_windows() -> None:
    pairs = Directions(
        known=[[999.0], [0, 4, 90], [180, 270, 88]],
        heard=[[0.0], [3, 4, 91], [181, 359, 88.5]],
    )
    found = examine(on_circle, pairs, 1, 3)
    assert found.n_windows == 6
    # Right: 3 (nearest to its loop at 4), 4, 91, 181 and 88.5. Wrong: 359, nearest to 0.
    assert found.top_1 == pytest.approx(5 / 6)
    np.testing.assert_allclose(found.same, np.cos(np.radians([3, 0, 1, 1, 89, 0.5])), atol=1e-9)
    # Pairs within a batch, but for those of the loop.
    expected = [3 - 90, 4 - 90, 91, 91 - 4, 181 - 270, 181 - 88, 359 - 180, 359 - 88, 88.5 - 180]
    expected += [88.5 - 270]
    np.testing.assert_allclose(
        np.sort(found.different), np.sort(np.cos(np.radians(expected))), atol=1e-9
    )


def test_a_neighbour_in_another_batch_is_a_wrong_answer() -> None:
    pairs = Directions(known=[[0, 90], [10, 100, 200]], heard=[[9, 90], [10, 100, 200]])
    assert examine(on_circle, pairs, 0, 1).top_1 == 1.0
    assert examine(on_circle, pairs, 0, 2).top_1 == pytest.approx(4 / 5)


def test_runs_are_lines_of_a_log(tmp_path: Path) -> None:
    for seed in (0, 1):
        log_run(tmp_path, "siamese", {"seed": seed}, Cost(17, 3), {"loss": 0.123456789})
    lines = [json.loads(x) for x in (tmp_path / "experiment.json").read_text().splitlines()]
    assert [line["settings"]["seed"] for line in lines] == [0, 1]
    assert lines[0]["figures"] == {"loss": 0.123457}
    assert lines[0]["cost"] == {"multiply_adds": 17, "parameters": 3}
    assert lines[0]["kind"] == "siamese"
    assert lines[0]["finished"].endswith("Z")
