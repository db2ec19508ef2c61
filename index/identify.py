"""Which recording is this, and where in it? A clip in, matches out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from encoders.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, open_audio
from encoders.bundle import Bundle, load_bundle, unit_vectors
from encoders.errors import CatalogError
from encoders.features import SILENCE_DB, FeatureSpec, cut_windows, stream_windows
from index.catalog import Catalog
from index.match import (
    EDGE,
    QUICK_FROM,
    STEPS,
    Scored,
    Spectrogram,
    find_alignments,
    look_quickly,
    score_alignments,
    sharpen,
    sounding,
)
from index.schema import Match
from index.search import FingerprintIndex

# Candidates whose lag and speed are fitted though they may be none.
_REFINED = 3


class Identifier:
    """Looks clips up in a catalog.

    >>> identifier = Identifier("my-catalog")
    >>> for match in identifier.identify("clip.ogg"):
    ...     print(match.reference, match.reference_start_s, match.score)

    Parameters
    ----------
    catalog : str or Path
    bundle : str or Path, optional
        Folder of the fingerprint encoder, when it is not one of those that come with earmark.

    Raises
    ------
    CatalogError
        If there is no catalog, no index, or it was made by an encoder that is not at hand.
    """

    def __init__(self, catalog: str | Path, bundle: str | Path | None = None) -> None:
        self.catalog = Catalog.open(catalog)
        wanted = self.catalog.config.fingerprint
        self.bundle: Bundle = load_bundle(bundle or wanted.name, wanted.precision)
        if self.bundle.sha256 != wanted.sha256:
            raise CatalogError(
                f"{catalog} was made by the encoder {wanted.name} {wanted.sha256[:12]}, and "
                f"{self.bundle.folder} holds {self.bundle.sha256[:12]}: name the folder of the "
                "right one with --encoder, or ingest again into a new catalog"
            )
        self.spec: FeatureSpec = dataclasses.replace(
            self.bundle.spec, window_hop=self.bundle.spec.window_hop // STEPS
        )
        self.index = FingerprintIndex.open(self.catalog)

    def identify(
        self,
        clip: str | os.PathLike[str] | bytes | BinaryIO | np.ndarray,
        sample_rate: int | None = None,
        top: int | None = 5,
        threshold: float | None = None,
        name: str | None = None,
    ) -> list[Match]:
        """Find a clip.

        Parameters
        ----------
        clip : path, bytes, open file, or np.ndarray [shape=(n,) or (n, channels)]
            Integers are scaled by their range.
        sample_rate : int, optional
            Of an array, in Hz.
        top : int or None
            At most this many matches; None gives all.
        threshold : float, optional
            Scores below it are not reported; 0 gives the best candidates whatever their score
            (silence has none).
            [default: the encoder's own]
        name : str, optional
            What the matches call the query. [default: the path]

        Returns
        -------
        matches : list of Match
            Best first; empty when nothing is found.

        Raises
        ------
        AudioError
            If the clip gives no audio.
        ValueError
            If an array is of another shape, or its rate is missing or absurd.
        """
        if isinstance(clip, np.ndarray):
            if sample_rate is None or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
                raise ValueError(f"an array needs its sample_rate in Hz, got {sample_rate}")
            signal = soxr.resample(_to_mono(clip), sample_rate, self.spec.sample_rate)
            return self._identify(name or "array", [signal], top, threshold)
        if name is None:
            name = os.fspath(clip) if isinstance(clip, (str, os.PathLike)) else "stream"
        with open_audio(clip, self.spec.sample_rate) as audio:
            return self._identify(name, audio.blocks(), top, threshold)

    def fingerprint(
        self, blocks: Iterable[np.ndarray], coarse: bool = False
    ) -> tuple[np.ndarray, Spectrogram, float]:
        """Query fingerprints of a mono signal at ``spec.sample_rate``, its frames, its seconds.

        Parameters
        ----------
        blocks : iterable of np.ndarray [shape=(n,)]
        coarse : bool
            Of a long signal encode every other window only, and take those between for the means
            of their neighbours: good enough for a quick look.

        Returns
        -------
        fingerprints : np.ndarray [shape=(n, dim), dtype=float32]
            Every ``spec.window_hop`` samples, the first ``EDGE`` of them before the signal begins;
            zero where it is silent.
        spectrogram : Spectrogram
        seconds : float
        """
        n_samples, hop = 0, self.spec.hop_frames
        frames = [np.empty((0, self.spec.n_mels), np.float32)]

        def counted() -> Iterable[np.ndarray]:
            nonlocal n_samples
            for block in blocks:
                n_samples += len(block)
                yield block

        batches = [np.empty((0, self.bundle.dim), np.float32)]
        windows = np.empty((0, self.spec.window_frames, self.spec.n_mels), np.float32)
        for _, windows in stream_windows(counted(), self.spec):
            if len(batches) == 1:
                batches.append(self.encode(self._beyond(windows[0], before=True)))
                coarse = coarse and len(windows) + 2 * EDGE > QUICK_FROM
            batches.append(np.zeros((len(windows), self.bundle.dim), np.float32))
            step = 2 if coarse else 1
            batches[-1][::step] = self.encode(windows[::step])
            frames.append(windows[:, :hop].reshape(-1, self.spec.n_mels))
        if len(windows):
            batches.append(self.encode(self._beyond(windows[-1], before=False)))
            frames.append(windows[-1, hop:])
        fingerprints = np.concatenate(batches)
        if coarse:
            between = np.arange(EDGE + 1, len(fingerprints) - EDGE, 2)
            before, after = fingerprints[between - 1], fingerprints[between + 1]
            # Beside silence they are silent, too.
            both = sounding(before) & sounding(after)
            fingerprints[between] = unit_vectors(both[:, None] * (before + after))
        if n_samples < self.spec.window_length:
            # A single window, and part of it is padding already.
            fingerprints[:EDGE] = fingerprints[-EDGE:] = 0.0
        spectrogram = Spectrogram(np.concatenate(frames), EDGE * hop + 1, self.spec)
        return fingerprints, spectrogram, n_samples / self.spec.sample_rate

    def encode(self, windows: np.ndarray) -> np.ndarray:
        """Fingerprints of windows of the signal; zero where it is silent.

        Parameters
        ----------
        windows : np.ndarray [shape=(n, window_frames, n_mels)]

        Returns
        -------
        fingerprints : np.ndarray [shape=(n, dim), dtype=float32]
        """
        fingerprints = self.bundle.encode(windows)
        fingerprints[windows.max(axis=(1, 2)) < SILENCE_DB] = 0.0
        return fingerprints

    def _beyond(self, window: np.ndarray, before: bool) -> np.ndarray:
        # Windows that reach past an end of the signal [shape=(EDGE, window_frames, n_mels)]: its
        # first or last frame goes on.
        hop, reach = self.spec.hop_frames, EDGE * self.spec.hop_frames
        if before:
            frames = np.concatenate([window[:1].repeat(reach, axis=0), window[:-hop]])
        else:
            frames = np.concatenate([window[hop:], window[-1:].repeat(reach, axis=0)])
        return cut_windows(frames, self.spec)

    def candidates(self, blocks: Iterable[np.ndarray]) -> tuple[list[Scored], float]:
        """All rescored alignments of a signal, best first, and its seconds."""
        queries, spectrogram, seconds = self.fingerprint(blocks, coarse=True)
        alignments = look_quickly(queries, self.index, spectrogram)
        if not alignments:
            if len(queries) > QUICK_FROM:
                windows = cut_windows(spectrogram.frames, self.spec)
                queries[EDGE + 1 : -EDGE : 2] = self.encode(windows[1::2])
            alignments = find_alignments(
                queries,
                self.index,
                spectrogram=spectrogram,
                second=lambda: self._flattened(spectrogram),
            )
        scored = score_alignments(
            queries, alignments, self.index, self.bundle.calibration, spectrogram
        )
        # A clip shorter than a window is padded, and all padding is alike.
        held = min(1.0, seconds * self.spec.sample_rate / self.spec.window_length)
        for number, s in enumerate(scored):
            a = s.alignment
            if number < _REFINED or s.score >= self.bundle.calibration.threshold:
                a = sharpen(queries, a, self.index, spectrogram)
            scored[number] = dataclasses.replace(s, score=s.score * held, alignment=a)
        return scored, seconds

    def _flattened(self, spectrogram: Spectrogram) -> np.ndarray:
        # Fingerprints of the query without its mean spectrum, which may be that of a hum or a room
        # [shape as from fingerprint].
        mean = spectrogram.frames.mean(axis=0)
        fingerprints = self.encode(cut_windows(spectrogram.frames - mean + mean.mean(), self.spec))
        return np.pad(fingerprints, ((EDGE, EDGE), (0, 0)))

    def matches(self, name: str, scored: Iterable[Scored], seconds: float) -> list[Match]:
        """Candidates as they are reported.

        Places of one recording that sound the same are one match and its alternatives.

        Parameters
        ----------
        name : str
            What the matches call the query.
        scored : iterable of Scored
            Best first.
        seconds : float
            Length of the query.
        """
        places: dict[tuple[int, int], list[Scored]] = {}
        for s in scored:
            places.setdefault((s.group, s.alignment.recording), []).append(s)
        start_s = -EDGE * self._step_s
        return [
            self.match(name, rank, same[0], seconds, start_s, alternatives=same[1:])
            for rank, same in enumerate(places.values(), 1)
        ]

    def match(
        self,
        name: str,
        rank: int,
        scored: Scored,
        seconds: float,
        origin_s: float,
        span: tuple[int, int] | None = None,
        alternatives: Sequence[Scored] = (),
    ) -> Match:
        """A candidate as it is reported.

        Parameters
        ----------
        name : str
            What the match calls the query.
        rank : int
        scored : Scored
        seconds : float
            Length of the query.
        origin_s : float
            When the first query window begins.
        span : (int, int), optional
            First and last query window of the match. [default: what the alignment says]
        alternatives : sequence of Scored
            Other places of the recording where it fits as well.
        """
        a, step = scored.alignment, self._step_s
        first, last = span or (a.first, a.last)
        length = self.spec.window_length / self.spec.sample_rate
        reference_seconds = self.index.seconds(a.recording)
        query_start = max(0.0, origin_s + first * step)
        # A query's last windows may end up to a step before it does.
        query_end = min(seconds, origin_s + last * step + length + step)
        # Where the reference begins after the query, or ends before it, so does the match.
        at_start = (query_start - origin_s) / step
        reference_start = step * a.reference_step(at_start)
        if reference_start < 0:
            query_start -= reference_start / a.speed
            reference_start = 0.0
        reference_end = reference_start + (query_end - query_start) * a.speed
        if reference_end > reference_seconds:
            query_end -= (reference_end - reference_seconds) / a.speed
            reference_end = reference_seconds
        others = (step * other.alignment.reference_step(at_start) for other in alternatives)
        return Match(
            query=name,
            rank=rank,
            reference=self.index.uri(a.recording),
            recording_id=self.index.recording_id(a.recording),
            query_start_s=round(query_start, 3),
            query_end_s=round(query_end, 3),
            reference_start_s=round(reference_start, 3),
            reference_end_s=round(reference_end, 3),
            score=round(scored.score, 4),
            speed=round(a.speed, 3),
            alternatives=tuple(sorted(round(max(0.0, other), 3) for other in others)),
        )

    def _identify(
        self, name: str, blocks: Iterable[np.ndarray], top: int | None, threshold: float | None
    ) -> list[Match]:
        least = self.bundle.calibration.threshold if threshold is None else threshold
        scored, seconds = self.candidates(blocks)
        return self.matches(name, [s for s in scored if s.score >= least], seconds)[:top]

    @property
    def _step_s(self) -> float:
        return self.spec.window_hop / self.spec.sample_rate


def _to_mono(samples: np.ndarray) -> np.ndarray:
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 0 < samples.shape[1] <= 64):
        raise ValueError(f"samples must be [shape=(n,) or (n, channels)], got {samples.shape}")
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.float32(np.iinfo(samples.dtype).max)
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return np.nan_to_num(mono.astype(np.float32), posinf=0.0, neginf=0.0)
