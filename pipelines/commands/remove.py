"""``earmark remove``."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.commands.output import format_option, print_jsonl, print_table

_COLUMNS = ["uri", "recording_id", "seconds_decoded", "status"]


@click.command("remove")
@click.argument("catalog_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--recording", "recordings", multiple=True, metavar="ID|URI",
    help="Name as given to ingest, or recording id; an id stands for all names of that content. "
    "Can be given more than once.",
)  # fmt: skip
@click.option(
    "--where", "conditions", multiple=True, metavar="KEY=VALUE",
    help="Value of a label or of a column, such as container=mp3. Of several, all must hold.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@format_option
def command(
    catalog_dir: Path,
    recordings: tuple[str, ...],
    conditions: tuple[str, ...],
    dry_run: bool,
    output_format: str,
) -> None:
    """Take recordings out of the catalog in DIR and out of its index.

    No audio file is touched. ingest passes over what was removed, even if its folder is ingested
    again, until a file is named itself or has changed. The windows stay in the Parquet files,
    where nothing finds them, until 'earmark index DIR --compact'.

    \b
    Examples:
      earmark remove my-catalog --recording ~/Music/song.mp3
      earmark remove my-catalog --where album=Demos --where container=mp3 --dry-run
    """
    if not recordings and not conditions:
        raise click.UsageError("say what to remove: --recording or --where")
    where = dict(_key_value(text) for text in conditions)
    from index.catalog import Catalog
    from index.removal import find_recordings, remove_recordings
    from index.update import update_index
    from pipelines.build_index import index_display

    catalog = Catalog.open(catalog_dir)
    if dry_run:
        rows = find_recordings(catalog, recordings, where)
    else:
        with catalog.writer_lock(), index_display() as progress:
            catalog.clean()
            rows = find_recordings(catalog, recordings, where)
            remove_recordings(catalog, rows)
            if not catalog.index_is_current() and catalog.current_generation() is not None:
                update_index(catalog, progress)
    found = rows.select(_COLUMNS).to_pylist()
    if output_format == "jsonl":
        print_jsonl(found)
        return
    shown = [[row["uri"], row["recording_id"] or "", f"{row['seconds_decoded']:.1f}"]
             for row in found]  # fmt: skip
    if shown:
        print_table(["Input", "Recording", "Seconds"], shown)
    click.echo(f"{len(found):,} {'would be removed' if dry_run else 'removed'}.")


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--where")
    return key, value
