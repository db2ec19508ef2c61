"""One shard of inputs to one part of the output: a plain function, which Beam only calls.

A shard runs in one thread, file by file, so that its memory is that of one file's decoder and a
few megabytes of windows; several shards run at the same time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from encoders.audio import AudioStream, open_audio
from encoders.bundle import Bundle, load_bundle
from encoders.errors import AudioError, BundleError
from encoders.features import SILENCE_DB, FeatureSpec, mfcc, mfcc_summary, stream_windows
from encoders.signs import window_signs
from index.catalog import Catalog, part_name
from index.config import CatalogConfig, EncoderInfo
from index.schema import Status
from pipelines.inputs import Input, local_path, open_input, path_to_uri
from pipelines.progress import RunState

WINDOWS_PER_BATCH = 64
_HASH_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Job:
    """What all shards of an ingest have in common: its :class:`~pipelines.workers.Work`.

    Parameters
    ----------
    catalog : str
        Folder of the catalog, as every worker sees it.
    run : int
        Number of this run of ingest.
    fingerprint : str
        Name or folder of the encoder bundle.
    vae : str or None
        The same of the autoencoder; None if no latents are stored with the windows.
    config : CatalogConfig
    columns : tuple of (str, str)
        Names of the further columns, and of their bundles.
    """

    catalog: str
    run: int
    fingerprint: str
    vae: str | None
    config: CatalogConfig
    columns: tuple[tuple[str, str], ...] = ()

    def load_encoders(self) -> Encoders:
        """The bundles, loaded once per process."""
        precision = self.config.fingerprint.precision
        return load_encoders(self.fingerprint, self.vae, precision, self.columns)

    def prepare(self) -> None:
        """Load the bundles, once per process."""
        self.load_encoders()

    def process(self, shard: Sequence[Input], state: RunState) -> int:
        """Turn a shard into a part of the catalog."""
        return process_shard(shard, self, self.load_encoders(), state)


@dataclasses.dataclass(frozen=True)
class Encoders:
    """The encoders of a catalog, and those of its further columns."""

    fingerprint: Bundle
    vae: Bundle | None
    columns: dict[str, Bundle] = dataclasses.field(default_factory=dict)

    def config(self, keep_mfcc: str) -> CatalogConfig:
        """The configuration of a catalog made with them."""
        columns = {name: _info(bundle) for name, bundle in self.columns.items()}
        latent = _info(self.vae) if self.vae else None
        return CatalogConfig(
            self.fingerprint.spec, _info(self.fingerprint), latent, keep_mfcc, columns
        )


@functools.lru_cache(maxsize=4)
def load_encoders(
    fingerprint: str, vae: str | None, precision: str, columns: tuple[tuple[str, str], ...] = ()
) -> Encoders:
    """Load all bundles, once per process.

    Raises
    ------
    BundleError
        If one is missing or damaged, or they need different features.
    """
    encoders = Encoders(
        load_bundle(fingerprint, precision),
        load_bundle(vae, precision) if vae else None,
        {name: load_bundle(bundle, precision) for name, bundle in columns},
    )
    for bundle, kind in ((encoders.fingerprint, "siamese"), (encoders.vae, "vae")):
        if bundle is not None and bundle.kind != kind:
            raise BundleError(
                f"{bundle.folder} is a {bundle.kind} bundle; --encoder takes a siamese, --vae a vae"
            )
    for bundle in (encoders.vae, *encoders.columns.values()):
        if bundle is not None:
            bundle.check_spec(encoders.fingerprint.spec)
    return encoders


def process_shard(shard: Sequence[Input], job: Job, encoders: Encoders, state: RunState) -> int:
    """Turn a shard into a part of the catalog. Doing it twice is the same as once.

    Parameters
    ----------
    shard : sequence of Input
    job : Job
    encoders : Encoders
    state : RunState
        Counts what is done; ends the shard early when the run is stopped.

    Returns
    -------
    n_rows : int
        Status rows written.

    Raises
    ------
    CatalogError
        If the part cannot be written.
    """
    catalog = Catalog(Path(job.catalog), job.config)
    if catalog.has_part(part_name(job.run, job.config, [item.identity for item in shard])):
        return len(shard)
    if state.stopped:
        return 0
    rows: list[dict[str, Any]] = []
    with catalog.part_writer() as writer:
        for item in shard:
            recording = _Recording(item, job.config, encoders, state)
            for batch, columns in recording.windows():
                writer.write_windows(batch, columns)
            rows.append(recording.row)
            state.add_file(recording.row["status"])
            if state.stopped:
                break
        done = [item.identity for item in shard[: len(rows)]]
        table = pa.Table.from_pylist(rows, schema=job.config.recordings_schema)
        writer.commit(part_name(job.run, job.config, done), table)
    return len(rows)


class _Recording:
    """One input on its way: its windows, and then its row."""

    def __init__(
        self, item: Input, config: CatalogConfig, encoders: Encoders, state: RunState
    ) -> None:
        self._item = item
        self._config = config
        self._encoders = encoders
        self._state = state
        self.row: dict[str, Any] = {
            "uri": item.uri,
            "n_bytes": item.n_bytes,
            "modified_ns": item.modified_ns,
            "seconds_decoded": 0.0,
            "n_windows": 0,
            "status": Status.OK.value,
            "labels": list(item.labels),
        }

    def windows(self) -> Iterator[tuple[pa.RecordBatch, dict[str, pa.RecordBatch]]]:
        """Decode and embed, windows and further columns; the row is complete after the last."""
        if self._item.problem is not None:
            self._fail(*self._item.problem)
            return
        try:
            with contextlib.closing(open_input(self._item.uri)) as file:
                self._hash(file)
                yield from self._embed(file)
                self._check_unchanged(file)
        except AudioError as error:
            self._fail(error.stage, error.reason)
        except OSError as error:
            stage = "open" if self.row.get("recording_id") is None else "decode"
            self._fail(stage, _one_line(error.strerror or error))

    def _hash(self, file: BinaryIO) -> None:
        self.row["recording_id"], self._n_hashed = hash_file(file, self._state)

    def _embed(self, file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, dict[str, pa.RecordBatch]]]:
        spec, row = self._config.spec, self.row
        peak_db = -np.inf
        with open_sound(self._item.uri, file, spec) as stream:
            row.update(dataclasses.asdict(stream.info))
            for start, windows in stream_windows(stream.blocks(), spec, WINDOWS_PER_BATCH):
                self._state.check()
                batch = self._to_arrow(start, windows)
                peak_db = max(peak_db, float(windows.max()))
                self._state.add_seconds(stream.seconds_decoded - row["seconds_decoded"])
                row["seconds_decoded"] = stream.seconds_decoded
                row["n_windows"] += len(windows)
                yield batch, embed_columns(windows, self._encoders.columns, self._config)
            row["seconds_decoded"] = stream.seconds_decoded
            if stream.problem is not None:
                self._fail("decode", stream.problem)
            elif row["n_windows"] and peak_db < SILENCE_DB:
                row["stage"] = "decode"
                row["error"] = f"silent: nothing above {SILENCE_DB:.0f} dB"

    def _to_arrow(self, start: int, windows: np.ndarray) -> pa.RecordBatch:
        spec, n = self._config.spec, len(windows)
        columns: dict[str, Any] = {
            "recording_id": [self.row["recording_id"]] * n,
            "start_sample": start + spec.window_hop * np.arange(n),
            "peak_db": windows.max(axis=(1, 2)),
            "fingerprint": _lists(self._encoders.fingerprint.encode(windows)),
            "signs": _lists(window_signs(windows, spec)),
            "mfcc": _lists(mfcc_summary(windows, spec)),
        }
        if self._encoders.vae is not None:
            columns["latent"] = _lists(self._encoders.vae.encode(windows))
        if self._config.keep_mfcc == "full":
            columns["mfcc_frames"] = _lists(mfcc(windows, spec).reshape(n, -1))
        schema = self._config.windows_schema
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check_unchanged(self, file: BinaryIO) -> None:
        # The row keeps the identity as listed, so that the next run sees the change.
        size, modified = self._n_hashed, self._item.modified_ns
        path = local_path(self._item.uri)
        if path is not None:
            status = os.fstat(file.fileno())
            # Another file of that name; one that is gone now was still read to its end.
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
            size, modified = status.st_size, status.st_mtime_ns
        if size != self._item.n_bytes:
            self._fail(
                "open",
                f"changed while it was being read: {self._item.n_bytes} bytes when listed, "
                f"{size} now",
            )
        elif modified != self._item.modified_ns:
            self._fail("open", "changed while it was being read: it was written to")

    def _fail(self, stage: str, reason: str) -> None:
        status = Status.PARTIAL if self.row["n_windows"] else Status.FAILED
        reason = _one_line(reason)
        if self.row.get("error"):
            reason = f"{reason}; {self.row['error']}"
        self.row.update(status=status.value, stage=stage, error=reason)


def hash_file(file: BinaryIO, state: RunState) -> tuple[str, int]:
    """The recording_id of an open file, which is rewound, and its size in bytes."""
    digest = hashlib.blake2b(digest_size=16)
    n_bytes = 0
    while block := file.read(_HASH_BLOCK):
        digest.update(block)
        n_bytes += len(block)
        state.check()
    file.seek(0)
    return digest.hexdigest(), n_bytes


def open_sound(uri: str, file: BinaryIO, spec: FeatureSpec) -> AudioStream:
    """Decode an open input, by its path if it is a file of this machine."""
    path = local_path(uri)
    # libsndfile reads a path faster than a Python file, but must be able to encode it.
    by_path = path is not None and path_to_uri(str(path)) == str(path)
    return open_audio(path if path and by_path else file, spec.sample_rate)


def embed_columns(
    windows: np.ndarray, encoders: dict[str, Bundle], config: CatalogConfig
) -> dict[str, pa.RecordBatch]:
    """The rows of further columns.

    Parameters
    ----------
    windows : np.ndarray [shape=(n, window_frames, n_mels)]
    encoders : dict of Bundle
        By the names of their columns.
    config : CatalogConfig
        Has those columns.
    """
    return {
        name: pa.RecordBatch.from_arrays(
            [_lists(encoder.encode(windows))], schema=config.column_schema(name)
        )
        for name, encoder in encoders.items()
    }


def _lists(vectors: np.ndarray) -> pa.Array:
    rows = np.ascontiguousarray(vectors).reshape(len(vectors), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def _info(bundle: Bundle) -> EncoderInfo:
    return EncoderInfo(bundle.name, bundle.sha256, bundle.precision, bundle.dim)


def _one_line(message: object) -> str:
    return " ".join(str(message).split()) or type(message).__name__


def make_shards(inputs: Sequence[Input], shard_files: int, shard_bytes: int) -> list[list[Input]]:
    """Cut sorted inputs into shards, the same for the same inputs.

    Parameters
    ----------
    inputs : sequence of Input
    shard_files : int
        At most so many inputs in a shard.
    shard_bytes : int
        An input that brings a shard above this starts a new one.
    """
    shards: list[list[Input]] = []
    n_bytes = 0
    # Few inputs make small shards, so that there is one for every core.
    most = max(1, min(shard_files, len(inputs) // 32))
    for item in inputs:
        size = item.n_bytes or 0
        if not shards or len(shards[-1]) >= most or n_bytes + size > shard_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(item)
        n_bytes += size
    return shards
