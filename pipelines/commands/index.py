"""``earmark index``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

EXIT_DAMAGED = 1


@click.command("index")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Build it whole from the Parquet files, in any case.")
@click.option(
    "--factory", metavar="STRING",
    help="FAISS factory string, such as Flat, IVF1024,SQ8 or IVF8192,PQ64x4fs; 'auto' to choose by "
    "size again. Builds whole, and is kept when the catalog grows.  [default: chosen by size]",
)  # fmt: skip
@click.option(
    "--compact", is_flag=True,
    help="Drop what was removed from index and Parquet files, and join pieces.",
)  # fmt: skip
@click.option(
    "--verify", is_flag=True,
    help="Change nothing; compare every file with its checksum, and search with comparing "
    "everything.",
)  # fmt: skip
def command(
    catalog_dir: Path, rebuild: bool, factory: str | None, compact: bool, verify: bool
) -> None:
    """Bring the index of the catalog in DIR up to date.

    ingest and remove do this by themselves; it is needed after ingest --no-index, and with
    --rebuild when an index is damaged. What is new joins the index and what is gone leaves it; it
    is built whole when there is none, or when the catalog has outgrown its kind. Readers that have
    the old index open go on with it.

    \b
    Examples:
      earmark index my-catalog
      earmark index my-catalog --verify
      earmark index my-catalog --rebuild
      earmark index my-catalog --factory IVF4096,PQ64x4fs

    Exit codes: 0 all is well, 1 --verify found damage, 2 wrong use or an error.
    """
    if verify and (rebuild or compact or factory):
        raise click.UsageError("--verify changes nothing: it goes with no other option")
    from index.build import build_index
    from index.catalog import Catalog
    from index.removal import compact_parts
    from index.update import compact_index, factory_by_hand, update_index
    from index.verify import problems
    from pipelines.build_index import index_display

    catalog = Catalog.open(catalog_dir)
    with index_display() as progress:
        if verify:
            found = list(problems(catalog, progress))
        else:
            with catalog.writer_lock():
                catalog.clean()
                if compact:
                    compact_parts(catalog, progress)
                if rebuild or factory:
                    chosen = factory or factory_by_hand(catalog)
                    info = build_index(catalog, progress, None if chosen == "auto" else chosen)
                else:
                    info = update_index(catalog, progress)
                if compact:
                    info = compact_index(catalog, progress)
    if verify:
        for problem in found:
            click.echo(problem, err=True)
        click.echo(f"{len(found)} problems." if found else "All is well.")
        sys.exit(EXIT_DAMAGED if found else 0)
    click.echo(
        f"{info.factory} index of {info.n_rows:,} windows of {info.n_recordings:,} recordings."
    )
