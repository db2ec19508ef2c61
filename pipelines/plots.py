"""Pictures for people who would rather look than read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoders.features import FeatureSpec
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
