"""``earmark events``."""

from __future__ import annotations

import click

from pipelines.lazy_group import LazyGroup

COMMANDS = {
    "learn": "Teach a catalog kinds of sound from labels.",
    "find": "List all events of one kind in a catalog.",
    "detect": "Label clips, or all recordings of a catalog.",
    "review": "Judge the most useful regions, and learn from that.",
}


@click.group(
    "events",
    cls=LazyGroup,
    package=__name__,
    purposes=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """Find kinds of sound by name, and when they happen.

    \b
    Example:
      earmark events learn my-catalog --labels barks.csv
      earmark events find my-catalog --label dog_bark
      earmark events detect my-catalog walk.flac --plot timeline.png
    """
