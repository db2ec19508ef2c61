"""Small pictures of pairs: the spectrograms of both files on one time axis."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np

from encoders.audio import open_audio
from encoders.errors import AudioError
from encoders.features import FeatureSpec, log_mel
from index.schema import DuplicatePair

WIDTH, HEIGHT, GAP = 640, 72, 4
"""Pixels: of the picture, of one spectrogram, between the two."""

_SAMPLE_RATE = 16_000
_MIN_FFT = 1024
_RANGE_DB = 60.0
# Shown before and after the stretch, as a share of it and in seconds at most; and in all.
_CONTEXT, _MAX_CONTEXT_S = 0.15, 3.0
_MAX_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class View:
    """What a picture shows.

    Attributes
    ----------
    start_s, seconds : float
        In the time of a: where the picture begins, and how much it shows.
    shared_from, shared_to : float
        Where the stretch that both share lies, as shares of the width.
    """

    start_s: float
    seconds: float
    shared_from: float
    shared_to: float

    @classmethod
    def of(cls, pair: DuplicatePair, a_seconds: float, b_seconds: float) -> View:
        """The shared stretch of a pair, and a little around it where a file has more.

        Parameters
        ----------
        pair : DuplicatePair
        a_seconds, b_seconds : float
            Lengths of the two files.
        """
        length = max(pair.a_end_s - pair.a_start_s, 1e-3)
        context = min(_CONTEXT * length, _MAX_CONTEXT_S)
        before = max(pair.a_start_s, pair.b_start_s / pair.speed)
        after = max(a_seconds - pair.a_end_s, (b_seconds - pair.b_end_s) / pair.speed)
        before, after = (min(context, max(0.0, more)) for more in (before, after))
        seconds = min(before + length + after, _MAX_SECONDS)
        shared_to = min(1.0, (before + length) / seconds)
        return cls(pair.a_start_s - before, seconds, before / seconds, shared_to)


def draw_pair(a: Path, b: Path, pair: DuplicatePair, view: View) -> str:
    """Draw both files, a above b; what lies outside a file is left transparent.

    Parameters
    ----------
    a, b : Path
    pair : DuplicatePair
        How their times correspond.
    view : View

    Returns
    -------
    picture : str
        A ``data:`` URI, WebP.

    Raises
    ------
    AudioError
        If a file cannot be decoded.
    """
    from PIL import Image

    columns = view.start_s + (np.arange(WIDTH) + 0.5) * view.seconds / WIDTH
    in_b = pair.b_start_s + (columns - pair.a_start_s) * pair.speed
    pixels = np.zeros((2 * HEIGHT + GAP, WIDTH, 4), np.uint8)
    pixels[:HEIGHT] = _colour(_spectrogram(a, columns))
    pixels[HEIGHT + GAP :] = _colour(_spectrogram(b, in_b))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=60, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _spectrogram(path: Path, times: np.ndarray) -> np.ndarray:
    # dB [shape=(n_times, HEIGHT)]; NaN where the file has no sound to show.
    step = float(times[1] - times[0])
    hop = max(16, round(step * _SAMPLE_RATE))
    n_fft = max(_MIN_FFT, 2 ** int(np.ceil(np.log2(2 * hop))))
    spec = FeatureSpec(
        sample_rate=_SAMPLE_RATE, n_fft=n_fft, hop_length=hop, n_mels=HEIGHT,
        window_length=hop, window_hop=hop,
    )  # fmt: skip
    first = max(0, int(times[0] * _SAMPLE_RATE) - n_fft)
    signal = _read(path, first, int(times[-1] * _SAMPLE_RATE) + n_fft)
    frames = log_mel(signal, spec)
    places = np.round((times * _SAMPLE_RATE - first) / hop).astype(int)
    inside = (times >= 0) & (times * _SAMPLE_RATE < first + len(signal))
    shown = np.full((len(times), HEIGHT), np.nan, np.float32)
    shown[inside] = frames[np.clip(places[inside], 0, len(frames) - 1)]
    return shown


def _read(path: Path, first: int, last: int) -> np.ndarray:
    kept, position = [], 0
    with open_audio(path, _SAMPLE_RATE) as stream:
        for block in stream.blocks():
            end = position + len(block)
            if end > first:
                kept.append(block[max(0, first - position) : max(0, last - position)])
            position = end
            if position >= last:
                break
    if not kept:
        raise AudioError("decode", f"it ends before {first / _SAMPLE_RATE:.1f} s")
    return np.concatenate(kept)


def _colour(frames: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    known = frames[~np.isnan(frames)]
    top = float(np.percentile(known, 99.8)) if len(known) else 0.0
    levels = (frames.T[::-1] - top) / _RANGE_DB + 1.0
    colours = np.asarray(colormaps["magma"](np.nan_to_num(levels), bytes=True)).copy()
    colours[np.isnan(levels), 3] = 0
    return colours
