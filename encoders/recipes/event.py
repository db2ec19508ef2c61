"""From a corpus with labels to an event bundle: the whole training of the event encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.clips import ClipBatches, Clips
from encoders.corpus import Item, PcmCache
from encoders.cost import count_cost
from encoders.errors import EarmarkError
from encoders.experiment import Progress, Tally, log_run
from encoders.export import export_network
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.losses import cosine_similarity, sup_con
from encoders.recipes.common import (
    N_CALIBRATION,
    Announce,
    DecodeProgress,
    Trained,
    precision,
    write_description,
)
from encoders.siamese import SiameseConfig, build_siamese
from encoders.training import TrainingConfig, fit
from encoders.warm_start import FLOAT_NETWORK, start_from_network

INPUT = LevelInput(low=0, high=128)
"""All of it: cymbals, insects and hiss live where no music has to be told apart."""

NETWORK = SiameseConfig(channels=(16, 32, 64, 128, 256), hidden=256)


@dataclasses.dataclass(frozen=True)
class EventRecipe:
    """What can be chosen of the event encoder and its training.

    Parameters
    ----------
    network : SiameseConfig
    temperature : float
        Of the supervised contrastive loss.
    n_classes, n_each : int
        Classes in a batch and sounds of each; every sound gives two windows.
    n_others : int
        Further sounds in a batch, of any class or none.
    """

    network: SiameseConfig = NETWORK
    temperature: float = 0.1
    n_classes: int = 24
    n_each: int = 4
    n_others: int = 32


@dataclasses.dataclass(frozen=True)
class EventClips:
    """Spectrograms of one split: events, and what sounds beside them."""

    events: Clips
    background: Clips

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        split: str,
        folder: Path,
        spec: FeatureSpec,
        progress: DecodeProgress | None = None,
    ) -> EventClips:
        """Decode the events and the noise of ``split`` (once: the cache in ``folder`` is kept).

        Raises
        ------
        EarmarkError
            If there are no two events of one label that can be decoded.
        """

        def clips(role: str) -> Clips:
            mine = [i for i in items if i.role == role and i.split == split]
            cache = PcmCache.build(mine, folder, spec.sample_rate, progress)
            return Clips.compute(cache, mine, spec)

        events = clips("event")
        labels = [item.label for item in events.items if item.label]
        if len(labels) == len(set(labels)):
            raise EarmarkError(
                f"the corpus has no two events of one label in split {split!r}: its CSV needs a "
                "column 'label' that says what kind of sound each event is"
            )
        return cls(events, clips("noise"))


def train_events(
    train: EventClips,
    dev: EventClips,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    recipe: EventRecipe | None = None,
    progress: Progress | None = None,
    start: Path | None = None,
    announce: Announce | None = None,
) -> Trained:
    """Train the event encoder.

    Parameters
    ----------
    train, dev : EventClips
        To fit, and to watch.
    out : Path
        Gets the checkpoints, the logs, ``bundle/`` and a line in ``experiment.json``.
    start : Path, optional
        ``out`` of an earlier run, or a bundle of the same shape, whose weights are the first
        ones of this.
    announce : callable, optional
        Is told what the network costs before training starts.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    recipe = recipe or EventRecipe()

    labels = sorted({item.label for item in train.events.items if item.label})

    def batches_of(clips: EventClips, seed: int) -> ClipBatches:
        sizes = (recipe.n_classes, recipe.n_each, recipe.n_others)
        return ClipBatches(clips.events, spec, INPUT, clips.background, *sizes, labels, seed)

    batches, held_back = batches_of(train, config.seed), batches_of(dev, config.seed + 1)
    with precision("mixed_bfloat16" if config.mixed_precision else "float32"):
        model = build_siamese(spec.window_frames, INPUT.n_bands, recipe.network)
    cost = count_cost(model)
    if announce:
        announce(cost)
    tally = Tally(progress)
    prototypes = keras.layers.Embedding(len(labels), recipe.network.dim, name="prototypes")
    prototypes.build()
    models = {"model": model, "prototypes": prototypes}
    loss = _clip_loss(model, prototypes, recipe.temperature)
    earlier = start
    if start is not None and (start / FLOAT_NETWORK).exists():
        start_from_network(model, start / FLOAT_NETWORK, batches.batch(0)[0])
        earlier = None
    fit(models, loss, batches, held_back, config, out, tally, earlier)

    trained = build_siamese(spec.window_frames, INPUT.n_bands, recipe.network)
    trained.set_weights(model.get_weights())
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    examples = np.concatenate([batches.batch(i)[0] for i in range(4)])
    rng = np.random.default_rng(config.seed)
    export_network(trained, bundle / "float32.tflite")
    export_network(trained, bundle / "int8.tflite", rng.permutation(examples)[:N_CALIBRATION])
    settings = dataclasses.asdict(config) | dataclasses.asdict(recipe)
    settings["start"] = start.name if start else None
    settings["classes"] = labels
    network = settings.pop("network")
    write_description(bundle, "event", "siamese", network, spec, INPUT, settings)
    log_run(out, "event", {"network": network} | settings, cost, tally.figures())
    return Trained(bundle, tally.figures())


def _clip_loss(
    model: Any, prototypes: Any, temperature: float
) -> Callable[[Any, bool, Any], dict[str, Any]]:
    import tensorflow as tf

    kinds = tf.range(prototypes.input_dim)

    def clip_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        levels, classes = batch
        vectors = model(levels, training=training)
        # The nearest window of another sound; the second window of the same one is next to it.
        sound = tf.range(tf.shape(classes)[0]) // 2
        other = sound[:, None] != sound[None, :]
        cosines = tf.where(other, cosine_similarity(vectors, vectors), -2.0)
        right = tf.gather(classes, tf.argmax(cosines, 1)) == classes
        possible = tf.reduce_any(other & (classes[:, None] == classes[None, :]), 1)
        n_possible = tf.maximum(tf.math.count_nonzero(possible, dtype=tf.float32), 1.0)
        accuracy = tf.math.count_nonzero(right & possible, dtype=tf.float32) / n_possible
        # A learned vector of each label takes part in every batch, as do those of parametric
        # contrastive learning (Cui et al., 2021): no label is ever without a sound in it.
        everything = tf.concat([vectors, prototypes.embeddings], 0)
        loss = sup_con(everything, tf.concat([classes, kinds], 0), temperature)
        return {"loss": loss, "accuracy": accuracy}

    return clip_loss
