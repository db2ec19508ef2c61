"""A timeline of events over the spectrogram that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.features import FeatureSpec, hz_to_mel
from index.schema import Event

_RANGE_DB = 65.0
_MOST_COLUMNS = 4000
_TICKS_HZ = (100, 300, 1000, 3000, 8000)


def plot_timeline(
    frames: np.ndarray, events: Sequence[Event], spec: FeatureSpec, path: Path, title: str = ""
) -> None:
    """Draw the spectrogram of a clip, and below it a lane for each kind of sound found in it.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
        Log-mel, dB.
    events : sequence of Event
        Of the clip.
    spec : FeatureSpec
    path : Path
        PNG to write.
    title : str
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    seconds = len(frames) * spec.hop_length / spec.sample_rate
    labels = sorted({e.label or "" for e in events}, key=lambda name: _first(events, name))
    lanes = max(1, len(labels))
    figure = Figure(figsize=(min(24.0, max(9.0, 0.6 * seconds)), 3.4 + 0.34 * lanes))
    figure.set_layout_engine("constrained", hspace=0.02)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 0.34 * lanes + 0.1])
    thinned = frames[:: max(1, len(frames) // _MOST_COLUMNS)]
    top = float(np.percentile(frames, 99.9))
    above.imshow(
        thinned.T,
        origin="lower",
        aspect="auto",
        interpolation="antialiased",
        cmap="magma",
        vmin=top - _RANGE_DB,
        vmax=top,
        extent=(0, seconds, 0, spec.n_mels),
    )
    low, high = (float(hz_to_mel(f)) for f in (spec.fmin, spec.fmax))
    ticks = [f for f in _TICKS_HZ if spec.fmin <= f <= spec.fmax]
    places = [(float(hz_to_mel(f)) - low) / (high - low) * spec.n_mels for f in ticks]
    above.set_yticks(places, [f"{f / 1000:g} kHz" if f >= 1000 else f"{f} Hz" for f in ticks])
    above.set_title(title, loc="left", fontsize=11)
    shades = colormaps["tab10" if lanes <= 10 else "tab20"](range(max(10, min(20, lanes))))
    for event in events:
        lane = lanes - 1 - labels.index(event.label or "")
        color = shades[labels.index(event.label or "") % len(shades)]
        width = event.offset_s - event.onset_s
        # The surer, the more solid.
        below.barh(
            lane, width, left=event.onset_s, height=0.72, color=color,
            alpha=0.35 + 0.65 * event.score, edgecolor=color, linewidth=0.8,
        )  # fmt: skip
        for edge in (event.onset_s, event.offset_s):
            above.axvline(edge, color=color, linewidth=0.9, alpha=0.8, linestyle=(0, (4, 2)))
        if width > 0.07 * seconds:
            below.text(
                event.onset_s + width / 2, lane, f"{event.score:.2f}", ha="center", va="center",
                fontsize=7.5, color="white",
            )  # fmt: skip
    below.set_yticks(range(lanes), labels[::-1] or ["nothing found"])
    below.set_ylim(-0.6, lanes - 0.4)
    below.set_xlim(0, seconds)
    below.set_xlabel("time, s")
    below.grid(axis="x", color="0.9")
    below.set_axisbelow(True)
    for side in ("top", "right", "left"):
        below.spines[side].set_visible(False)
    below.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=120)


def _first(events: Sequence[Event], label: str) -> float:
    return min(e.onset_s for e in events if (e.label or "") == label)
