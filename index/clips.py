"""A clip as the columns of a catalog see it: its windows, embedded by the column's own encoder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from encoders.audio import load_audio
from encoders.bundle import Bundle, load_bundle
from encoders.errors import AudioError, BundleError
from encoders.features import (
    SILENCE_DB,
    cut_windows,
    log_mel,
    mfcc_summary,
    to_decibels,
    to_power,
)
from index.config import EncoderInfo
from index.scaling import Scaling

MIN_SECONDS = 0.05
"""Shorter clips hold too little sound to say what kind it is; from 0.2 s it can be told well."""

Source = str | os.PathLike[str] | bytes | BinaryIO


@dataclasses.dataclass(frozen=True)
class ClipWindows:
    """Windows of a clip.

    Attributes
    ----------
    starts : np.ndarray [shape=(n,)]
        Where each begins, s; before 0 where a clip is shorter than a window.
    embeddings : np.ndarray [shape=(n, dim), dtype=float32]
        Zero where the clip is silent.
    mfcc : np.ndarray [shape=(n, 2 * n_mfcc), dtype=float32]
        Their means and deviations.
    levels_db : np.ndarray [shape=(n,)]
        Mean power of each, dB re full scale.
    """

    starts: np.ndarray
    embeddings: np.ndarray
    mfcc: np.ndarray
    levels_db: np.ndarray

    def rows(self, scaling: Scaling) -> np.ndarray:
        """What a scaling takes [shape=(n, scaling.width)]."""
        parts = [self.embeddings, self.mfcc] if scaling.takes_mfcc else [self.embeddings]
        return np.concatenate(parts, axis=1)


class ClipEncoder:
    """Embeds clips with the encoder that made a column.

    Parameters
    ----------
    wanted : EncoderInfo
        Of the column.
    bundle : str or Path, optional
        Folder of the encoder, when it is not one of those that come with earmark.

    Raises
    ------
    BundleError
        If the encoder at hand is another one.
    """

    def __init__(self, wanted: EncoderInfo, bundle: str | Path | None = None) -> None:
        self.bundle: Bundle = load_bundle(bundle or wanted.name, wanted.precision)
        if self.bundle.sha256 != wanted.sha256:
            raise BundleError(
                f"the column was made by the encoder {wanted.name} {wanted.sha256[:12]}, and "
                f"{self.bundle.folder} holds {self.bundle.sha256[:12]}: name the folder of the "
                "right one with --bundle, or ingest again into a new catalog"
            )
        self.spec = self.bundle.spec

    def load(self, clip: Source, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray:
        """A clip, or a stretch of it, at ``spec.sample_rate``: see :func:`load_stretch`."""
        return load_stretch(clip, self.spec.sample_rate, start_s, end_s)

    def windows(self, signal: np.ndarray, hop_s: float) -> ClipWindows:
        """Embed the windows of a signal.

        A signal shorter than a window is embedded at the start, in the middle and at the end of
        one, since that is how a recording may hold it.

        Parameters
        ----------
        signal : np.ndarray [shape=(n,)]
            At ``spec.sample_rate``.
        hop_s : float
            Step between windows; rounded to whole frames.
        """
        spec = self.spec
        missing = spec.window_length - len(signal)
        if missing > 0:
            leads = sorted({0, missing // 2, missing})
            padded = [np.pad(signal, (lead, missing - lead)) for lead in leads]
            windows = np.concatenate([cut_windows(log_mel(p, spec), spec)[:1] for p in padded])
            starts = -np.array(leads) / spec.sample_rate
        else:
            hop = max(1, round(hop_s * spec.sample_rate / spec.hop_length))
            n = 1 + (len(signal) - spec.window_length) // (hop * spec.hop_length)
            windows = cut_windows(log_mel(signal, spec), spec, hop)[:n]
            starts = np.arange(n) * hop * spec.hop_length / spec.sample_rate
        return self.embed(windows, starts)

    def embed(self, windows: np.ndarray, starts: np.ndarray) -> ClipWindows:
        """Embed windows that were cut already [shape=(n, window_frames, n_mels)]."""
        embeddings = self.bundle.encode(windows)
        embeddings[windows.max(axis=(1, 2)) < SILENCE_DB] = 0.0
        levels = to_decibels(to_power(windows).sum(axis=2).mean(axis=1))
        return ClipWindows(starts, embeddings, mfcc_summary(windows, self.spec), levels)


def load_stretch(
    clip: Source, sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> np.ndarray:
    """Decode a clip, or a stretch of it.

    Returns
    -------
    signal : np.ndarray [shape=(n,), dtype=float32]
        At ``sample_rate``.

    Raises
    ------
    AudioError
        If it gives no audio, or the stretch is not in it or too short.
    """
    signal = load_audio(clip, sample_rate)
    seconds = len(signal) / sample_rate
    end_s = seconds if end_s is None else end_s
    if start_s < 0 or end_s > seconds + 0.05 or start_s >= end_s:
        raise AudioError(
            "open", f"no stretch from {start_s:g} to {end_s:.2f} s in {seconds:.2f} s of sound"
        )
    first, last = (round(t * sample_rate) for t in (start_s, end_s))
    stretch = signal[first:last]
    if len(stretch) < round(MIN_SECONDS * sample_rate):
        raise AudioError(
            "open", f"{len(stretch) / sample_rate:.2f} s of sound is too short: "
            f"give at least {MIN_SECONDS:g} s"
        )  # fmt: skip
    return stretch


def content_id(clip: Source) -> str | None:
    """The recording_id of a file with these bytes; None if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(clip, bytes):
        digest.update(clip)
        return digest.hexdigest()
    try:
        with Path(clip).open("rb") as file:  # type: ignore[arg-type]
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, TypeError):
        return None
    return digest.hexdigest()
