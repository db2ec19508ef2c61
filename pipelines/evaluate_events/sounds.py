"""The labelled events of a corpus, ingested, with one vector of every kind for each recording."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoders.bundle import load_bundle
from encoders.corpus import Item
from encoders.errors import EarmarkError
from index.catalog import Catalog
from index.columns import iter_embeddings
from index.storage import write_atomically
from pipelines.ingest import IngestOptions, ingest

BASELINE = "MFCC mean"
"""What the encoders are compared with: mean coefficients, no learning."""

# Windows further below the loudest of their recording, in dB, are its silence.
_QUIET_DB = 20.0


@dataclasses.dataclass(frozen=True)
class Sounds:
    """Recordings with labels.

    Recordings of the same bytes count once, under the first of their names.

    Attributes
    ----------
    uris, labels, sources : np.ndarray [shape=(n,)]
        Names.
    vectors : dict of np.ndarray [shape=(n, dim)]
        One vector for each recording, the mean over its windows that are not silent: of the
        column by its name, and of the MFCCs as :data:`BASELINE`.
    """

    uris: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    vectors: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.uris)


@dataclasses.dataclass(frozen=True)
class Bundles:
    """Which encoders: as in :class:`~pipelines.ingest.IngestOptions`; and which detector."""

    event: str = "event"
    fingerprint: str = "fingerprint"
    vae: str = "vae"
    precision: str = "int8"
    detector: str = "detector"


def prepare_catalog(items: Sequence[Item], split: str, cache: Path, bundles: Bundles) -> Catalog:
    """Ingest the labelled events of a split, with all columns.

    A catalog of the same files, labels and encoders that ``cache`` holds is used again.

    Raises
    ------
    EarmarkError
        If there are none.
    """
    chosen = [i for i in items if i.role == "event" and i.split == split and i.label]
    if not chosen:
        raise EarmarkError(
            f"the corpus has no events with labels in split {split!r}: its CSV needs the columns "
            "role, split and label"
        )
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["uri", "label", "source"])
    rows.writerows([item.path.absolute(), item.label, item.source] for item in chosen)
    content = table.getvalue().encode("utf-8", "surrogateescape")
    names = (bundles.event, bundles.fingerprint, bundles.vae)
    hashes = [load_bundle(name, bundles.precision).sha256 for name in names]
    key = hashlib.sha256(content + "\n".join([*hashes, bundles.precision]).encode())
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"events-{key.hexdigest()[:12]}"
    manifest = folder.with_suffix(".csv")
    with write_atomically(manifest) as file:
        file.write(content)
    options = IngestOptions(
        bundles.fingerprint, bundles.vae, bundles.precision, build_index=False,
        encoders=f"fingerprint,vae,event={bundles.event}",
    )  # fmt: skip
    ingest([str(manifest)], folder, options)
    return Catalog.open(folder)


def read_sounds(catalog: Catalog) -> Sounds:
    """One vector of every kind for each recording of a catalog from :func:`prepare_catalog`."""
    table = catalog.indexed_recordings()
    n_windows = table["n_windows"].to_numpy()
    labels = [dict(pairs) for pairs in table["labels"].to_pylist()]
    peaks = np.concatenate(
        [batch["peak_db"].to_numpy() for batch in catalog.iter_windows(["peak_db"])]
    )
    columns: dict[str, Callable[[], Iterator[pa.RecordBatch]]] = {
        "event": lambda: iter_embeddings(catalog, "event"),
        "fingerprint": lambda: iter_embeddings(catalog, "fingerprint"),
        "vae": lambda: iter_embeddings(catalog, "vae"),
        BASELINE: lambda: catalog.iter_windows(["mfcc"]),
    }
    vectors = {}
    for name, read in columns.items():
        rows = np.concatenate([_matrix(batch.column(batch.num_columns - 1)) for batch in read()])
        vectors[name] = pool(rows, peaks, n_windows)
    # The second half of the MFCC summary are deviations.
    vectors[BASELINE] = vectors[BASELINE][:, : catalog.config.spec.n_mfcc]
    return Sounds(
        np.array(table["uri"].to_pylist()),
        np.array([found["label"] for found in labels]),
        np.array([found["source"] for found in labels]),
        vectors,
    )


def pool(rows: np.ndarray, peaks: np.ndarray, n_windows: np.ndarray) -> np.ndarray:
    """Mean of the windows of each recording that are not silent beside its loudest.

    Parameters
    ----------
    rows : np.ndarray [shape=(n_rows, dim)]
    peaks : np.ndarray [shape=(n_rows,)]
        dB.
    n_windows : np.ndarray [shape=(n,)]
        Rows of each recording, one or more.

    Returns
    -------
    means : np.ndarray [shape=(n, dim)]
    """
    starts = np.cumsum(n_windows) - n_windows
    weights = near_loudest(peaks, n_windows, _QUIET_DB).astype(np.float64)
    totals = np.add.reduceat(rows * weights[:, None], starts)
    return totals / np.add.reduceat(weights, starts)[:, None]


def near_loudest(peaks: np.ndarray, n_windows: np.ndarray, quiet_db: float) -> np.ndarray:
    """Which windows are within ``quiet_db`` of the loudest of their recording [shape=(n_rows,)].

    Parameters as in :func:`pool`.
    """
    loudest = np.maximum.reduceat(peaks, np.cumsum(n_windows) - n_windows)
    heard: np.ndarray = peaks >= np.repeat(loudest, n_windows) - quiet_db
    return heard


def _matrix(lists: pa.FixedSizeListArray) -> np.ndarray:
    return lists.flatten().to_numpy().reshape(len(lists), -1)
