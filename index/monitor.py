"""What is played when: hours of audio, or audio without an end, against a catalog.

The signal is looked up in overlapping pieces. Candidates of neighbouring pieces that lie on one
line through a recording are a track; a track that is not heard any more has ended, and becomes a
segment. Memory does not grow with the length of the audio.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from encoders.features import stream_windows
from index.half import widen
from index.identify import Identifier
from index.match import (
    STEPS,
    Alignment,
    Hits,
    Scored,
    Spectrogram,
    find_alignments,
    lay,
    look_quickly,
    score_alignments,
    sharpen,
)
from index.schema import Match

PIECE_S, HOP_S = 8.0, 2.0
"""Length of the pieces that are looked up, and their distance, s."""

MERGE_S = 10.0
"""A track that is heard again on its line after so many seconds, goes on; no less than a piece."""

LEAST_S = 1.5
"""Segments and gaps shorter than that are not told."""

# Signal that is kept: a track may have begun before it was sure.
_KEPT_S = 24.0
# On the line of a track that is there already, so many odds less will do.
_ODDS_ON_LINE = 20.0
# A track that was sure in a single piece only needs so many odds more.
_ODDS_ALONE = 5.0
# Query steps that a candidate may lie off the line of its track.
_OFF_LINE = STEPS
# Half a window, s.
_HALF_S = 0.5
# So much more similar is clearly better.
_CLEARLY = 0.1
# Recordings this similar, place by place, are one sound in two mixes.
_ALIKE = 0.3
# Places of two tracks that are compared.
_MAX_COMPARED = 256
# Query steps from which two pieces tell the speed better than one.
_LONG = 48


@dataclasses.dataclass(eq=False)
class _Track:
    """A recording being played. Places are query steps from the start of the signal.

    ``scored`` is what the latest piece said, which began at ``origin``; ``anchor`` is a place in
    the signal and one in the recording, from the first piece.
    """

    scored: Scored
    origin: int
    first: int
    last: int
    anchor: tuple[float, float]
    n_pieces: int = 1
    similarity: float = 0.0

    @property
    def recording(self) -> int:
        return self.scored.alignment.recording

    def reference_step(self, step: float) -> float:
        return self.scored.alignment.reference_step(step - self.origin)

    def is_on_line(self, alignment: Alignment, origin: int) -> bool:
        middle = _middle(alignment)
        expected = self.reference_step(origin + middle)
        return (
            alignment.recording == self.recording
            and abs(alignment.reference_step(middle) - expected) <= _OFF_LINE
        )

    def yields_to(self, other: _Track) -> bool:
        """Whether at most of its time there is another, which fits better."""
        common = min(self.last, other.last) - max(self.first, other.first)
        return (
            other is not self
            and 2 * common > self.last - self.first
            and other.strength > self.strength
        )

    @property
    def strength(self) -> tuple[float, int, int]:
        """How well it fits; of two that begin on one line in neighbouring pieces, the earlier."""
        return self.n_pieces * self.similarity, self.last - self.first, id(self)

    def line(self) -> Alignment:
        """The straight line from the first piece to the latest, with the signal's own steps."""
        a = self.scored.alignment
        step = self.origin + _middle(a)
        reached = self.reference_step(step)
        played, speed = step - self.anchor[0], a.speed
        if played >= _LONG:
            speed = (reached - self.anchor[1]) / played
        if abs(speed - 1) * played < _OFF_LINE / 4:
            speed = 1.0
        return dataclasses.replace(a, lag=reached - speed * step, speed=speed)


def _middle(alignment: Alignment) -> float:
    return (alignment.first + alignment.last) / 2


