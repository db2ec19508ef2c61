"""What the commands print: tables for people, JSON lines for tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="A table, or one JSON object per line.",
)


def print_jsonl(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object per line, ASCII only, so that any name survives any terminal."""
    for row in rows:
        click.echo(json.dumps(row))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table as wide as the terminal, or as its content when it goes to a file."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 4 * 1024
    Console(width=width).print(table)


def print_facts(facts: Mapping[str, str], title: str = "") -> None:
    """Names and values in two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, show_header=False, title_justify="left", box=None)
    for name, value in facts.items():
        table.add_row(name, Text(printable(value)))
    Console().print(table)


def printable(text: str) -> str:
    """``text`` on one line, with control characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def format_bytes(n_bytes: int) -> str:
    """Bytes for a person: ``"1.2 MB"``."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
