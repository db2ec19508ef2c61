"""Pictures of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from index.metrics import Share
from pipelines.evaluate.conditions import CONDITIONS
from pipelines.evaluate.results import Results

_NOISE_DB = {"noise10": 10, "noise5": 5, "noise0": 0, "noise-5": -5}


def plot_lengths(results: Results, path: Path) -> None:
    """Exact against the length of the query, mean over the core cells, for every system."""
    figure = _figure(6, 4)
    axes = figure.subplots()
    for system in results.systems:
        shares = [results.core(system, "exact", seconds) for seconds in results.lengths]
        _errorbar(axes, np.arange(len(shares)), shares, system)
    axes.set_xticks(range(len(results.lengths)), [f"{s:g}" for s in results.lengths])
    axes.set_xlabel("length of the query, s")
    axes.set_ylabel("exact, mean over the core cells, %")
    axes.set_ylim(0, 102)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def plot_cells(results: Results, path: Path) -> None:
    """Exact in every cell, side by side for every system."""
    n = len(results.systems)
    figure = _figure(2.5 + 2.8 * n, 1.3 + 0.3 * len(results.conditions))
    for number, axes in enumerate(figure.subplots(1, n, sharey=True, squeeze=False)[0]):
        system = results.systems[number]
        shares = [
            [100 * results.cells[system, c, s].shares["exact"].value for s in results.lengths]
            for c in results.conditions
        ]
        axes.imshow(shares, cmap="RdYlGn", vmin=0, vmax=100, aspect="auto", alpha=0.6)
        for row, values in enumerate(shares):
            for column, value in enumerate(values):
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(results.lengths)), [f"{s:g} s" for s in results.lengths])
        titles = [CONDITIONS[c].title for c in results.conditions]
        axes.set_yticks(range(len(titles)), titles)
        axes.set_title(f"{system}: exact, %")
    figure.savefig(path, dpi=110)


def plot_noise(results: Results, path: Path) -> None:
    """Exact against the level of the noise, one line for each length."""
    levels = {c: _NOISE_DB[c] for c in results.conditions if c in _NOISE_DB}
    figure, panels = _panels(results)
    for system, axes in panels:
        for seconds, color in _colors(results):
            shares = [results.cells[system, c, seconds].shares["exact"] for c in levels]
            _errorbar(axes, np.array([*levels.values()]), shares, f"{seconds:g} s", color)
        axes.set_title(system)
        axes.set_xlabel("signal over noise, dB")
        axes.set_ylabel("exact, %")
        axes.set_ylim(0, 102)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def plot_detection(results: Results, path: Path) -> None:
    """What is exact and passes the threshold against false accepts, one line for each length."""
    figure, panels = _panels(results)
    for system, axes in panels:
        for seconds, color in _colors(results):
            curve = results.detection(system, seconds)
            x, y = 100 * curve.false_accepts, 100 * curve.kept
            axes.step([*x, 100], [*y, y[-1]], where="post", color=color, label=f"{seconds:g} s")
        axes.set_title(system)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlabel("false accepts, % of absent queries")
        axes.set_ylabel("exact and accepted, %")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(results: Results) -> tuple[Any, list[tuple[str, Any]]]:
    n = len(results.systems)
    figure = _figure(1 + 4 * n, 4)
    axes = figure.subplots(1, n, sharey=True, squeeze=False)[0]
    return figure, list(zip(results.systems, axes, strict=True))


def _colors(results: Results) -> list[tuple[float, Any]]:
    from matplotlib import colormaps

    shades = np.linspace(0.0, 0.85, len(results.lengths))
    return list(zip(results.lengths, colormaps["viridis"](shades), strict=True))


def _errorbar(axes: Any, x: np.ndarray, shares: list[Share], label: str, color: Any = None) -> None:
    values = 100 * np.array([share.value for share in shares])
    low, high = 100 * np.array([[share.low, share.high] for share in shares]).reshape(-1, 2).T
    # Rounding may put an end of an interval on the wrong side of its middle.
    bars = np.maximum([values - low, high - values], 0.0)
    axes.errorbar(x, values, bars, marker="o", capsize=3, label=label, color=color)