class Monitor:
    """Follows what is played.

    >>> monitor = Monitor(Identifier("my-catalog"))
    >>> with open_audio("broadcast.mp3", monitor.sample_rate) as audio:
    ...     for segment in monitor.segments("broadcast.mp3", audio.blocks()):
    ...         print(segment.query_start_s, segment.query_end_s, segment.reference)

    Parameters
    ----------
    identifier : Identifier
    threshold : float, optional
        Score from which a recording is taken to be there. [default: the encoder's own]
    merge_s, least_s : float
        As :data:`MERGE_S` and :data:`LEAST_S`.

    Raises
    ------
    ValueError
        If ``merge_s`` is less than a piece.
    """

    def __init__(
        self,
        identifier: Identifier,
        threshold: float | None = None,
        merge_s: float = MERGE_S,
        least_s: float = LEAST_S,
    ) -> None:
        if merge_s < PIECE_S:
            raise ValueError(f"merge_s must be {PIECE_S:g} s or more, got {merge_s}")
        calibration = identifier.bundle.calibration
        self.identifier = identifier
        self.threshold = calibration.threshold if threshold is None else threshold
        self.merge_s, self.least_s = merge_s, least_s
        spec = identifier.spec
        self.sample_rate = spec.sample_rate
        self._step_s = spec.window_hop / spec.sample_rate

    def segments(self, name: str, blocks: Iterable[np.ndarray]) -> Iterator[Match]:
        """What is played, segment by segment.

        Parameters
        ----------
        name : str
            What the segments call the signal.
        blocks : iterable of np.ndarray [shape=(n,)]
            Mono, at :attr:`sample_rate`.

        Yields
        ------
        segment : Match
            As soon as it has ended. ``rank`` 1, and a stretch where nothing was found has rank 0
            and no reference. Segments overlap where recordings do; gaps overlap nothing.
        """
        return _Listening(self, name).listen(blocks)

    def steps(self, seconds: float) -> int:
        """Seconds in query steps."""
        return round(seconds / self._step_s)

    def seconds(self, step: float) -> float:
        """Query steps in seconds."""
        return step * self._step_s


