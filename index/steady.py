"""Recordings that hardly change, by the MFCCs that ingest kept: they may be test tones."""

from __future__ import annotations

import numpy as np

from encoders.features import SILENCE_DB
from index.catalog import Catalog
from index.sound import STEADY_DB


def steady_recordings(catalog: Catalog) -> np.ndarray:
    """Ids of recordings in which no window's spectrum changes much.

    Returns
    -------
    ids : np.ndarray [shape=(n,), dtype=object]
    """
    n_mels = catalog.config.spec.n_mels
    moving: set[str] = set()
    sounding: set[str] = set()
    for batch in catalog.iter_windows(["recording_id", "peak_db", "mfcc"]):
        heard = batch["peak_db"].to_numpy() >= SILENCE_DB
        summary = batch["mfcc"].flatten().to_numpy().reshape(len(heard), -1)
        deviations = summary[:, summary.shape[1] // 2 :]
        # Of the mel bands, by Parseval's theorem.
        moves = np.sqrt(np.square(deviations).sum(axis=1) / n_mels) > STEADY_DB
        ids = batch["recording_id"].to_numpy(zero_copy_only=False)
        moving.update(ids[heard & moves].tolist())
        sounding.update(ids[heard & ~moves].tolist())
    return np.array(sorted(sounding - moving), object)
