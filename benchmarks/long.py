"""How exactly clips are placed in a recording of many hours: nothing drifts, nothing is aliased.

Joins music of a corpus into one recording, ingests it, and looks up clips of 5 s from its
beginning, 6 min 20 s, 1 h, the middle and the end, clean and with noise.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import soundfile
from _common import cache_option, earmark, encoder_option, json_option, report, run_measured

from encoders.audio import open_audio
from encoders.corpus import read_corpus
from encoders.degrade import add_noise, colored_noise
from encoders.errors import AudioError
from index.catalog import Catalog
from index.identify import Identifier
from index.storage import write_atomically

RATE = 16_000
CLIP_S = 5.0
# Clips begin within so many seconds of each place.
_NEAR_S = 30.0


def music(paths: Sequence[Path], seconds: float) -> Iterator[np.ndarray]:
    """Blocks of one file after the other, until there are so many seconds."""
    left = round(seconds * RATE)
    for path in paths:
        try:
            with open_audio(path, RATE) as audio:
                for block in audio.blocks():
                    yield block[:left]
                    left -= len(block)
                    if left <= 0:
                        return
        except AudioError as error:
            click.echo(f"{path}: {error}", err=True)
    raise click.ClickException(f"the corpus lacks {left / RATE / 3600:.1f} h of music")


def join(paths: Sequence[Path], seconds: float, file: Path) -> None:
    """Write music as one FLAC, unless it is there."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_atomically(file) as target,
        soundfile.SoundFile(target, "w", RATE, 1, format="FLAC", subtype="PCM_16") as out,
    ):
        for block in music(paths, seconds):
            out.write(np.clip(block, -1.0, 1.0))


def errors_near(
    place_s: float, file: Path, identifier: Identifier, n: int, snr_db: float | None, seed: int
) -> list[float]:
    """Signed errors of clips near a place, s; none of a clip that is not found."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        first = round((place_s + rng.uniform(0, _NEAR_S)) * RATE)
        clip, _ = soundfile.read(file, round(CLIP_S * RATE), first, dtype="float32")
        if snr_db is not None:
            clip = add_noise(clip, colored_noise(len(clip), 1.0, rng), snr_db)
        for match in identifier.identify(clip, RATE, top=1):
            assert match.reference_start_s is not None
            assert match.query_start_s is not None
            found.append(match.reference_start_s - match.query_start_s - first / RATE)
    return found


@click.command(help=__doc__)
@click.argument("corpus", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--hours", type=click.FloatRange(min=0.02), default=9.5, show_default=True)
@click.option("--clips", type=click.IntRange(min=1), default=20, show_default=True,
              help="At each place, clean and with noise.")  # fmt: skip
@click.option("--snr", default=5.0, show_default=True, help="Of the noise, dB.")
@click.option("--seed", default=0, show_default=True)
@encoder_option
@cache_option
@json_option
def main(
    corpus: Path, hours: float, clips: int, snr: float, seed: int, encoder: str, cache: Path,
    json_path: Path | None,
) -> None:  # fmt: skip
    paths = [item.path for item in read_corpus(corpus) if item.role == "music"]
    order = np.random.default_rng(seed).permutation(len(paths)).tolist()
    seconds = hours * 3600
    file = cache / f"long-{hours:g}-{seed}" / "long.flac"
    join([paths[n] for n in order], seconds, file)
    catalog = file.parent / f"catalog-{Path(encoder).name}"
    if not Catalog.exists(catalog):
        options = ["--encoder", encoder, "--encoders", "fingerprint"]
        run_measured(earmark("ingest", file, "--catalog", catalog, *options))
    identifier = Identifier(catalog, encoder)
    last = seconds - _NEAR_S - CLIP_S - 1
    places = [0.0, *(p for p in (380.0, 3600.0, seconds / 2) if p < last), last]
    rows, result = [], []
    for place in places:
        for name, level in (("clean", None), (f"noise {snr:g} dB", snr)):
            found = 1000 * np.array(errors_near(place, file, identifier, clips, level, seed))
            figures = (np.median(np.abs(found)), np.median(found)) if len(found) else (np.nan,) * 2
            shown = [f"{int(place) // 3600}:{int(place) // 60 % 60:02}:{int(place) % 60:02}", name]
            rows.append([*shown, f"{len(found)} of {clips}", *(f"{f:.1f}" for f in figures)])
            result.append({"place_s": place, "condition": name, "errors_ms": found.tolist()})
    columns = ["Place", "Condition", "Accepted", "Median absolute error, ms", "Signed"]
    report(f"{CLIP_S:g}-s clips of one recording of {hours:g} h", columns, rows,
           {"places": result}, json_path)  # fmt: skip


if __name__ == "__main__":
    main()