class _Listening:
    """One signal on its way through a monitor."""

    def __init__(self, monitor: Monitor, name: str) -> None:
        self._monitor = monitor
        self._name = name
        self._index = monitor.identifier.index
        self._piece, self._hop = monitor.steps(PIECE_S), monitor.steps(HOP_S)
        self._queries = np.empty((0, monitor.identifier.bundle.dim), np.float32)
        self._frames = np.empty((0, monitor.identifier.spec.n_mels), np.float32)
        # Step of the first of them.
        self._begin = 0
        self._hits: collections.deque[Hits] = collections.deque(maxlen=self._piece // self._hop)
        self._open: list[_Track] = []
        self._told: list[_Track] = []
        self._told_until_s = 0.0
        self._n_samples = 0

    def listen(self, blocks: Iterable[np.ndarray]) -> Iterator[Match]:
        spec = self._monitor.identifier.spec
        for start, windows in stream_windows(self._counted(blocks), spec, self._hop):
            step = start // spec.window_hop
            self._take(step, windows)
            yield from self._tell(self._now - self._monitor.steps(self._monitor.merge_s))
        yield from self._tell(ended_before=None)
        yield from self._gap(self._n_samples / spec.sample_rate)

    def _counted(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self._n_samples += len(block)
            yield block

    @property
    def _now(self) -> int:
        return self._begin + len(self._queries)

    def _take(self, step: int, windows: np.ndarray) -> None:
        identifier, kept = self._monitor.identifier, self._monitor.steps(_KEPT_S)
        hop = identifier.spec.hop_frames
        queries, frames = identifier.encode(windows), np.concatenate(windows[:, :hop])
        self._queries = np.concatenate([self._queries, queries])[-kept:]
        self._frames = np.concatenate([self._frames, frames])[-kept * hop :]
        self._begin = step + len(queries) - len(self._queries)
        # Every other window will do: each piece holds many.
        self._hits.append(Hits.of(queries, np.arange(0, len(queries), 2), self._index).moved(step))
        origin = max(self._begin, self._now - self._piece)
        piece = self._queries[origin - self._begin :]
        hits = Hits.join(self._hits).moved(-origin)
        lines = [(t.recording, round(t.reference_step(origin))) for t in self._open]
        heard = self._frames[(origin - self._begin) * hop :]
        spectrogram = Spectrogram(np.concatenate([heard, windows[-1, hop:]]), 1, identifier.spec)
        alignments = look_quickly(piece, self._index, spectrogram, hits, lines) or find_alignments(
            piece, self._index, hits, lines, spectrogram
        )
        calibration = identifier.bundle.calibration
        scored = score_alignments(piece, alignments, self._index, calibration, spectrogram)
        for number, s in enumerate(scored):
            if s.alignment.detail.is_certain:
                placed = sharpen(piece, s.alignment, self._index, spectrogram)
                scored[number] = dataclasses.replace(s, alignment=placed)
        self._follow(scored, origin)

    def _follow(self, scored: list[Scored], origin: int) -> None:
        # Known lines first, so that a loop stays on its line.
        threshold = self._monitor.threshold
        on_line = _by_odds(threshold, 1 / _ODDS_ON_LINE)
        taken: set[int] = set()
        for track in self._open:
            here = (s for s in scored if track.is_on_line(s.alignment, origin))
            found = max(here, key=lambda s: s.score, default=None)
            if found is None or found.score < on_line:
                continue
            # It goes on there, unless the recording fits much better in another place.
            best = max(s.evidence.similarity for s in scored if s.group == found.group)
            if found.evidence.similarity > best - _CLEARLY:
                taken.add(found.group)
                self._extend(track, found, origin)
        for s in scored:
            # The best of each sound: not its copies, nor the other places of a loop.
            if s.score >= threshold and s.group not in taken:
                taken.add(s.group)
                self._open.append(self._begin_track(s, origin))

    def _begin_track(self, scored: Scored, origin: int) -> _Track:
        a = scored.alignment
        middle = _middle(a)
        anchor = (origin + middle, a.reference_step(middle))
        track = _Track(scored, origin, origin + a.first, origin + a.last, anchor)
        track.similarity = scored.evidence.similarity
        # It may have begun before this piece, when it was not sure yet.
        lag = track.reference_step(self._begin)
        long = lay(self._queries, self._index, a.recording, lag, a.speed)
        if long is not None and self._begin + long.last >= track.first:
            track.first = min(track.first, self._begin + long.first)
        return track

    def _extend(self, track: _Track, scored: Scored, origin: int) -> None:
        last = origin + scored.alignment.last
        score = max(track.scored.score, scored.score)
        if last > track.last:
            track.last = last
            track.origin = origin
            track.scored = scored
        track.scored = dataclasses.replace(track.scored, score=score)
        track.n_pieces += 1
        track.similarity = max(track.similarity, scored.evidence.similarity)

    def _tell(self, ended_before: int | None) -> Iterator[Match]:
        ended = [t for t in self._open if ended_before is None or t.last < ended_before]
        self._open = [t for t in self._open if t not in ended]
        # What may still begin in something that was told has begun by now.
        begun = min((t.first for t in [*self._open, *ended]), default=self._now)
        self._told = [t for t in self._told if t.last > begun]
        alone = _by_odds(self._monitor.threshold, _ODDS_ALONE)
        for track in sorted(ended, key=lambda t: t.first):
            if track.n_pieces == 1 and track.scored.score < alone:
                continue
            better = (t for t in [*self._open, *ended] if track.yields_to(t))
            if any(t.recording == track.recording or self._sound_alike(track, t) for t in better):
                continue
            # A loop goes on in one place and then in another: what was told stays.
            same = [t for t in self._told if t.recording == track.recording]
            for told in sorted(same, key=lambda t: t.first):
                if told.first <= track.first:
                    track.first = max(track.first, told.last + 1)
            if track.first > track.last:
                continue
            segment = self._segment(track)
            start_s, end_s = segment.query_start_s or 0.0, segment.query_end_s or 0.0
            if end_s - start_s < self._monitor.least_s:
                continue
            # What began before it and goes on is told later.
            others = (self._monitor.seconds(t.first) for t in self._open)
            yield from self._gap(min([start_s, *others]))
            yield segment
            self._told.append(track)
            self._told_until_s = max(self._told_until_s, end_s)

    def _sound_alike(self, track: _Track, other: _Track) -> bool:
        # Whether two recordings hold much the same while both are there: mixes of one piece, say.
        first, last = max(track.first, other.first), min(track.last, other.last)
        n = min(_MAX_COMPARED, 1 + (last - first) // STEPS)
        steps = np.linspace(first, last, n)
        pairs = (self._held(track, steps) * self._held(other, steps)).sum(axis=1)
        return float(pairs.mean()) > _ALIKE

    def _held(self, track: _Track, steps: np.ndarray) -> np.ndarray:
        # What the recording of a track holds at some of its steps [shape=(n, dim)]; zero beyond it.
        vectors = self._index.fingerprints(track.recording)
        rows = track.scored.alignment.windows(steps - track.origin)
        known = (rows >= 0) & (rows < len(vectors))
        return widen(vectors[np.clip(rows, 0, len(vectors) - 1)]) * known[:, None]

    def _gap(self, end_s: float) -> Iterator[Match]:
        start_s = self._told_until_s
        if end_s - start_s >= self._monitor.least_s:
            yield Match(
                self._name, 0, None, query_start_s=round(start_s, 3), query_end_s=round(end_s, 3)
            )
        self._told_until_s = max(start_s, end_s)

    def _segment(self, track: _Track) -> Match:
        # A window is taken to agree from about half of it on, unless the signal ends there.
        half = self._monitor.steps(_HALF_S)
        first = track.first + half * (track.first > 0)
        last = track.last - half * (track.last < self._now - 1)
        return self._monitor.identifier.match(
            self._name,
            1,
            dataclasses.replace(track.scored, alignment=track.line()),
            self._n_samples / self._monitor.sample_rate,
            origin_s=0.0,
            span=(first, max(first, last)),
        )


def _by_odds(score: float, factor: float) -> float:
    odds = factor * score / max(1e-9, 1 - score)
    return odds / (1 + odds)
