"""From a corpus to a bundle of latents: the whole training of the variational autoencoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from encoders import vae
from encoders.batches import WindowBatches
from encoders.cost import count_cost
from encoders.errors import EarmarkError
from encoders.experiment import Progress, Tally, log_run
from encoders.export import export_network
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.recipes.common import N_CALIBRATION, Announce, Caches, Trained, write_description
from encoders.training import TrainingConfig, fit

INPUT = LevelInput(low=0, high=128)


def train_vae(
    train: Caches,
    dev: Caches,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    network: vae.VaeConfig | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Trained:
    """Train the variational autoencoder. Parameters as in :func:`train_siamese`."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    shape = network or vae.VaeConfig()
    encoder = vae.build_encoder(spec.window_frames, INPUT.n_bands, shape)
    try:
        decoder = vae.build_decoder(spec.window_frames, INPUT.n_bands, shape)
    except ValueError as error:
        raise EarmarkError(f"{len(shape.channels)} convolutions: {error}") from None
    cost = count_cost(encoder)
    if announce:
        announce(cost)

    def windows(caches: Caches, seed: int) -> WindowBatches:
        # Square root of the lengths: speech and effects are heard beside hours of music.
        weights = [float(c.lengths.sum()) ** 0.5 for c in caches.everything]
        return WindowBatches(caches.everything, weights, spec, INPUT, seed=seed)

    def elbo_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        (levels,) = batch
        posterior = encoder(levels, training=training)
        seed = tf.stack([config.seed, tf.cast(step, tf.int32)])
        latent = vae.sample_posterior(posterior, seed) if training else posterior[:, : shape.dim]
        warm = tf.minimum(1.0, tf.cast(step, tf.float32) / (0.2 * config.steps))
        loss, error, kl = vae.negative_elbo(
            levels, posterior, decoder(latent, training=training), beta=warm
        )
        return {"loss": loss, "reconstruction": error, "kl": kl}

    batches, held_back = windows(train, config.seed), windows(dev, config.seed + 1)
    models = {"encoder": encoder, "decoder": decoder}
    tally = Tally(progress)
    fit(models, elbo_loss, batches, held_back, config, out, tally)
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    examples = np.concatenate([batches.batch(i)[0] for i in range(2)])[:N_CALIBRATION]
    export_network(encoder, bundle / "float32.tflite")
    export_network(encoder, bundle / "int8.tflite", examples)
    export_network(decoder, bundle / "decoder.tflite")
    settings, layers = dataclasses.asdict(config), dataclasses.asdict(shape)
    write_description(bundle, "vae", "vae", layers, spec, INPUT, settings)
    log_run(out, "vae", {"network": layers} | settings, cost, tally.figures())
    return Trained(bundle, tally.figures())
