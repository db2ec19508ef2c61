"""Parquet to the live FAISS index, with progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from index.build import Progress
from pipelines.progress import task_display


@contextlib.contextmanager
def index_display(log: TextIO | None = None) -> Iterator[Progress]:
    """Show how far work on an index is, one step after the other.

    Parameters
    ----------
    log : TextIO, optional
        Where progress is shown. [default: standard error]

    Yields
    ------
    progress : callable
        For :mod:`index.build` and :mod:`index.update`.
    """
    with contextlib.ExitStack() as stack:
        shown: str | None = None
        show: Callable[[int, int, Mapping[str, float]], None]

        def progress(step: str, done: int, total: int) -> None:
            nonlocal shown, show
            if step != shown:
                stack.close()
                shown, show = step, stack.enter_context(task_display(step, log))
            show(done, total, {})

        yield progress
