"""Drums and instruments with labels that are sure, from the SoundFonts of Debian.

Adds them to what ``corpus.py fetch`` has fetched, as events of train: the corpus has few drums to
learn from, and names of games' sounds are noisy labels. What each number of General MIDI is called
stands in soundfonts.csv. Played by FluidSynth: apt-get install libfluidsynth3, and pip install
pyfluidsynth.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
from _common import run_tool

from index.storage import write_atomically

PACKAGES = (
    "csound-soundfont", "fluid-soundfont-gm", "musescore-general-soundfont", "opl3-soundfont",
    "timgm6mb-soundfont",
)  # fmt: skip
KINDS = Path(__file__).parent / "soundfonts.csv"
FOLDER = "soundfonts"
RATE = 44_100
# How long a key is down, and how long it may ring after that, s.
_HELD_S, _RINGS_S = 0.75, 1.25
_KEYS, _LOUD, _SOFT = (40, 52, 64, 76), 120, 64
# Kits that differ: standard, room, power, electronic, TR-808, jazz, brushes. Later ones are an
# orchestra's and sound effects, whose keys mean something else.
_DRUMS, _KITS = 128, (0, 8, 16, 24, 25, 32, 40)
_LEAST_PEAK = 1e-3
DRUM_CHANNEL = 9


def read_kinds() -> dict[tuple[str, int], str]:
    """The label of each number, of drums and of melodic instruments."""
    with KINDS.open(newline="", encoding="utf-8") as lines:
        return {
            (row["bank"], int(number)): row["label"]
            for row in csv.DictReader(lines)
            for number in row["numbers"].split()
        }


def fetch(folder: Path, packages: Sequence[str] = PACKAGES) -> dict[str, list[Path]]:
    """The SoundFonts of each package, and its copyright file."""
    fonts = {}
    for package in packages:
        home = folder / package
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                run_tool(["apt-get", "-q", "download", package], scratch)
                (archive,) = Path(scratch).glob("*.deb")
                run_tool(["dpkg-deb", "-x", archive.name, "x"], scratch)
                (Path(scratch) / "x").rename(home)
        fonts[package] = sorted(p for p in home.rglob("*.sf[23]") if not p.is_symlink())
    return fonts


class Player:
    """One SoundFont.

    Parameters
    ----------
    font : Path
    rings_s : float
        How long a note is listened to after its key is up, s.
    """

    def __init__(self, font: Path, rings_s: float = _RINGS_S) -> None:
        try:
            import fluidsynth
        except ImportError as error:
            raise click.ClickException(
                f"{error}: {(__doc__ or '').split('Played by ')[1]}"
            ) from None
        self._synth: Any = fluidsynth.Synth(gain=0.5, samplerate=float(RATE))
        # Neither is part of the instrument.
        self._synth.setting("synth.reverb.active", 0)
        self._synth.setting("synth.chorus.active", 0)
        self._font = self._synth.sfload(str(font))
        self._rings = round(rings_s * RATE)

    def presets(self) -> Iterator[tuple[int, int]]:
        """Bank and number of each preset that is wanted."""
        for bank, numbers in ((_DRUMS, _KITS), (0, range(128))):
            for number in numbers:
                if self._synth.sfpreset_name(self._font, bank, number) is not None:
                    yield bank, number

    def play(
        self, bank: int, number: int, key: int, velocity: int, channel: int | None = None
    ) -> np.ndarray:
        """One note, mono, without the silence after it [shape=(n,), dtype=float32]."""
        if channel is None:
            channel = DRUM_CHANNEL if bank == _DRUMS else 0
        self._synth.program_select(channel, self._font, bank, number)
        self._synth.noteon(channel, key, velocity)
        held = self._synth.get_samples(round(_HELD_S * RATE))
        self._synth.noteoff(channel, key)
        rings = self._synth.get_samples(self._rings)
        self._synth.system_reset()
        both = np.concatenate([held, rings]).reshape(-1, 2) / np.float32(32768)
        mono: np.ndarray = both.mean(axis=1).astype(np.float32)
        heard = np.flatnonzero(np.abs(mono) > _LEAST_PEAK)
        return mono[: heard[-1] + 1] if len(heard) else mono[:0]

    def close(self) -> None:
        """Give its memory back."""
        self._synth.delete()


def notes(
    player: Player, kinds: dict[tuple[str, int], str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Label, name and sound of every note."""
    for bank, number in player.presets():
        if bank == _DRUMS:
            played = [
                (label, key, velocity)
                for (kind, key), label in kinds.items() if kind == "drums"
                for velocity in (_LOUD, _SOFT)
            ]  # fmt: skip
        else:
            label = kinds.get(("melodic", number), "")
            played = [(label, key, _LOUD) for key in _KEYS if label]
        for label, key, velocity in played:
            sound = player.play(bank, number, key, velocity)
            yield label, f"{bank}-{number}-{key}-{velocity}", sound


def check_neighbours(corpus: Path, out: Path) -> None:
    """Refuse to write anywhere but beside the corpus: its paths are relative."""
    if out.parent.resolve() != corpus.parent.resolve() or out.resolve() == corpus.resolve():
        raise click.BadParameter("must be another file in the folder of --corpus")


@click.command(help=__doc__)
@click.option("--corpus", required=True, metavar="CSV",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What corpus.py has written.")  # fmt: skip
@click.option("--out", required=True, metavar="CSV",
              type=click.Path(dir_okay=False, path_type=Path),
              help="The same and what is added; in the same folder.")  # fmt: skip
def main(corpus: Path, out: Path) -> None:
    check_neighbours(corpus, out)
    home = corpus.parent / FOLDER
    home.mkdir(exist_ok=True)
    rows, counts, seen = [], Counter[str](), set[bytes]()
    kinds = read_kinds()
    for package, fonts in fetch(home).items():
        for font in fonts:
            player = Player(font)
            for label, name, sound in notes(player, kinds):
                # Kits share most of their sounds.
                content = hashlib.blake2b(sound.tobytes()).digest()
                if not len(sound) or content in seen:
                    continue
                seen.add(content)
                path = home / f"{package}-{font.stem}" / label / f"{name}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                with write_atomically(path) as file:
                    soundfile.write(file, sound, RATE, format="FLAC")
                seconds = f"{len(sound) / RATE:.3f}"
                rows.append([path.relative_to(corpus.parent), "event", "train", seconds, label])
                counts[label] += 1
            player.close()
            click.echo(f"{package}, {font.name}: {len(rows):,} sounds")
    with corpus.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        columns, *known = list(reader)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow([*columns, "source"])
    table.writerows([*row, ""] for row in known)
    table.writerows([*row, Path(row[0]).parts[1]] for row in rows)
    with write_atomically(out) as file:
        file.write(text.getvalue().encode())
    click.echo(f"{out}: {', '.join(f'{label} {n:,}' for label, n in counts.most_common())}")


if __name__ == "__main__":
    main()
