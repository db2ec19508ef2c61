"""Pictures for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.bundle import Calibration
from encoders.features import FeatureSpec
from index.calibration import Judged
from index.schema import Match


def plot_match(
    query: np.ndarray, reference: np.ndarray, match: Match, spec: FeatureSpec, path: Path
) -> None:
    """Draw a query over the stretch of the reference that it matches, on one time axis.

    Parameters
    ----------
    query, reference : np.ndarray [shape=(n_frames, n_mels)]
        Log-mel of the whole query, and of the whole reference.
    match : Match
    spec : FeatureSpec
    path : Path
        PNG to write.
    """
    from matplotlib.figure import Figure

    assert match.query_start_s is not None
    assert match.reference_start_s is not None
    frame_s = spec.hop_length / spec.sample_rate
    offset = match.reference_start_s - match.query_start_s * (match.speed or 1.0)
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    span = (max(0.0, offset - 3), offset + len(query) * frame_s + 3)
    pictures = ((above, query, offset, "Query"), (below, reference, 0.0, "Reference"))
    for axes, frames, start, name in pictures:
        top = float(np.percentile(frames, 99.8))
        axes.imshow(
            frames.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - 60,
            vmax=top,
            extent=(start, start + len(frames) * frame_s, 0, spec.n_mels),
        )
        axes.set_ylabel(f"{name}\nmel band")
        for edge in (match.reference_start_s, match.reference_end_s):
            axes.axvline(edge, color="cyan", linewidth=1.2, linestyle="--")
    above.set_xlim(*span)
    above.set_title(f"{Path(match.query).name}: {match.query_start_s:.2f} s into the query …")
    below.set_title(
        f"… is {Path(match.reference or '').name} at {match.reference_start_s:.2f} s "
        f"(score {match.score:.2f})"
    )
    below.set_xlabel("time in the reference, s")
    figure.savefig(path, dpi=110)


def plot_timeline(segments: Sequence[Match], path: Path) -> None:
    """Draw what was played when: a row for every recording, in the order of their first segment.

    Parameters
    ----------
    segments : sequence of Match
        Of one or several signals, each of which gets a panel; gaps are grey.
    path : Path
        PNG to write.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(s.query for s in segments))
    rows = {n: list(dict.fromkeys(_row(s) for s in segments if s.query == n)) for n in names}
    heights = [max(2, len(rows[name])) for name in names]
    figure = Figure(figsize=(12, 1.2 * len(names) + 0.22 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for s in segments:
            if s.query == name and s.query_start_s is not None and s.query_end_s is not None:
                span = (s.query_start_s / 60, (s.query_end_s - s.query_start_s) / 60)
                color = f"C{rows[name].index(_row(s)) % 10}" if s.reference else "lightgrey"
                axes.broken_barh([span], (rows[name].index(_row(s)) - 0.4, 0.8), color=color)
        axes.set_yticks(range(len(rows[name])), rows[name], fontsize=7)
        axes.invert_yaxis()
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("min")
    figure.savefig(path, dpi=110)


def _row(segment: Match) -> str:
    return Path(segment.reference).name if segment.reference else "nothing found"


def plot_calibration(judged: Sequence[Judged], calibration: Calibration, path: Path) -> None:
    """Draw how a score tells right matches from wrong ones, and what it keeps of each length.

    Parameters
    ----------
    judged : sequence of Judged
        Clips that the calibration was fitted on.
    calibration : Calibration
    path : Path
        PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    logits_axes, lengths_axes = figure.subplots(1, 2)
    best = [j.best(calibration) for j in judged]
    logits = np.array([logit for logit, _ in best])
    right = np.array([is_right for _, is_right in best])
    absent = np.array([j.absent for j in judged])
    bins = np.linspace(logits.min(), logits.max(), 50)
    kinds = {"not in the catalog": absent, "wrong": ~right & ~absent, "right": right}
    for (name, which), color in zip(kinds.items(), ("C3", "C1", "C0"), strict=True):
        logits_axes.hist(logits[which], bins, label=name, alpha=0.6, color=color)
    threshold = float(np.log(calibration.threshold / (1 - calibration.threshold)))
    logits_axes.axvline(threshold, color="k", label=f"threshold {calibration.threshold}")
    logits_axes.set_xlabel("log-odds of the best candidate")
    logits_axes.set_ylabel("clips")
    logits_axes.legend()
    passed = logits >= threshold
    seconds = np.array([j.seconds for j in judged])
    lengths = np.unique(np.round(seconds))
    places = np.arange(len(lengths))
    shown = {
        "right on top": right,
        "and at the threshold": right & passed,
        "absent, accepted": passed,
    }
    for number, (name, which) in enumerate(shown.items()):
        of = absent if name.startswith("absent") else ~absent
        shares = [
            100 * float(np.mean(which[of & (np.round(seconds) == n)] if of.any() else [0.0]))
            for n in lengths
        ]
        bars = lengths_axes.bar(places + 0.27 * (number - 1), shares, 0.26, label=name)
        lengths_axes.bar_label(bars, fmt="%.0f", fontsize=7)
    lengths_axes.set_xticks(places, [f"{n:g} s" for n in lengths])
    lengths_axes.set_ylabel("% of the clips")
    lengths_axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
