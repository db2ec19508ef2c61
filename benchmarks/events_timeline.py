"""Make the picture of docs/events.md anew: its tutorial, on the drums that ship with the tests.

Needs the extra ``test``, as the recordings are those that the page is tested with.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import soundfile
import soxr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from sounds_helpers import SAMPLE_RATE, write_archive  # noqa: E402
from test_docs_events import write_labels  # noqa: E402

from pipelines.cli import main as earmark  # noqa: E402

_COMMANDS = (
    ("ingest", "recordings", "--catalog", "archive"),
    ("events", "learn", "archive", "--labels", "labels.csv"),
    ("events", "detect", "archive", "recordings/evening-5.wav", "--plot"),
)


@click.command(help=__doc__)
@click.option("--out", default=ROOT / "docs" / "events-timeline.png", show_default=True,
              type=click.Path(dir_okay=False, path_type=Path), metavar="PNG")  # fmt: skip
def main(out: Path) -> None:
    tracks = ROOT / "pipelines" / "demo_tracks"
    samples, rate = soundfile.read(tracks / "restaurant.ogg", dtype="float32", always_2d=True)
    ambience = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        truth = write_archive(Path(folder) / "recordings", np.resize(ambience, 100 * SAMPLE_RATE))
        write_labels(truth, Path(folder) / "labels.csv")
        out = out.absolute()
        os.chdir(folder)
        for words in _COMMANDS:
            plot = [str(out)] if words[-1] == "--plot" else []
            try:
                earmark([*words, *plot])
            except SystemExit as exited:
                if exited.code:
                    raise
        os.chdir(ROOT)
    click.echo(out)


if __name__ == "__main__":
    main()
