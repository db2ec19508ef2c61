"""The Siamese encoder: one network, two views of the same sound, vectors that agree.

Both views go through the same weights; a contrastive loss pulls the two vectors of a pair together
and pushes those of different sounds apart. TensorFlow is imported when a model is built, not
before: searching never needs it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


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
    channels: tuple[int, ...] = (32, 48, 96, 192, 320)
    hidden: int = 256


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
    return keras.Model(inputs, keras.layers.Dense(config.dim)(x), name="siamese")


def cosine_similarity(a: Any, b: Any) -> tf.Tensor:
    """Cosine of every row of ``a`` with every row of ``b`` [shape=(n_a, n_b)]."""
    import tensorflow as tf

    return tf.matmul(tf.math.l2_normalize(a, 1), tf.math.l2_normalize(b, 1), transpose_b=True)


def nt_xent(anchors: Any, positives: Any, same: Any, temperature: float = 0.05) -> tf.Tensor:
    """Normalised temperature-scaled cross entropy with in-batch negatives (SimCLR, 2020).

    Parameters
    ----------
    anchors, positives : tensor [shape=(n, dim)]
        Row ``i`` of both belongs to the same sound.
    same : tensor [shape=(n, n), dtype=bool]
        Pairs of *different* rows that sound the same all the same, such as an exact loop; they
        are left out of the negatives.

    Returns
    -------
    loss : tensor, scalar
    """
    import tensorflow as tf

    n = tf.shape(anchors)[0]
    both = tf.concat([anchors, positives], 0)
    logits = cosine_similarity(both, both) / temperature
    partner = tf.concat([tf.range(n, 2 * n), tf.range(n)], 0)
    is_partner = tf.one_hot(partner, 2 * n, on_value=True, off_value=False)
    ignored = tf.tile(tf.convert_to_tensor(same), (2, 2)) | tf.eye(2 * n, dtype=tf.bool)[:]
    logits = tf.where(ignored & ~is_partner, -1e9, logits)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=partner, logits=logits)
    )


def contrastive_margin(anchors: Any, positives: Any, same: Any, margin: float = 0.8) -> tf.Tensor:
    """Classical contrastive loss on pairs (Hadsell, Chopra, LeCun, 2006).

    Pairs are drawn together by their squared Euclidean distance on the unit sphere; every other
    combination in the batch is pushed out to ``margin``. Parameters as in :func:`nt_xent`.
    """
    import tensorflow as tf

    squared = tf.maximum(2.0 - 2.0 * cosine_similarity(anchors, positives), 1e-12)
    together = tf.linalg.diag_part(squared)
    apart = tf.square(tf.maximum(0.0, margin - tf.sqrt(squared)))
    n = tf.shape(squared)[0]
    negative = tf.cast(~(tf.convert_to_tensor(same) | tf.eye(n, dtype=tf.bool)), tf.float32)
    # Most negatives are already outside the margin: average over those that are not.
    active = negative * tf.cast(apart > 0, tf.float32)
    pushed = tf.reduce_sum(negative * apart) / tf.maximum(tf.reduce_sum(active), 1.0)
    return tf.reduce_mean(together) + pushed


LOSSES = {"nt-xent": nt_xent, "contrastive": contrastive_margin}
