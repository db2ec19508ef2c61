"""Telling inputs from options of Beam on one command line."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from encoders.errors import EarmarkError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EarmarkError(message)


@contextlib.contextmanager
def quiet_logging(quiet: bool = True) -> Iterator[None]:
    """Keep Beam from logging, which it does on being imported and for every error it raises."""
    before = logging.root.manager.disable
    if quiet:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def split_arguments(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what is left of a command line into inputs and options of Beam.

    Beam says which of its options take a value. Options that it does not know may belong to the
    runner, and are handed over if one is chosen; their value then needs the form ``--x=value``.

    Returns
    -------
    inputs, beam_args : list of str

    Raises
    ------
    EarmarkError
        If neither earmark nor Beam knows an option.
    """
    if not any(token.startswith("-") for token in tokens):
        return list(tokens), []
    with quiet_logging():
        from apache_beam.options.pipeline_options import PipelineOptions

    parser = _Parser(add_help=False, allow_abbrev=False)
    for options in _subclasses(PipelineOptions):
        options._add_argparse_args(parser)
    known, rest = parser.parse_known_args(list(tokens))
    unknown = [token for token in rest if token.startswith("-")]
    strange = [token for token in unknown if not token.startswith("--") or not known.runner]
    if strange:
        raise EarmarkError(
            f"no such option: {strange[0]} (of a file, write ./{strange[0]}, "
            "or put it after a lone --)"
        )
    inputs, beam_args = [], []
    for token in tokens:
        is_rest = bool(rest) and token == rest[0]
        if is_rest:
            rest.pop(0)
        if is_rest and not token.startswith("--"):
            inputs.append(token)
        else:
            beam_args.append(token)
    return inputs, beam_args


def _subclasses(cls: type) -> list[Any]:
    direct: list[Any] = cls.__subclasses__()
    return [*direct, *(below for sub in direct for below in _subclasses(sub))]
