"""Log-mel and MFCC spectrograms, and the windows cut from them.

One spectrogram is computed per recording, as a stream, and windows are slices of it. The
definitions are librosa's (``librosa.feature.melspectrogram`` and ``mfcc`` with ``center=True``,
constant padding, a Hann window and Slaney mel bands); the tests hold librosa as the oracle.

Times are integer samples at ``FeatureSpec.sample_rate``; frame ``k`` is centred on sample
``k * hop_length``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft
import scipy.signal

AMIN = 1e-10
"""Power below which the log is clamped, librosa's ``amin``: the log-mel floor is -100 dB."""

FLOOR_DB = 10.0 * float(np.log10(AMIN))

SILENCE_DB = -70.0
"""A window whose loudest mel band stays below this (dB re full scale) carries no sound to find."""

# Frames per FFT call. The grid starts at the first frame of the recording, whatever the sizes of
# the blocks that come in, so that streamed and whole spectrograms agree bit for bit.
_FRAMES_PER_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """How sound becomes frames and frames become windows. Frozen, hashable, stored with outputs.

    Parameters
    ----------
    sample_rate : int
        Hz of the mono signal that the features are computed from.
    n_fft, hop_length : int
        FFT size and frame step, in samples.
    n_mels : int
        Mel bands between ``fmin`` and ``fmax`` (Hz), Slaney scale and norm.
    window_length, window_hop : int
        Length and step of the windows that are embedded, in samples; multiples of ``hop_length``.
    n_mfcc : int
        Cepstral coefficients (DCT-II, orthonormal).
    lifter : int
        Cepstral lifter as librosa defines it; 0 turns it off.
    """

    sample_rate: int = 16_000
    n_fft: int = 2048
    hop_length: int = 500
    n_mels: int = 128
    fmin: float = 50.0
    fmax: float = 8000.0
    window_length: int = 16_000
    window_hop: int = 8_000
    n_mfcc: int = 20
    lifter: int = 0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels", "window_length", "window_hop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.window_length % self.hop_length or self.window_hop % self.hop_length:
            raise ValueError("window_length and window_hop must be multiples of hop_length")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"need 0 <= fmin < fmax <= {self.sample_rate / 2} Hz")
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise ValueError("need 1 <= n_mfcc <= n_mels")
        if self.lifter < 0:
            raise ValueError("lifter must not be negative")
        if self.n_fft < 2 * self.hop_length:
            raise ValueError("n_fft must be at least twice hop_length")
        # Equal specs have equal hashes: 50 and 50.0 must not differ.
        object.__setattr__(self, "fmin", float(self.fmin))
        object.__setattr__(self, "fmax", float(self.fmax))

    @property
    def window_frames(self) -> int:
        """Frames in one window."""
        return self.window_length // self.hop_length

    @property
    def hop_frames(self) -> int:
        """Frames between the starts of neighbouring windows."""
        return self.window_hop // self.hop_length

    def n_windows(self, n_samples: int) -> int:
        """Windows in a recording of ``n_samples``: at least one unless it is empty."""
        if n_samples <= 0:
            return 0
        return 1 + max(0, n_samples - self.window_length) // self.window_hop

    def to_dict(self) -> dict[str, int | float]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self)

    @property
    def sha256(self) -> str:
        """Hash of the fields, the same on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def hz_to_mel(frequencies: np.ndarray | float) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    f = np.asarray(frequencies, dtype=np.float64)
    linear = f / (200.0 / 3)
    log = 15.0 + 27.0 * np.log(np.maximum(f, 1e-9) / 1000.0) / np.log(6.4)
    return np.where(f < 1000.0, linear, log)


def mel_to_hz(mels: np.ndarray | float) -> np.ndarray:
    """Inverse of :func:`hz_to_mel`."""
    m = np.asarray(mels, dtype=np.float64)
    return np.where(m < 15.0, m * (200.0 / 3), 1000.0 * 6.4 ** ((m - 15.0) / 27.0))


def mel_edges(spec: FeatureSpec) -> np.ndarray:
    """Edges of the mel bands, in mel [shape=(n_mels + 2,)]; band ``b`` peaks at edge ``b + 1``."""
    lowest, highest = (float(hz_to_mel(f)) for f in (spec.fmin, spec.fmax))
    return np.linspace(lowest, highest, spec.n_mels + 2)


@functools.lru_cache(maxsize=8)
def mel_filterbank(spec: FeatureSpec) -> np.ndarray:
    """Triangular, area-normalised mel filters.

    Returns
    -------
    filters : np.ndarray [shape=(n_fft // 2 + 1, n_mels), dtype=float32]
        Columns are bands, so that ``power @ filters`` is the mel spectrogram.
    """
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    edges = mel_to_hz(mel_edges(spec))
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return np.ascontiguousarray(filters.T, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _dct_basis(n_mels: int, n_mfcc: int, lifter: int) -> np.ndarray:
    basis = scipy.fft.dct(np.eye(n_mels), type=2, norm="ortho", axis=0)[:n_mfcc].T
    if lifter > 0:
        order = np.arange(1, n_mfcc + 1)
        basis = basis * (1.0 + (lifter / 2.0) * np.sin(np.pi * order / lifter))
    return np.ascontiguousarray(basis, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _hann(n_fft: int) -> np.ndarray:
    return scipy.signal.get_window("hann", n_fft, fftbins=True).astype(np.float32)


class LogMelStream:
    """Log-mel frames of a signal that arrives in blocks of any size.

    >>> stream = LogMelStream(spec)
    >>> for block in blocks:
    ...     frames = stream.push(block)     # [shape=(n, n_mels)], n may be 0
    >>> frames = stream.finish()            # the rest

    A signal shorter than one window is padded with zeros to one window.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.n_samples = 0
        self._pending = [np.zeros(spec.n_fft // 2, np.float32)]
        self._n_pending = spec.n_fft // 2

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take mono samples, give the frames that are now complete.

        Parameters
        ----------
        block : np.ndarray [shape=(n,), dtype=float32]

        Returns
        -------
        frames : np.ndarray [shape=(n_frames, n_mels), dtype=float32]
            Decibels relative to full scale.
        """
        self.n_samples += len(block)
        self._pending.append(np.asarray(block, dtype=np.float32))
        self._n_pending += len(block)
        return self._drain(final=False)

    def finish(self) -> np.ndarray:
        """Give the last frames. The stream is not used after that."""
        if self.n_samples == 0:
            return np.empty((0, self.spec.n_mels), np.float32)
        missing = max(0, self.spec.window_length - self.n_samples)
        padding = np.zeros(missing + self.spec.n_fft // 2, np.float32)
        self._pending.append(padding)
        self._n_pending += len(padding)
        return self._drain(final=True)

    def _drain(self, final: bool) -> np.ndarray:
        hop, n_fft = self.spec.hop_length, self.spec.n_fft
        block_span = (_FRAMES_PER_BLOCK - 1) * hop + n_fft
        if not final and self._n_pending < block_span:
            return np.empty((0, self.spec.n_mels), np.float32)
        signal = np.concatenate(self._pending)
        frames = []
        start = 0
        while len(signal) - start >= block_span:
            frames.append(self._log_mel(signal[start : start + block_span]))
            start += _FRAMES_PER_BLOCK * hop
        if final and len(signal) - start >= n_fft:
            frames.append(self._log_mel(signal[start:]))
        # A view would keep the whole signal alive.
        self._pending = [signal[start:].copy()]
        self._n_pending = len(signal) - start
        return np.concatenate(frames) if frames else np.empty((0, self.spec.n_mels), np.float32)

    def _log_mel(self, signal: np.ndarray) -> np.ndarray:
        spec = self.spec
        frames = np.lib.stride_tricks.sliding_window_view(signal, spec.n_fft)[:: spec.hop_length]
        spectrum = scipy.fft.rfft(frames * _hann(spec.n_fft), axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mel = power @ mel_filterbank(spec)
        return to_decibels(mel)


def log_mel(signal: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Log-mel spectrogram of a whole signal.

    Parameters
    ----------
    signal : np.ndarray [shape=(n_samples,)]
        Mono, at ``spec.sample_rate``.

    Returns
    -------
    frames : np.ndarray [shape=(n_frames, n_mels), dtype=float32]
        dB; ``librosa.power_to_db(librosa.feature.melspectrogram(...), top_db=None).T``.
    """
    stream = LogMelStream(spec)
    return np.concatenate([stream.push(signal), stream.finish()])


def to_decibels(power: np.ndarray) -> np.ndarray:
    """Power in dB, of any shape; of :data:`FLOOR_DB` at least."""
    return 10.0 * np.log10(np.maximum(power, np.float32(AMIN)))


def to_power(decibels: np.ndarray) -> np.ndarray:
    """What :func:`to_decibels` was given."""
    return np.power(np.float32(10.0), decibels / np.float32(10.0))


def mfcc(frames: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """MFCCs of log-mel frames.

    Parameters
    ----------
    frames : np.ndarray [shape=(..., n_mels)]
        dB, from :func:`log_mel` or :class:`LogMelStream`.

    Returns
    -------
    coefficients : np.ndarray [shape=(..., n_mfcc), dtype=float32]
        ``librosa.feature.mfcc(S=..., n_mfcc=..., lifter=...)`` of the same frames.
    """
    return frames @ _dct_basis(spec.n_mels, spec.n_mfcc, spec.lifter)


def mfcc_summary(windows: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Mean and standard deviation over time of each window's MFCCs.

    Parameters
    ----------
    windows : np.ndarray [shape=(n, window_frames, n_mels)]

    Returns
    -------
    summary : np.ndarray [shape=(n, 2 * n_mfcc), dtype=float32]
        The means, then the standard deviations.
    """
    coefficients = mfcc(windows, spec)
    return np.concatenate([coefficients.mean(axis=1), coefficients.std(axis=1)], axis=1)


def cut_windows(frames: np.ndarray, spec: FeatureSpec, hop_frames: int | None = None) -> np.ndarray:
    """Cut frames into overlapping windows.

    The frames of a whole recording may hold one window more than ``spec.n_windows``: its last
    frames, centred near the end, reach beyond it.

    Parameters
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
    hop_frames : int, optional
        Step between windows, in frames. [default: ``spec.hop_frames``]

    Returns
    -------
    windows : np.ndarray [shape=(n, window_frames, n_mels)]
        A read-only view.
    """
    if len(frames) < spec.window_frames:
        return np.empty((0, spec.window_frames, spec.n_mels), np.float32)
    view = np.lib.stride_tricks.sliding_window_view(frames, spec.window_frames, axis=0)
    return view[:: hop_frames or spec.hop_frames].swapaxes(1, 2)


def stream_windows(
    blocks: Iterable[np.ndarray], spec: FeatureSpec, batch: int = 64
) -> Iterator[tuple[int, np.ndarray]]:
    """Windows of a signal that arrives in blocks.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,)]
        Mono samples at ``spec.sample_rate``.
    batch : int
        Windows per item, all but the last.

    Yields
    ------
    start_sample : int
        Start of the first window of the batch; the next ones follow at ``spec.window_hop``.
    windows : np.ndarray [shape=(n, window_frames, n_mels), dtype=float32]
    """
    stream = LogMelStream(spec)
    step = batch * spec.hop_frames
    span = (batch - 1) * spec.hop_frames + spec.window_frames
    kept = np.empty((0, spec.n_mels), np.float32)
    start = 0
    for block in blocks:
        kept = np.concatenate([kept, stream.push(block)])
        while len(kept) >= span:
            yield start, cut_windows(kept[:span], spec)
            kept = kept[step:].copy()
            start += batch * spec.window_hop
    kept = np.concatenate([kept, stream.finish()])
    n_left = spec.n_windows(stream.n_samples) - start // spec.window_hop
    for first in range(0, n_left, batch):
        n = min(batch, n_left - first)
        begin = first * spec.hop_frames
        end = begin + (n - 1) * spec.hop_frames + spec.window_frames
        yield start + first * spec.window_hop, cut_windows(kept[begin:end], spec)
