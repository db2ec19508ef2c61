"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_confusion(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw what was found while each kind of sound was heard.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_classes + 1, n_classes + 1)]
        From :func:`pipelines.evaluate_events.detection.confusion`.
    classes : sequence of str
    path : Path
        PNG to write.
    """
    from matplotlib.figure import Figure

    size = 2.4 + 0.42 * len(counts)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        shade = "white" if shares[row, column] > 0.55 else "0.25"
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", fontsize=7.5,
            color=shade,
        )  # fmt: skip
    axes.set_xticks(
        range(len(counts)), [*classes, "nothing"], rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(counts)), [*classes, "nothing"])
    axes.set_xlabel("found")
    axes.set_ylabel("heard")
    for edge in (axes.axhline, axes.axvline):
        edge(len(classes) - 0.5, color="0.6", linewidth=0.8)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="share of what was heard", shrink=0.7)
    figure.savefig(path, dpi=120)
