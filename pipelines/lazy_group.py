"""A group of commands whose modules are imported when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Knows its subcommands by name, so that its help starts at once.

    Parameters
    ----------
    package : str
        Holds a module for each of them, with its ``command``.
    purposes : mapping of str to str
        What each is for, by name.
    """

    def __init__(
        self, *args: Any, package: str, purposes: Mapping[str, str], **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self._package, self._purposes = package, purposes

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._purposes)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._purposes:
            return None
        command: click.Command = importlib.import_module(f"{self._package}.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._purposes.items()))
