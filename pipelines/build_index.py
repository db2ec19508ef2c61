"""Parquet to the live FAISS index, with progress."""

from __future__ import annotations

from typing import TextIO

from index.build import GenerationInfo, build_index
from index.catalog import Catalog
from pipelines.progress import task_display


def build_with_progress(catalog: Catalog, log: TextIO | None = None) -> GenerationInfo:
    """Build and publish the index of a catalog. Call it under ``catalog.writer_lock()``.

    Parameters
    ----------
    catalog : Catalog
    log : TextIO, optional
        Where progress is shown. [default: standard error]
    """
    with task_display("Indexing windows", log) as show:
        return build_index(catalog, lambda done, n: show(done, n, {}))
