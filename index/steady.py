"""Recordings that hardly change, by the MFCCs that ingest kept: they may be test tones."""

from __future__ import annotations

import numpy as np

from encoders.features import SILENCE_DB
from index.catalog import Catalog
from index.sound import STEADY_DB


def steady_recordings(catalog: Catalog) -> np.ndarray:
    """Ids of recordings in which no window's spectrum changes much.

    Windows in which a sound begins or ends do change, and count only where there are no others.

    Returns
    -------
    ids : np.ndarray [shape=(n,), dtype=object]
    """
    n_mels = catalog.config.spec.n_mels
    flags = [np.zeros((0, 2), bool)]
    for batch in catalog.iter_windows(["peak_db", "mfcc"]):
        heard = batch["peak_db"].to_numpy() >= SILENCE_DB
        summary = batch["mfcc"].flatten().to_numpy().reshape(len(heard), -1)
        deviations = summary[:, summary.shape[1] // 2 :]
        # Of the mel bands, by Parseval's theorem.
        moves = np.sqrt(np.square(deviations).sum(axis=1) / n_mels) > STEADY_DB
        flags.append(np.column_stack([heard, moves]))
    heard, moves = np.concatenate(flags).T
    recordings = catalog.indexed_recordings()
    n_windows = recordings["n_windows"].to_numpy()
    number = np.repeat(np.arange(len(n_windows)), n_windows)
    goes_on = np.diff(number, prepend=-1, append=-1) == 0
    goes_on[1:-1] &= heard[1:] & heard[:-1]
    inside = heard & goes_on[:-1] & goes_on[1:]
    has_inside = np.bincount(number[inside], minlength=len(n_windows)) > 0
    counted = heard & (inside | ~has_inside[number])
    n_counted, n_moving = (
        np.bincount(number[which], minlength=len(n_windows)) for which in (counted, counted & moves)
    )
    ids = recordings["recording_id"].to_numpy(zero_copy_only=False)
    return np.unique(ids[(n_counted > 0) & (n_moving == 0)])
