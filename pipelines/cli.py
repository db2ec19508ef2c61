"""The ``earmark`` command. Subcommands are imported when they are called."""

from __future__ import annotations

import sys

import click

from encoders.errors import EarmarkError
from pipelines.lazy_group import LazyGroup

# Name, module of pipelines.commands, and what it does.
COMMANDS = {
    "demo": "See it work on the tracks that come with earmark.",
    "ingest": "Ingest audio into a catalog.",
    "add": "Add audio to a catalog that is there.",
    "identify": "Find out which recording a clip is from, and where in it.",
    "match": "Identify a whole corpus of files.",
    "monitor": "Tell what is played when in hours of audio, or in a stream.",
    "dedup": "Find files that are the same sound.",
    "split": "Split a data set so that nothing leaks.",
    "similar": "Find sounds of the same kind as a clip.",
    "events": "Find kinds of sound by name, and when they happen.",
    "info": "Show what a catalog holds.",
    "failures": "List the inputs that failed or are incomplete.",
    "remove": "Take recordings out of a catalog.",
    "index": "Bring the index of a catalog up to date, build it again, verify it.",
    "train": "Train an encoder.",
    "calibrate": "Fit the score of matches to a catalog.",
    "evaluate": "Measure how well clips are found, beside other programs.",
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    package="pipelines.commands",
    purposes=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well, 1 some inputs failed, 2 wrong use or an error, "
    "3 too many failures, 130 interrupted.",
)
@click.version_option(package_name="earmark")
def cli() -> None:
    """Find any sound again: ingest a corpus of audio, then identify clips of it."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit. Expected errors are one sentence, without a traceback."""
    try:
        code = cli.main(args, prog_name="earmark", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = EXIT_INTERRUPTED
    except EarmarkError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_ERROR
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
