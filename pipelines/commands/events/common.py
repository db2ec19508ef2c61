"""What the commands about events share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.progress import task_display

if TYPE_CHECKING:
    from index.catalog import Catalog
    from index.column_index import ColumnIndex

model_option = click.option(
    "--model", default="default", show_default=True, metavar="NAME|FOLDER",
    help="Which event model: a name in the catalog, or a folder.",
)  # fmt: skip


def one_thread() -> None:
    """Keep numpy from more threads than pay. Before it is imported."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def model_path(catalog_dir: Path | None, model: str) -> Path:
    """Folder of an event model: a name in the catalog, or the folder itself.

    Where a catalog has none of its own, ``default`` is the one that comes with earmark.
    """
    from index.event_model import SHIPPED_MODEL

    own = own_model(catalog_dir, model) if catalog_dir else Path(model)
    return SHIPPED_MODEL if model == "default" and not is_model(own) else own


def is_model(folder: Path) -> bool:
    """Whether a folder holds an event model."""
    return (folder / "model.json").is_file()


def own_model(catalog_dir: Path, model: str) -> Path:
    """Folder of an event model that is to be written: a name in the catalog, or the folder."""
    from index.event_search import model_folder

    folder = Path(model)
    is_path = folder.is_absolute() or len(folder.parts) > 1 or is_model(folder)
    return folder if is_path else model_folder(catalog_dir, model)


def open_column(catalog: Catalog, column: str | None) -> ColumnIndex:
    """The index of a column, with a progress bar if it has to be built."""
    from index.column_index import ColumnIndex

    with task_display("Indexing windows") as show:
        return ColumnIndex.open(catalog, column, lambda done, n: show(done, n, {}))
