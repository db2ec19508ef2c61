"""What a part of the evaluation gets, and what it gives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from encoders.corpus import Item
from index.catalog import Catalog
from pipelines.evaluate.report import Table
from pipelines.evaluate_events.sounds import Bundles, Sounds, prepare_catalog, read_sounds


@dataclasses.dataclass(frozen=True)
class Options:
    """How to evaluate.

    Parameters
    ----------
    corpus, out, cache : Path
    bundles : Bundles
    parts : tuple of str
        Names of parts.
    split : str
        Of the sounds that are asked about.
    gallery : str, optional
        A second split, whose sounds may be found as well.
    seed : int
    """

    corpus: Path
    out: Path
    cache: Path
    bundles: Bundles
    parts: tuple[str, ...]
    split: str = "dev"
    gallery: str | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
    """The figures of one part.

    Parameters
    ----------
    tables : sequence of Table
    figures : dict
        Ready for JSON.
    pictures : sequence of Path
        Written to ``Options.out``.
    """

    tables: Sequence[Table]
    figures: dict[str, Any]
    pictures: Sequence[Path] = ()


class Context:
    """What the parts share; whatever is asked for is made once.

    Parameters
    ----------
    options : Options
    items : sequence of Item
        The whole corpus, with music, speech and noise too.
    """

    def __init__(self, options: Options, items: Sequence[Item]) -> None:
        self.options = options
        self.items = items

    @functools.cache  # noqa: B019 - a context lives as long as its evaluation.
    def catalog(self, split: str) -> Catalog:
        """The catalog of the labelled events of a split, with all columns."""
        return prepare_catalog(self.items, split, self.options.cache, self.options.bundles)

    @functools.cache  # noqa: B019
    def sounds(self, split: str) -> Sounds:
        """The labelled events of a split, and one vector of every kind for each."""
        return read_sounds(self.catalog(split))


Evaluate = Callable[[Context], Part]
