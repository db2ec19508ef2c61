"""``earmark index``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("index")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
def command(catalog_dir: Path) -> None:
    """Build the index of the catalog in DIR again, from its Parquet files.

    ingest does this by itself; it is needed after ingest --no-index, or when an index is damaged.
    Readers that have the old index open go on with it.

    \b
    Example:
      earmark index my-catalog
    """
    from index.catalog import Catalog
    from pipelines.build_index import build_with_progress

    catalog = Catalog.open(catalog_dir)
    with catalog.writer_lock():
        info = build_with_progress(catalog)
    click.echo(
        f"{info.factory} index of {info.n_rows:,} windows of {info.n_recordings:,} recordings."
    )
