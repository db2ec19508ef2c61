"""From a corpus to a bundle: the whole training of each encoder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders import siamese, vae
from encoders.bundle import write_meta
from encoders.corpus import Item, PcmCache
from encoders.degrade import World, simulate_rooms
from encoders.errors import EarmarkError
from encoders.export import export_network
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.training import PairBatches, TrainingConfig, WindowBatches, fit

FINGERPRINT_INPUT = LevelInput(low=8, high=104)
"""250 Hz to 4.5 kHz: what survives telephones and small loudspeakers."""

VAE_INPUT = LevelInput(low=0, high=128)

N_CALIBRATION = 512
"""Windows that set the ranges of the 8-bit networks."""

Progress = Callable[[int, dict[str, float]], None]
DecodeProgress = Callable[[int, int], None]


def require_training() -> None:
    """Fail with a sentence where the ``train`` extra is not installed."""
    for package in ("tensorflow", "pyroomacoustics"):
        if importlib.util.find_spec(package) is None:
            raise EarmarkError(f"training needs {package}: pip install 'earmark[train]'")


@dataclasses.dataclass(frozen=True)
class Caches:
    """Decoded audio by role, of one split."""

    music: PcmCache
    speech: PcmCache
    noise: PcmCache
    event: PcmCache

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        split: str,
        folder: Path,
        spec: FeatureSpec,
        progress: DecodeProgress | None = None,
    ) -> Caches:
        """Decode every role of ``split`` (once: the cache in ``folder`` is kept)."""
        by_role = {
            field.name: PcmCache.build(
                [i for i in items if i.role == field.name and i.split == split],
                folder,
                spec.sample_rate,
                progress,
            )
            for field in dataclasses.fields(cls)
        }
        caches = cls(**by_role)
        if not len(caches.music):
            raise EarmarkError(f"the corpus has no music that can be decoded in split {split!r}")
        return caches

    @property
    def background(self) -> list[PcmCache]:
        """What sounds beside the sound that is looked for."""
        return [c for c in (self.noise, self.speech, self.music) if len(c)]

    @property
    def everything(self) -> list[PcmCache]:
        """All that is not empty."""
        return [c for c in (self.music, self.speech, self.event, self.noise) if len(c)]


def train_siamese(
    train: Caches,
    dev: Caches,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    network: siamese.SiameseConfig | None = None,
    loss: str = "nt-xent",
    progress: Progress | None = None,
) -> Path:
    """Train the fingerprint encoder; gives the folder of its bundle."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    rooms = simulate_rooms(600, spec.sample_rate, seed=config.seed)
    teacher = World(spec.sample_rate, train.background, rooms[:500])
    examiner = World(spec.sample_rate, dev.background, rooms[500:])
    batches = PairBatches(train.music, teacher, spec, FINGERPRINT_INPUT, seed=config.seed)
    held_back = PairBatches(dev.music, examiner, spec, FINGERPRINT_INPUT, seed=config.seed + 1)
    shape = network or siamese.SiameseConfig()
    model = siamese.build_siamese(spec.window_frames, FINGERPRINT_INPUT.n_bands, shape)
    objective = siamese.LOSSES[loss]

    def pair_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        anchors, positives, same = batch
        n = anchors.shape[0]
        # One pass for both views: batch normalisation sees clean and degraded sound together.
        both = model(tf.concat([anchors, positives], 0), training=training)
        similarity = siamese.cosine_similarity(both[n:], both[:n])
        right = tf.equal(tf.argmax(similarity, 1), tf.range(n, dtype=tf.int64))
        return {
            "loss": objective(both[:n], both[n:], same),
            "accuracy": tf.reduce_mean(tf.cast(right, tf.float32)),
        }

    fit({"model": model}, pair_loss, batches, held_back, config, out, progress)
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    examples = np.concatenate([np.concatenate(batches.batch(i)[:2]) for i in range(2)])
    rng = np.random.default_rng(config.seed)
    export_network(model, bundle / "float32.tflite")
    export_network(model, bundle / "int8.tflite", rng.permutation(examples)[:N_CALIBRATION])
    _write(bundle, "fingerprint", "siamese", shape, spec, FINGERPRINT_INPUT, config, {"loss": loss})
    return bundle


def train_vae(
    train: Caches,
    dev: Caches,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    network: vae.VaeConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the variational autoencoder; gives the folder of its bundle."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    shape = network or vae.VaeConfig()
    encoder = vae.build_encoder(spec.window_frames, VAE_INPUT.n_bands, shape)
    decoder = vae.build_decoder(spec.window_frames, VAE_INPUT.n_bands, shape)

    def windows(caches: Caches, seed: int) -> WindowBatches:
        # Square root of the lengths: speech and effects are heard beside hours of music.
        weights = [float(c.lengths.sum()) ** 0.5 for c in caches.everything]
        return WindowBatches(caches.everything, weights, spec, VAE_INPUT, seed=seed)

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
    fit(models, elbo_loss, batches, held_back, config, out, progress)
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    examples = np.concatenate([batches.batch(i)[0] for i in range(2)])[:N_CALIBRATION]
    export_network(encoder, bundle / "float32.tflite")
    export_network(encoder, bundle / "int8.tflite", examples)
    export_network(decoder, bundle / "decoder.tflite")
    _write(bundle, "vae", "vae", shape, spec, VAE_INPUT, config, {})
    return bundle


def _write(
    bundle: Path,
    name: str,
    kind: str,
    shape: siamese.SiameseConfig | vae.VaeConfig,
    spec: FeatureSpec,
    inputs: LevelInput,
    config: TrainingConfig,
    extra: dict[str, str],
) -> None:
    meta = {
        "name": name,
        "kind": kind,
        "dim": shape.dim,
        "spec": spec.to_dict(),
        "inputs": dataclasses.asdict(inputs),
        "network": dataclasses.asdict(shape),
        "training": dataclasses.asdict(config) | extra,
    }
    write_meta(bundle, json.loads(json.dumps(meta)))
