"""What a pretrained network says of the sounds of a corpus, for ``earmark train event --teacher``.

The network is that of Ma and Lerch, "Representation learning for the automatic indexing of sound
effects libraries" (ISMIR 2022, CC BY 4.0), which has learned from sound effects with the categories
of their makers. It comes with the package aisfx of PyPI, whose wheel is downloaded; of that only
the numbers are read, so that nothing in it is ever run. Needs the ``train`` extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import librosa
import numpy as np
from _common import run_tool

from encoders.audio import load_audio
from encoders.clips import LONGEST_S
from encoders.corpus import Item, read_corpus
from encoders.errors import AudioError
from index.storage import write_atomically
from pipelines.progress import task_display

WHEEL = "aisfx==0.1.2"
_WEIGHTS = "aisfx/models/checkpoint.pth"

RATE = 44_100
N_FFT, HOP, N_MELS = 2048, 1024, 96
# Spectrograms are seen in parts of what they may reach at most (its authors' constant).
_MOST = 9.457798957824707
CHANNELS = (64, 128, 256, 512)

WINDOW_S, STEP_S = 1.0, 0.5
# A window and some silence behind it, which it has seen behind short sounds.
N_FRAMES = 56
# Windows of a recording at most, the loudest of an event; recordings of speech, which has many.
N_WINDOWS = {"event": 12, "music": 14, "speech": 3, "noise": 24}
N_SPEECH = 2500
# Windows that are so much quieter than the loudest of their recording are its silence, as are
# those that never reach this.
_QUIET, _SILENT = 0.03, 3e-4
_BATCH = 32


def download(folder: Path) -> Path:
    """Get the wheel from PyPI."""
    run_tool([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL], folder)
    (wheel,) = folder.glob("aisfx-*.whl")
    return wheel


def read_arrays(checkpoint: Path) -> Iterator[np.ndarray]:
    """The floats of a checkpoint of PyTorch, array by array, in the order they were stored.

    Their shapes stand in a pickle, which is left alone.
    """
    with zipfile.ZipFile(checkpoint) as stored:
        names = [n for n in stored.namelist() if "/data/" in n and n.rsplit("/", 1)[1].isdigit()]
        for name in sorted(names, key=lambda n: int(n.rsplit("/", 1)[1])):
            data = stored.read(name)
            # Counters of batches are whole numbers of 64 bits, alone.
            if len(data) != 8:
                yield np.frombuffer(data, "<f4")


def build_network(arrays: Iterator[np.ndarray], channels: Sequence[int] = CHANNELS) -> Any:
    """The network, with its weights.

    Parameters
    ----------
    arrays : iterator of np.ndarray
        From :func:`read_arrays`.
    channels : sequence of int
        Of its blocks of two convolutions.

    Returns
    -------
    network : keras.Model
        ``[shape=(n, N_FRAMES, N_MELS)]`` to ``[shape=(n, channels[-1])]``.
    """
    import keras

    inputs = keras.Input((N_FRAMES, N_MELS))
    x = keras.layers.Reshape((N_FRAMES, N_MELS, 1))(inputs)
    convolutions, normalisations = [], []
    for number, n in enumerate(channels):
        for _ in range(2):
            convolutions.append(keras.layers.Conv2D(n, 3, padding="same", use_bias=False))
            normalisations.append(keras.layers.BatchNormalization(epsilon=1e-5))
            x = keras.layers.ReLU()(normalisations[-1](convolutions[-1](x)))
        if number < len(channels) - 1:
            x = keras.layers.MaxPooling2D(2)(x)
    means = keras.layers.Lambda(lambda t: keras.ops.mean(t, axis=2))(x)
    network = keras.Model(inputs, keras.layers.GlobalMaxPooling1D()(means))
    for first in range(0, len(convolutions), 2):
        for layer in convolutions[first : first + 2]:
            height, width, n_in, n_out = layer.kernel.shape
            kernel = next(arrays).reshape(n_out, n_in, height, width)
            layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        for layer in normalisations[first : first + 2]:
            layer.set_weights([next(arrays) for _ in range(4)])
    return network


def spectrogram(signal: np.ndarray) -> np.ndarray:
    """What the network sees of a window of sound [shape=(N_FRAMES, N_MELS), dtype=float32]."""
    loudest = np.abs(signal).max(initial=0.0)
    # Librosa pads what is shorter than a frame, and warns of it.
    signal = np.pad(signal, (0, max(0, N_FFT - len(signal)))) / max(loudest, 1e-9)
    mel = librosa.feature.melspectrogram(
        y=signal, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, fmin=0.0, fmax=RATE / 2,
        htk=True, norm=1.0,
    )  # fmt: skip
    seen = np.zeros((N_FRAMES, N_MELS), np.float32)
    levels = np.log10(1.0 + 1e4 * mel.T[:N_FRAMES]) / _MOST
    seen[: len(levels)] = levels
    return seen


def windows_of(item: Item, seed: int) -> tuple[list[float], list[np.ndarray]]:
    """Where the windows of a recording begin, s, and what the network sees of each."""
    try:
        signal = load_audio(item.path, RATE)[: LONGEST_S * RATE]
    except AudioError:
        return [], []
    step, length = round(STEP_S * RATE), round(WINDOW_S * RATE)
    starts = np.arange(0, max(1, len(signal) - step), step)
    peaks = np.array([np.abs(signal[s : s + length]).max(initial=0.0) for s in starts])
    heard = np.flatnonzero((peaks > _QUIET * peaks.max()) & (peaks > _SILENT))
    most = N_WINDOWS[item.role]
    if item.role == "event":
        heard = np.sort(heard[np.argsort(-peaks[heard], kind="stable")[:most]])
    elif len(heard) > most:
        heard = np.sort(np.random.default_rng(seed).choice(heard, most, replace=False))
    chosen = starts[heard].tolist()
    return [s / RATE for s in chosen], [spectrogram(signal[s : s + length]) for s in chosen]


def choose(items: Sequence[Item], seed: int) -> list[Item]:
    """What is heard of ``train``: all, and some of the speech."""
    train = [item for item in items if item.split == "train"]
    speech = [item for item in train if item.role == "speech"]
    order = np.random.default_rng(seed).permutation(len(speech))[:N_SPEECH]
    return [i for i in train if i.role != "speech"] + [speech[n] for n in sorted(order.tolist())]


def teach(
    network: Any, items: Sequence[Item], folder: Path, seed: int
) -> tuple[list[str], list[float], np.ndarray]:
    """Paths below ``folder``, beginnings and vectors of all windows."""
    names: list[str] = []
    starts: list[float] = []
    waiting: list[np.ndarray] = []
    vectors = [np.empty((0, network.output_shape[1]), np.float32)]

    def flush() -> None:
        if waiting:
            # Always as many, so that nothing is compiled twice.
            batch = np.zeros((_BATCH, N_FRAMES, N_MELS), np.float32)
            batch[: len(waiting)] = waiting[:_BATCH]
            vectors.append(network.predict_on_batch(batch)[: len(waiting)])
            del waiting[:_BATCH]

    with ThreadPoolExecutor(os.cpu_count()) as pool, task_display("Teaching") as show:
        heard = pool.map(lambda n: windows_of(items[n], seed + n), range(len(items)))
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
@click.option("--out", default="teacher.npz", show_default=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--seed", default=0, show_default=True)
def main(corpus: Path, out: Path, seed: int) -> None:
    items = choose(read_corpus(corpus), seed)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(download(Path(folder))) as wheel:
            checkpoint = wheel.extract(_WEIGHTS, folder)
        network = build_network(read_arrays(checkpoint))
    names, starts, vectors = teach(network, items, corpus.parent, seed)
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
