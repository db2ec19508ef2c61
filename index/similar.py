"""Where else does a sound like this occur? A clip in, ranked regions of recordings out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from encoders.errors import AudioError
from index.catalog import Catalog
from index.clips import ClipEncoder, Source, content_id
from index.column_index import ColumnIndex, Progress
from index.event_regions import window_span
from index.filters import chosen_rows
from index.schema import Event

_QUERY_HOP_S = 0.25
_FIRST_K = 256
_MOST_K = 16_384
# A region goes on while its windows are this similar, relative to the best of them.
_FALL = 0.85
# Windows on either side of a hit that its region may reach.
_REACH = 60


@dataclasses.dataclass(frozen=True)
class Region:
    """A run of windows that are like the query.

    Attributes
    ----------
    recording : int
        Number of the recording.
    first, last : int
        Its windows, counted from the start of the recording.
    cosine : float
        Of its best window with the query.
    """

    recording: int
    first: int
    last: int
    cosine: float


class SimilarSounds:
    """Looks for sounds of the same kind in a catalog.

    >>> sounds = SimilarSounds("my-catalog")
    >>> for event in sounds.find("bark.wav"):
    ...     print(event.reference, event.onset_s, event.offset_s, event.score)

    Parameters
    ----------
    catalog : str, Path or Catalog
    column : str, optional
        [default: ``event`` where the catalog has it, else ``latent``, else ``fingerprint``]
    bundle : str or Path, optional
        Folder of the column's encoder, when it is not one of those that come with earmark.
    progress : callable, optional
        ``progress(windows done, windows in all)`` if the index has to be built first.

    Raises
    ------
    CatalogError, BundleError
        If there is no catalog or column, or the encoder is not at hand.
    """

    def __init__(
        self,
        catalog: str | Path | Catalog,
        column: str | None = None,
        bundle: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.catalog = catalog if isinstance(catalog, Catalog) else Catalog.open(catalog)
        self.index = ColumnIndex.open(self.catalog, column, progress)
        self.encoder = ClipEncoder(self.index.info.encoder, bundle)
        self.spec = self.catalog.config.spec
        self._seconds = self.index.recordings["seconds"].to_numpy()

    def find(
        self,
        clip: Source,
        start_s: float = 0.0,
        end_s: float | None = None,
        *,
        top: int = 10,
        per_recording: int = 1,
        where: Mapping[str, str] | None = None,
        exclude_self: bool = False,
        min_score: float = 0.0,
        name: str | None = None,
    ) -> list[Event]:
        """Find regions that sound like a clip.

        Parameters
        ----------
        clip : path, bytes or open file
            From 0.2 s.
        start_s, end_s : float
            The stretch of it that counts. [default: all]
        top : int
            At most this many regions.
        per_recording : int
            At most this many of one recording.
        where : mapping of str to str, optional
            Only recordings with these labels; ``uri`` stands for the name, of which a part is
            enough.
        exclude_self : bool
            Leave out the stretch of the clip itself, if its recording is in the catalog.
        min_score : float
        name : str, optional
            What the events call the query. [default: the path]

        Returns
        -------
        events : list of Event
            Best first, with :meth:`score`.

        Raises
        ------
        AudioError
            If the clip gives no audio, or is shorter than 0.2 s.
        EarmarkError
            If no recording is as ``where`` says.
        """
        if name is None:
            name = os.fspath(clip) if isinstance(clip, (str, os.PathLike)) else "stream"
        queries = self.query_vectors(self.encoder.load(clip, start_s, end_s))
        barred = self._own_rows(clip, start_s, end_s) if exclude_self else None
        regions = self.regions(queries, top, per_recording, chosen_rows(self.index, where), barred)
        events = [self._event(name, rank, region) for rank, region in enumerate(regions, 1)]
        return [event for event in events if event.score >= min_score]

    def score(self, cosine: float) -> float:
        """Of a region whose best window is that near: how likely it is of the query's kind.

        With an encoder that was not calibrated it is the cosine itself, negative ones set to 0.
        """
        likeness = self.encoder.bundle.likeness
        return max(0.0, cosine) if likeness is None else likeness(cosine)

    def query_vectors(self, signal: np.ndarray) -> np.ndarray:
        """Unit vectors that stand for a signal [shape=(n, width), dtype=float32].

        That of its loudest second: what else is in a clip is more often a tail or a pause than
        what was meant. Of a shorter clip, one for each place that it may have in a window.

        Raises
        ------
        AudioError
            If it is silent.
        """
        windows = self.encoder.windows(signal, _QUERY_HOP_S)
        vectors = self.index.info.scaling(windows.rows(self.index.info.scaling))
        heard = vectors.any(axis=1)
        if not heard.any():
            raise AudioError("decode", "the clip is silent")
        if len(signal) < self.spec.window_length:
            return vectors[heard]
        return vectors[[int(np.argmax(np.where(heard, windows.levels_db, -np.inf)))]]

    def regions(
        self,
        queries: np.ndarray,
        top: int,
        per_recording: int = 1,
        rows: np.ndarray | None = None,
        barred: slice | None = None,
    ) -> list[Region]:
        """The most similar regions, best first.

        Parameters
        ----------
        queries : np.ndarray [shape=(n, width)]
            From :meth:`query_vectors`.
        top, per_recording : int
        rows : np.ndarray of bool [shape=(n_rows,)], optional
            Only these rows.
        barred : slice, optional
            None of these rows.
        """
        if barred is not None:
            rows = np.ones(self.index.info.n_rows, bool) if rows is None else rows.copy()
            rows[barred] = False
        k = _FIRST_K
        while True:
            scores, found = self.index.search(queries, k, rows)
            hits = self._best_hits(scores, found)
            n_recordings = len(np.unique(self.index.recording_of(hits))) if len(hits) else 0
            # One long recording of rain must not be the only answer.
            exhausted = k >= min(_MOST_K, self.index.info.n_rows)
            if n_recordings >= top or exhausted:
                return self._grow(hits, queries, top, per_recording, rows)
            k *= 4

    def _best_hits(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # Rows found by any of the queries, best first, each once.
        order = np.argsort(-scores, axis=None, kind="stable")
        ranked = rows.reshape(-1)[order]
        ranked = ranked[(ranked >= 0) & (scores.reshape(-1)[order] > 0)]
        _, firsts = np.unique(ranked, return_index=True)
        return ranked[np.sort(firsts)]

    def _grow(
        self, hits: np.ndarray, queries: np.ndarray, top: int, per_recording: int,
        rows: np.ndarray | None,
    ) -> list[Region]:  # fmt: skip
        regions: list[Region] = []
        taken: dict[int, list[Region]] = {}
        for row, recording in zip(hits, self.index.recording_of(hits), strict=True):
            # Scores of the index are rounded: look a little further than what was asked for.
            if len(regions) >= top + 5:
                break
            mine = taken.setdefault(int(recording), [])
            window = int(row - self.index.first_rows[recording])
            inside = any(r.first - 1 <= window <= r.last + 1 for r in mine)
            if len(mine) < per_recording and not inside:
                mine.append(self._region(int(recording), window, queries, rows))
                regions.append(mine[-1])
        regions.sort(key=lambda region: -region.cosine)
        return regions[:top]

    def _region(
        self, recording: int, window: int, queries: np.ndarray, rows: np.ndarray | None
    ) -> Region:
        low = max(0, window - _REACH)
        vectors = self.index.of_recording(recording)[low : window + _REACH + 1]
        scores = (vectors.astype(np.float32) @ queries.T).max(axis=1)
        if rows is not None:
            first = int(self.index.first_rows[recording]) + low
            scores = np.where(rows[first : first + len(scores)], scores, -1.0)
        here = window - low
        # The hit may stand beside the best window of its region.
        best = max(range(max(0, here - 1), min(len(scores), here + 2)), key=scores.__getitem__)
        alike = scores >= _FALL * scores[best]
        first = best - int(np.argmin(np.append(alike[best::-1], False))) + 1
        last = best + int(np.argmin(np.append(alike[best:], False))) - 1
        return Region(recording, low + first, low + last, float(min(1.0, scores[best])))

    def _event(self, query: str, rank: int, region: Region) -> Event:
        onset, offset = self.span(region)
        table = self.index.recordings
        return Event(
            query=query,
            rank=rank,
            reference=str(table["uri"][region.recording].as_py()),
            recording_id=str(table["recording_id"][region.recording].as_py()),
            onset_s=round(onset, 3),
            offset_s=round(offset, 3),
            label=dict(table["labels"][region.recording].as_py() or ()).get("label"),
            score=round(self.score(region.cosine), 4),
        )

    def span(self, region: Region) -> tuple[float, float]:
        """Onset and offset of a region, s."""
        return window_span(
            region.first,
            region.last,
            int(self.index.n_rows[region.recording]),
            float(self._seconds[region.recording]),
            self.spec,
        )

    def _own_rows(self, clip: Source, start_s: float, end_s: float | None) -> slice | None:
        own = content_id(clip)
        ids = self.index.recordings["recording_id"].to_pylist()
        uris = self.index.recordings["uri"].to_pylist()
        if own in ids:
            recording = ids.index(own)
        elif isinstance(clip, (str, os.PathLike)) and os.fspath(clip) in uris:
            recording = uris.index(os.fspath(clip))
        else:
            return None
        hop = self.spec.window_hop / self.spec.sample_rate
        length = self.spec.window_length / self.spec.sample_rate
        n = int(self.index.n_rows[recording])
        first = max(0, int((start_s - length) // hop) + 1)
        last = n if end_s is None else min(n, int(-(-end_s // hop)))
        begin = int(self.index.first_rows[recording])
        return slice(begin + min(first, n), begin + last)
