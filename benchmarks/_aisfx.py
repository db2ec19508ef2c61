"""The network of aiSFX: sound effects, learned with the categories of their makers.

That of Ma and Lerch, "Representation learning for the automatic indexing of sound effects
libraries" (ISMIR 2022, CC BY 4.0). It comes with the package aisfx of PyPI.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np

WHEEL = "aisfx==0.1.2"
FILES = ("aisfx/models/checkpoint.pth",)

RATE = 44_100
N_FFT, HOP, N_MELS = 2048, 1024, 96
# A window of a second and some silence behind it, which it has seen behind short sounds.
N_FRAMES = 56
# Spectrograms are seen in parts of what they may reach at most (its authors' constant).
_MOST = 9.457798957824707
CHANNELS = (64, 128, 256, 512)


def load(folder: Path) -> Any:
    """The network, from the files of its wheel."""
    return build_network(read_arrays(folder / FILES[0]))


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
