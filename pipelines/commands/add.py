"""``earmark add``: ``earmark ingest`` for a catalog that is there."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "add",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument(
    "arguments", metavar="INPUT... [OPTIONS OF INGEST]", nargs=-1, required=True,
    type=click.UNPROCESSED,
)  # fmt: skip
@click.pass_context
def command(ctx: click.Context, catalog_dir: Path, arguments: tuple[str, ...]) -> None:
    """Add audio to a catalog.

    The same as 'earmark ingest INPUT... --catalog DIR', but for a catalog that exists: a folder
    that is misspelt is an error, and not a new catalog. What is new joins the live index, which is
    not built again.

    \b
    Examples:
      earmark add my-catalog ~/Music/new
      earmark add my-catalog 'takes/*.wav' --encoder runs/fingerprint/bundle

    Exit codes: those of 'earmark ingest'.
    """
    from index.catalog import Catalog
    from pipelines.commands.ingest import command as ingest

    Catalog.open(catalog_dir)
    options = ["--catalog", str(catalog_dir), *arguments]
    with ingest.make_context("ingest", options, parent=ctx.parent) as inner:
        ingest.invoke(inner)
