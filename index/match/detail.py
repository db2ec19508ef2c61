"""The finest look at an alignment: do the signs of the two spectrograms agree, frame by frame?

Fingerprints tell sounds that are alike, and music is full of sounds that are alike. Signs
(:mod:`encoders.signs`) agree where the sound is the same, however loud something else is beside it,
and are a matter of chance everywhere else. They also tell the time to a frame.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from encoders.features import FeatureSpec, hz_to_mel, mel_edges, mel_to_hz
from encoders.signs import n_signs, signs
from index.search import FingerprintIndex

# Frames on both sides of an alignment's lag at which signs are compared: half a second, and a whole
# one for a query of up to so many frames, whose fingerprints tell less of its place.
_NEAR, _WIDE, _SHORT = 16, 32, 128
# Places that are compared at once, so that what is tabulated stays in the cache.
_AT_ONCE = 64
# Frames that are compared at a time; a longer query is compared piece by piece, since its lag and
# speed are not known to a frame from end to end.
_PIECE = 320
ANY_PITCH: Sequence[float] = (1.0, 0.94, 0.96, 0.98, 1.02, 1.04, 1.06)
"""Pitches of the query over that of the reference. Those between are near enough to one of them."""

SURE = 0.12
"""Strength that chance hardly ever has: the best of many moves has 0.04, give or take 0.012."""

CERTAIN = 0.13
"""Strength that chance has nowhere: the best of all places in 31 hours has 0.10 to 0.115, and in a
hundred times as many it has a hundredth more."""

WEIGHT = 6.0
"""What evidence counts beside similarity: of wrong places both differ about as much then."""

ENOUGH = 0.25
"""Strength above that says no more."""
# From so much agreement on no other pitch is tried.
_AGREED = 0.5


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """What a query sounds like, frame by frame.

    Attributes
    ----------
    frames : np.ndarray [shape=(n_frames, n_mels)]
        dB.
    first : int
        Frames between the beginning of the first query window and the first of these that has
        signs, which is the second.
    spec : FeatureSpec
        Of the query windows.
    """

    frames: np.ndarray
    first: int
    spec: FeatureSpec

    @property
    def per_step(self) -> int:
        """Frames between the beginnings of neighbouring query windows."""
        return self.spec.hop_frames

    @functools.cached_property
    def signs(self) -> np.ndarray:
        """Of all frames but the first [shape=(n_words, n_frames - 1), dtype=uint32]."""
        return _words_first(self.frames, self.spec)

    def at_pitch(self, pitch: float) -> np.ndarray:
        """The signs as they would be at another pitch.

        Parameters
        ----------
        pitch : float
            Of :data:`ANY_PITCH`.
        """
        return self.signs if pitch == 1.0 else self._pitched[ANY_PITCH.index(pitch) - 1]

    @functools.cached_property
    def heard(self) -> np.ndarray:
        """Whether there is anything in each of them: silence has no signs."""
        return np.any(self.signs != 0, axis=0)

    @functools.cached_property
    def rises(self) -> np.ndarray:
        """How much louder each is than the one before, squared [shape=(n_frames - 1,)]."""
        return np.maximum(np.diff(self.frames, axis=0), 0.0).mean(axis=1) ** 2

    @functools.cached_property
    def _pitched(self) -> list[np.ndarray]:
        edges = mel_edges(self.spec)
        low, step = edges[0], edges[1] - edges[0]
        centres = mel_to_hz(edges[1 : n_signs(self.spec) + 2])
        turned = []
        for pitch in ANY_PITCH[1:]:
            at = (hz_to_mel(centres * pitch) - low) / step - 1
            at = np.clip(at, 0, self.spec.n_mels - 1.001)
            below = at.astype(int)
            part = (at - below).astype(np.float32)
            levels = self.frames[:, below] * (1 - part) + self.frames[:, below + 1] * part
            turned.append(_words_first(levels, self.spec))
        return turned

    def seconds(self, n_frames: int | np.ndarray) -> float | np.ndarray:
        """How long so many frames take, s."""
        return n_frames * self.spec.hop_length / self.spec.sample_rate

    def places(self, lag: float, speed: float, begin: int, end: int) -> np.ndarray:
        """Frames of a reference, and parts of them, where some of the signs fall.

        Parameters
        ----------
        lag, speed : float
            As in :class:`~index.match.Alignment`.
        begin, end : int
            The first of the signs, and one past the last.
        """
        return lag * self.per_step + speed * (self.first + np.arange(begin, end))

    def stretch(self, first_step: float, last_step: float) -> tuple[int, int]:
        """Which of the signs lie in query windows: the first, and one past the last."""
        begin = round(first_step * self.per_step) - self.first
        end = round(last_step * self.per_step) + self.spec.window_frames - self.first
        n = len(self.heard)
        return min(max(0, begin), n), min(max(0, end), n)


@dataclasses.dataclass(frozen=True)
class Detail:
    """How the signs of a query and of a recording agree.

    Attributes
    ----------
    agreement : float
        1 where all are the same, 0 where that is chance.
    strength : float
        Agreement times the root of the seconds compared: chance gives the same at any length.
    move : float
        Query steps by which the lag should grow for that.
    pitch : float
        Of the query over that of the recording.
    """

    agreement: float = 0.0
    strength: float = 0.0
    move: float = 0.0
    pitch: float = 1.0

    @property
    def evidence(self) -> float:
        """Strength as far as it counts: what is sure enough says no more when it is surer."""
        return min(max(self.strength, 0.0), ENOUGH)

    @property
    def is_certain(self) -> bool:
        """Whether it cannot be chance."""
        return self.strength >= CERTAIN

    @property
    def likeness(self) -> float:
        """What it adds to similarity."""
        return float(likeness(self.strength))


UNKNOWN = Detail()
"""Of an alignment of which no signs are known."""


def likeness(strength: float | np.ndarray) -> float | np.ndarray:
    """What signs of some strength add to similarity.

    Of places that are all sure, the surer one is a little more like the query: it is the repeat
    that is exactly the same.
    """
    return WEIGHT * np.clip(strength, 0.0, ENOUGH) + np.maximum(strength - ENOUGH, 0.0)


def strengths(
    query: Spectrogram,
    index: FingerprintIndex,
    recordings: np.ndarray,
    lags: np.ndarray,
    steps: np.ndarray,
    n_frames: int,
    stride: int = 1,
) -> np.ndarray:
    """How strongly signs agree around places of a query, at speed 1 and the best lag near each.

    Parameters
    ----------
    query : Spectrogram
    index : FingerprintIndex
    recordings, lags, steps : np.ndarray [shape=(n,), dtype=int]
        Where the query may lie, and the query window around which that is looked at.
    n_frames : int
        Frames to look at, at most.
    stride : int
        One of so many is.

    Returns
    -------
    strengths : np.ndarray [shape=(n,)]
        As in :class:`Detail`.
    """
    n_all = len(query.heard)
    n = min(n_frames, n_all)
    found = np.zeros(len(lags))
    if not n:
        return found
    middle = steps * query.per_step - query.first + query.spec.window_frames // 2
    begin = np.clip(middle - n // 2, 0, n_all - n)
    for start in range(0, len(lags), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found[some] = _strengths(query, index, recordings[some], lags[some], begin[some], n, stride)
    return found


def _strengths(
    query: Spectrogram,
    index: FingerprintIndex,
    recordings: np.ndarray,
    lags: np.ndarray,
    begin: np.ndarray,
    n: int,
    stride: int,
) -> np.ndarray:
    place = query.first + begin + lags * query.per_step
    near = _NEAR // 2
    held, known = _held(index, recordings, place[:, None] + np.arange(-near, n + near))
    held *= known[:, None]
    chosen = begin[:, None] + np.arange(0, n, stride)
    # [shape=(n_lags, n_words, n_moves, n_frames)]
    there = np.lib.stride_tricks.sliding_window_view(held, n, axis=2)[..., ::stride]
    differ = np.bitwise_count(there ^ query.signs[:, chosen].swapaxes(0, 1)[:, :, None])
    heard = query.heard[chosen]
    n_differ = (differ.sum(axis=1, dtype=np.uint8) * heard[:, None]).sum(axis=2, dtype=np.int32)
    n_heard = np.maximum(heard.sum(axis=1), 1)
    agreement = 1 - 2 * n_differ.min(axis=1) / (n_signs(query.spec) * n_heard)
    return agreement * np.sqrt(query.seconds(stride * n_heard))


def compare(
    query: Spectrogram,
    index: FingerprintIndex,
    recording: int,
    lag: float,
    speed: float,
    stretch: tuple[int, int],
    pitches: Sequence[float] = (1.0,),
) -> Detail:
    """How signs agree along an alignment, at the best lag and pitch near it.

    Parameters
    ----------
    query : Spectrogram
    index : FingerprintIndex
    recording : int
    lag, speed : float
        As in :class:`~index.match.Alignment`.
    stretch : (int, int)
        From :meth:`Spectrogram.stretch`.
    pitches : sequence of float
        What is tried, of :data:`ANY_PITCH`: the others only where the first does not agree.
    """
    begin, end = stretch
    heard = query.heard[begin:end]
    n_heard = int(heard.sum())
    if not n_heard:
        return UNKNOWN
    place = query.places(lag, speed, begin, end)
    near = _WIDE if end - begin <= _SHORT else _NEAR
    held, known = held_near(index, recording, np.round(place).astype(int), near)
    known &= heard
    n = n_signs(query.spec)
    agree = _agreement(query.at_pitch(pitches[0])[None, :, begin:end], held, known, n)
    n_all = n * n_heard
    if len(pitches) > 1 and agree.max() < _AGREED * n_all:
        others = np.stack([query.at_pitch(p)[:, begin:end] for p in pitches[1:]])
        agree = np.concatenate([agree, _agreement(others, held, known, n)])
    best, peak = np.unravel_index(np.argmax(agree), agree.shape)
    agreement = float(agree[best, peak]) / n_all
    strength = agreement * float(np.sqrt(query.seconds(n_heard)))
    move = (int(peak) - near) / query.per_step
    return Detail(agreement, strength, move, pitches[int(best)])


def held_near(
    index: FingerprintIndex, recording: int, frames: np.ndarray, near: int
) -> tuple[np.ndarray, np.ndarray]:
    """Signs of frames of a recording and of those near.

    Parameters
    ----------
    index : FingerprintIndex
    recording : int
    frames : np.ndarray [shape=(n_frames,), dtype=int]
    near : int
        Frames on both sides.

    Returns
    -------
    signs : np.ndarray [shape=(2 * near + 1, n_words, n_frames), dtype=uint32]
    known : np.ndarray [shape=(2 * near + 1, n_frames), dtype=bool]
        Whether the recording has them.
    """
    low = int(frames.min()) - near
    span = np.arange(low, int(frames.max()) + near + 1)
    held, known = (array[0] for array in _held(index, np.array([recording]), span[None]))
    if len(span) == len(frames) + 2 * near:
        # One after the other: no copies are needed.
        view = np.lib.stride_tricks.sliding_window_view
        return view(held, len(frames), axis=1).swapaxes(0, 1), view(known, len(frames)).copy()
    at = frames - low + np.arange(-near, near + 1)[:, None]
    return held[:, at].swapaxes(0, 1), known[at]


def _agreement(mine: np.ndarray, held: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    # Signs that are the same less those that are not, of every version of the query at every move
    # [shape=(n_versions, n_moves)]; where there are several pieces, that of the best move of each,
    # at the move of all together.
    total = np.zeros((len(mine), len(held)))
    best = np.zeros(len(mine))
    for start in range(0, mine.shape[2], _PIECE):
        piece = slice(start, start + _PIECE)
        differ = np.bitwise_count(held[None, :, :, piece] ^ mine[:, None, :, piece])
        n_differ = differ.sum(axis=2, dtype=np.uint8) * known[:, piece]
        agree = n * known[:, piece].sum(axis=1) - 2 * n_differ.sum(axis=2, dtype=np.int32)
        total += agree
        best += agree.max(axis=1)
    return total + (best - total.max(axis=1))[:, None]


def _words_first(frames: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    return np.ascontiguousarray(signs(frames, spec).T)


def _held(
    index: FingerprintIndex, recordings: np.ndarray, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Signs of frames of recordings [shape=(n, n_words, n_frames)], and whether they are known. The
    # first of a recording has none: signs are of two frames.
    n_frames, n_words = index.signs.shape[1:]
    ends = index.n_rows[recordings][:, None] * n_frames
    known = (frames > 0) & (frames <= ends)
    first = index.first_rows[recordings][:, None] * n_frames
    flat = index.signs.reshape(-1, n_words)
    held = flat[first + np.clip(frames - 1, 0, ends - 1)]
    return np.ascontiguousarray(held.transpose(0, 2, 1)), known
