"""The variational autoencoder: a window of sound as a point in a small, smooth space.

The encoder gives the posterior's mean and log-variance, the decoder turns a latent back into
log-mel levels. The posterior mean is the latent that is stored and searched. (Kingma and Welling,
"Auto-Encoding Variational Bayes", 2014.) TensorFlow is imported when a model is built.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Shape of the network.

    Parameters
    ----------
    dim : int
        Size of the latent.
    channels : tuple of int
        Output channels of the encoder's 3 x 3 convolutions; each halves both axes. The decoder
        mirrors them.
    hidden : int
        Width of the dense layers on either side of the latent.
    """

    dim: int = 64
    channels: tuple[int, ...] = (16, 32, 64, 128)
    hidden: int = 256


def build_encoder(n_frames: int, n_bands: int, config: VaeConfig) -> keras.Model:
    """Levels ``[shape=(batch, n_frames, n_bands)]`` in 0..1 to mean and log-variance side by side
    ``[shape=(batch, 2 * dim)]``."""
    import keras

    inputs = keras.Input((n_frames, n_bands), name="levels")
    x = keras.layers.Reshape((n_frames, n_bands, 1))(inputs)
    for channels in config.channels:
        x = keras.layers.Conv2D(channels, 3, 2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(config.hidden, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(2 * config.dim)(x), name="vae_encoder")


def build_decoder(n_frames: int, n_bands: int, config: VaeConfig) -> keras.Model:
    """Latents ``[shape=(batch, dim)]`` to levels ``[shape=(batch, n_frames, n_bands)]``."""
    import keras

    scale = 2 ** len(config.channels)
    if n_frames % scale or n_bands % scale:
        raise ValueError(f"n_frames and n_bands must be multiples of {scale}")
    inputs = keras.Input((config.dim,), name="latent")
    x = keras.layers.Dense(config.hidden, activation="relu")(inputs)
    seed = (n_frames // scale, n_bands // scale, config.channels[-1])
    x = keras.layers.Dense(seed[0] * seed[1] * seed[2], activation="relu")(x)
    x = keras.layers.Reshape(seed)(x)
    for channels in (*config.channels[-2::-1], config.channels[0]):
        x = keras.layers.Conv2DTranspose(channels, 3, 2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    return keras.Model(inputs, keras.layers.Reshape((n_frames, n_bands))(x), name="vae_decoder")


def negative_elbo(
    levels: Any, posterior: Any, reconstruction: Any, sigma: float = 0.08, beta: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The loss, and its two parts, in nats per window.

    Parameters
    ----------
    levels, reconstruction : tensor [shape=(n, n_frames, n_bands)]
    posterior : tensor [shape=(n, 2 * dim)]
        Mean and log-variance.
    sigma : float
        Standard deviation of the Gaussian likelihood, in levels (0.08 = 6.4 dB).
    beta : float
        Weight of the KL term; annealed from 0 to 1 at the start of training.

    Returns
    -------
    loss, reconstruction_error, kl : tensors, scalar
    """
    import tensorflow as tf

    mean, log_variance = tf.split(posterior, 2, axis=1)
    squared = tf.reduce_sum(tf.square(levels - reconstruction), axis=(1, 2))
    error = tf.reduce_mean(squared) / (2.0 * sigma**2)
    divergence = 0.5 * (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance)
    kl = tf.reduce_mean(tf.reduce_sum(divergence, axis=1))
    return error + beta * kl, error, kl


def sample_posterior(posterior: Any, seed: Any) -> tf.Tensor:
    """One latent from each posterior (the reparameterisation trick) [shape=(n, dim)]."""
    import tensorflow as tf

    mean, log_variance = tf.split(posterior, 2, axis=1)
    noise = tf.random.stateless_normal(tf.shape(mean), seed=seed)
    return mean + tf.exp(0.5 * log_variance) * noise
