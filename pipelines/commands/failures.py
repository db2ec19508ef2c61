"""``earmark failures``."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.commands.output import format_option, print_jsonl, print_table

_COLUMNS = ["uri", "status", "stage", "error", "seconds_decoded", "seconds_expected"]


@click.command("failures")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@format_option
def command(catalog_dir: Path, output_format: str) -> None:
    """List the inputs of the catalog in DIR that failed, are incomplete or silent, and why.

    \b
    Examples:
      earmark failures my-catalog
      earmark failures my-catalog --format jsonl | jq -r 'select(.status == "failed") | .uri'
    """
    from index.catalog import Catalog

    rows = Catalog.open(catalog_dir).recordings(_COLUMNS).to_pylist()
    bad = [row for row in rows if row["error"] is not None]
    if output_format == "jsonl":
        print_jsonl(bad)
    elif bad:
        shown = [[row["uri"], row["status"], row["stage"], row["error"]] for row in bad]
        print_table(["Input", "Status", "Stage", "Reason"], shown)
    else:
        click.echo("No failures.")
