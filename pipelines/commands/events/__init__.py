"""``earmark events``."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "learn": "Teach a catalog kinds of sound from labels.",
    "find": "List all events of one kind in a catalog.",
    "detect": "Label clips, or all recordings of a catalog.",
    "review": "Judge the most useful regions, and learn from that.",
}


class _Commands(click.Group):
    """Knows its subcommands by name, so that help starts at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"{__name__}.{name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("events", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Find kinds of sound by name, and when they happen.

    \b
    Example:
      earmark events learn my-catalog --labels barks.csv
      earmark events find my-catalog --label dog_bark
      earmark events detect my-catalog walk.flac --plot timeline.png
    """
