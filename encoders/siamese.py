"""The Siamese encoder: one network, two views of the same sound, vectors that agree.

Both views go through the same weights; a contrastive loss pulls the two vectors of a pair together
and pushes those of different sounds apart (:mod:`encoders.losses`). TensorFlow is imported when a
model is built, not before: searching never needs it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class SiameseConfig:
    """Shape of the network.

    Parameters
    ----------
    dim : int
        Size of the embedding, a unit vector.
    channels : tuple of int
        Output channels of each 3 x 3 convolution. The first halves the frequency axis, the others
        halve both axes.
    hidden : int
        Width of the dense layer before the embedding.
    """

    dim: int = 128
    channels: tuple[int, ...] = (32, 48, 96, 192, 384)
    hidden: int = 512


def build_siamese(n_frames: int, n_bands: int, config: SiameseConfig) -> keras.Model:
    """The shared encoder.

    Returns
    -------
    model : keras.Model
        ``[shape=(batch, n_frames, n_bands)]`` levels in 0..1 to ``[shape=(batch, dim)]``,
        *before* normalisation to unit length: the norm is taken in float by the runtime, where
        an 8-bit one would lose precision, and by the losses here.
    """
    import keras

    inputs = keras.Input((n_frames, n_bands), name="levels")
    x = keras.layers.Reshape((n_frames, n_bands, 1))(inputs)
    for i, channels in enumerate(config.channels):
        strides = (1, 2) if i == 0 else (2, 2)
        x = keras.layers.Conv2D(channels, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(config.hidden, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(config.dim, dtype="float32")(x), name="siamese")
