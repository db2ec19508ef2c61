"""Every Arrow schema, once. Each writer and each reader takes it from here.

Integer samples inside (at the FeatureSpec's rate); seconds only at the edge.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pyarrow as pa

FORMAT_VERSION = 2
"""Version of the catalog on disk; a catalog of another version is refused."""


class Status(str, enum.Enum):
    """What became of an input."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    REMOVED = "removed"


RECORDINGS = pa.schema(
    [
        # Hash of the bytes (blake2b, 128 bits, hex); null when no byte could be read.
        pa.field("recording_id", pa.string()),
        # As given to ingest; links are not resolved.
        pa.field("uri", pa.string(), nullable=False),
        pa.field("n_bytes", pa.int64()),
        # With n_bytes the identity of an input: a file that changed is ingested again.
        pa.field("modified_ns", pa.int64()),
        pa.field("container", pa.string()),
        pa.field("codec", pa.string()),
        pa.field("sample_rate", pa.int64()),
        pa.field("channels", pa.int64()),
        # What the container promises; null when it promises nothing.
        pa.field("seconds_expected", pa.float64()),
        pa.field("seconds_decoded", pa.float64(), nullable=False),
        pa.field("n_windows", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        # Where it went wrong: list, open, probe, decode, encode. Null when all is well.
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        # From the manifest; "title" and "label" are what the tools show.
        pa.field("labels", pa.map_(pa.string(), pa.string())),
    ]
)


def windows_schema(
    fingerprint_dim: int,
    n_sign_words: int,
    latent_dim: int,
    n_mfcc: int,
    full_mfcc_frames: int = 0,
) -> pa.Schema:
    """Schema of the windows of a catalog.

    Parameters
    ----------
    fingerprint_dim, latent_dim : int
        Sizes of the two embeddings; without latents 0.
    n_sign_words : int
        32-bit words that the signs of a window take (:mod:`encoders.signs`), frame by frame.
    n_mfcc : int
        Coefficients; the summary holds their means, then their standard deviations.
    full_mfcc_frames : int
        Frames per window when every MFCC frame is kept as well, else 0.
    """
    fields = [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("start_sample", pa.int64(), nullable=False),
        # The loudest mel band, dB re full scale; windows below features.SILENCE_DB hold no sound.
        pa.field("peak_db", pa.float32(), nullable=False),
        pa.field("fingerprint", pa.list_(pa.float32(), fingerprint_dim), nullable=False),
        pa.field("signs", pa.list_(pa.uint32(), n_sign_words), nullable=False),
    ]
    if latent_dim:
        fields.append(pa.field("latent", pa.list_(pa.float32(), latent_dim), nullable=False))
    fields.append(pa.field("mfcc", pa.list_(pa.float32(), 2 * n_mfcc), nullable=False))
    if full_mfcc_frames:
        # Row-major: frame by frame.
        fields.append(
            pa.field(
                "mfcc_frames", pa.list_(pa.float32(), full_mfcc_frames * n_mfcc), nullable=False
            )
        )
    return pa.schema(fields)


INPUTS = pa.schema(
    [
        # The recordings part that says so, and which state of it.
        pa.field("part", pa.string(), nullable=False),
        pa.field("part_bytes", pa.int64(), nullable=False),
        pa.field("part_changed_ns", pa.int64(), nullable=False),
        *(
            RECORDINGS.field(name)
            for name in (
                "recording_id",
                "uri",
                "seconds_decoded",
                "n_windows",
                "status",
                "labels",
            )
        ),
    ]
)
"""What an index generation remembers of the inputs, so as not to open every part again."""


ROWS = pa.schema(
    [
        # One line per indexed recording, not per window: FAISS row numbers
        # first_row .. first_row + n_rows - 1 are its windows in time order.
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("n_rows", pa.int64(), nullable=False),
        pa.field("labels", pa.map_(pa.string(), pa.string())),
    ]
)
"""The row table of one index generation."""


MATCHES = pa.schema(
    [
        # The query, as given.
        pa.field("query", pa.string(), nullable=False),
        # From 1, best first; 0 is the only row of a query without a match.
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("reference", pa.string()),
        pa.field("recording_id", pa.string()),
        pa.field("query_start_s", pa.float64()),
        pa.field("query_end_s", pa.float64()),
        pa.field("reference_start_s", pa.float64()),
        pa.field("reference_end_s", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("speed", pa.float64()),
        pa.field("alternatives", pa.list_(pa.float64())),
        pa.field("query_seconds", pa.float64()),
        # Of the query, as in RECORDINGS.
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
    ]
)
"""The result of a bulk match: the fields of :class:`Match`, and what became of the query."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A stretch of a query found in a recording. Times in seconds.

    ``rank`` counts from 1, best first. A query without any match is one ``Match`` with rank 0
    and ``reference`` None, so that every query gives at least one line. ``alternatives`` are
    other starts in the same recording where it sounds the same: the repeats of a loop.
    """

    query: str
    rank: int
    reference: str | None
    recording_id: str | None = None
    query_start_s: float | None = None
    query_end_s: float | None = None
    reference_start_s: float | None = None
    reference_end_s: float | None = None
    score: float | None = None
    speed: float | None = None
    alternatives: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON-lines contract, in its order."""
        return dataclasses.asdict(self)


class DuplicateKind(str, enum.Enum):
    """How two files are the same sound; the first that applies.

    ``IDENTICAL``: the same bytes. ``SAME_AUDIO``: the same recording from end to end, whatever
    the container, codec, rate, channels, gain, and silence before and after. ``EXCERPT``: one lies
    inside the other. ``OVERLAP``: they share a stretch. ``NEAR``: the same recording under noise or
    other sound, or at another speed or pitch.
    """

    IDENTICAL = "identical"
    SAME_AUDIO = "same-audio"
    EXCERPT = "excerpt"
    OVERLAP = "overlap"
    NEAR = "near"


PAIRS = pa.schema(
    [
        # Sorted: a < b, pairs by (a, b). Between two groups a is of the first and b of the second,
        # and a == b says that the file is in both.
        pa.field("a", pa.string(), nullable=False),
        pa.field("b", pa.string(), nullable=False),
        pa.field("a_id", pa.string(), nullable=False),
        pa.field("b_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        # The stretch that they share.
        pa.field("a_start_s", pa.float64(), nullable=False),
        pa.field("a_end_s", pa.float64(), nullable=False),
        pa.field("b_start_s", pa.float64(), nullable=False),
        pa.field("b_end_s", pa.float64(), nullable=False),
        # Seconds of b that pass in a second of a.
        pa.field("speed", pa.float64(), nullable=False),
        # Share of the shorter file that the stretch is.
        pa.field("coverage", pa.float64(), nullable=False),
        # The evidence, in a sentence for a person.
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Pairs of duplicates. Of n files with the same bytes the first stands for the others: n - 1 pairs
``identical``, and no other pair names the others; between two groups, every file that is in a
pair is named in at least one."""


@dataclasses.dataclass(frozen=True, slots=True)
class DuplicatePair:
    """One line of :data:`PAIRS`. Times in seconds."""

    a: str
    b: str
    a_id: str
    b_id: str
    kind: DuplicateKind
    score: float
    a_start_s: float
    a_end_s: float
    b_start_s: float
    b_end_s: float
    speed: float
    coverage: float
    reason: str

    def to_dict(self) -> dict[str, str | float]:
        """A row of :data:`PAIRS`."""
        return {**{name: getattr(self, name) for name in PAIRS.names}, "kind": self.kind.value}


class UnpairedClass(str, enum.Enum):
    """Why a file is not compared with others."""

    SILENT = "silent"
    CONSTANT_TONE = "constant tone"
    FAILED = "failed"


UNPAIRED = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Files that are compared with no other but by their bytes, sorted by uri."""

CLUSTERS = pa.schema(
    [
        # A hash of the members: the same in every run that finds the same cluster.
        pa.field("cluster_id", pa.string(), nullable=False),
        # Sorted uris.
        pa.field("members", pa.list_(pa.string()), nullable=False),
        pa.field("keep", pa.string(), nullable=False),
        # What the other members take.
        pa.field("seconds_won", pa.float64(), nullable=False),
        pa.field("bytes_won", pa.int64(), nullable=False),
    ]
)
"""Clusters of copies, those with most to win first."""


@dataclasses.dataclass(frozen=True)
class DuplicateCluster:
    """One line of :data:`CLUSTERS`."""

    cluster_id: str
    members: tuple[str, ...]
    keep: str
    seconds_won: float
    bytes_won: int

    def to_dict(self) -> dict[str, str | float | list[str]]:
        """The JSON-lines contract, in its order."""
        return {**dataclasses.asdict(self), "members": list(self.members)}


@dataclasses.dataclass(frozen=True)
class Event:
    """A stretch of a recording with a sound of some kind in it. Times in seconds.

    ``rank`` counts from 1, best first. ``query`` is what was asked: the clip, the label or the
    recording. ``label`` is the kind that was found; where a sound was looked for by example, it is
    what the manifest says of the recording, None if it says nothing.
    """

    query: str
    rank: int
    reference: str
    recording_id: str | None
    onset_s: float
    offset_s: float
    label: str | None
    score: float

    def to_dict(self) -> dict[str, str | int | float | None]:
        """The JSON-lines contract, in its order."""
        return dataclasses.asdict(self)


EVENTS = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("onset_s", pa.float64(), nullable=False),
        pa.field("offset_s", pa.float64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""Sound events found in recordings."""
