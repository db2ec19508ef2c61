"""The network of the detector: ten seconds of sound in, what is heard when out.

The convolutions are those of the event encoder (:mod:`encoders.siamese`) and begin with its
weights, but see ten seconds at once. What they make of them at four resolutions is brought together
from the coarsest to the finest (Lin et al., "Feature pyramid networks", 2017), and dilated
convolutions over time look at what comes before and after. TensorFlow is imported when a network
is built, not before.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Shape of the network.

    Parameters
    ----------
    channels : tuple of int
        Output channels of each 3 x 3 convolution, as :class:`encoders.siamese.SiameseConfig` has
        them.
    width : int
        Channels of what looks along time.
    dilations : tuple of int
        Of the convolutions over time.
    dropout : float
    """

    channels: tuple[int, ...] = (24, 48, 96, 192, 384)
    width: int = 192
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.3


def build_detector(
    n_frames: int, n_bands: int, n_classes: int, config: DetectorConfig
) -> keras.Model:
    """The network.

    Returns
    -------
    model : keras.Model
        ``[shape=(batch, n_frames, n_bands)]`` levels in 0..1 to logits
        ``[shape=(batch, n_frames / STEP, 2 * n_classes)]``: that a class sounds, then that it
        begins to.
    """
    import keras
    from keras import layers

    inputs = keras.Input((n_frames, n_bands), name="levels")
    x = layers.Reshape((n_frames, n_bands, 1))(inputs)
    scales = []
    for i, channels in enumerate(config.channels):
        strides = (1, 2) if i == 0 else (2, 2)
        x = layers.Conv2D(
            channels, 3, strides, padding="same", use_bias=False, name=f"conv{i}"
        )(x)  # fmt: skip
        x = layers.ReLU()(layers.BatchNormalization(name=f"norm{i}")(x))
        scales.append(x)

    def along_time(x: Any, dilation: int = 1) -> Any:
        x = layers.Conv1D(
            config.width, 3, padding="same", dilation_rate=dilation, use_bias=False
        )(x)  # fmt: skip
        return layers.ReLU()(layers.BatchNormalization()(x))

    merged = None
    for scale in scales[:0:-1]:
        n_steps, *bands = scale.shape[1:]
        x = layers.Reshape((n_steps, bands[0] * bands[1]))(scale)
        x = layers.BatchNormalization()(layers.Dense(config.width, use_bias=False)(x))
        if merged is not None:
            x = layers.Add()([x, layers.UpSampling1D(2)(merged)])
        merged = along_time(layers.ReLU()(x))
    for dilation in config.dilations:
        merged = layers.Add()([merged, along_time(merged, dilation)])
    # Rarely does anything sound.
    rare = keras.initializers.Constant(-4.0)
    merged = layers.Dropout(config.dropout)(merged)
    outputs = layers.Dense(2 * n_classes, bias_initializer=rare, dtype="float32")(merged)
    return keras.Model(inputs, outputs)
