"""From a corpus with labels to an event bundle: the whole training of the event encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.clips import ClipBatches, Clips
from encoders.corpus import Item
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
from encoders.teacher import Teacher
from encoders.training import TrainingConfig, fit
from encoders.warm_start import FLOAT_NETWORK, start_from_network

INPUT = LevelInput(low=0, high=128)
"""All of it: cymbals, insects and hiss live where no music has to be told apart."""

NETWORK = SiameseConfig(dim=256, channels=(24, 48, 96, 192, 384), hidden=512)


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
    distillation : float
        Weight of the loss of what the teacher says, if there is one.
    """

    network: SiameseConfig = NETWORK
    temperature: float = 0.1
    n_classes: int = 24
    n_each: int = 4
    n_others: int = 32
    distillation: float = 12.0


@dataclasses.dataclass(frozen=True)
class EventClips:
    """Spectrograms of one split: events, with what else a teacher has heard, and ambience."""

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
        teacher: Teacher | None = None,
    ) -> EventClips:
        """Decode the events and the noise of ``split`` (once: the cache in ``folder`` is kept).

        With a ``teacher``, all that it has heard counts as an event.

        Raises
        ------
        EarmarkError
            If there are no two events of one label that can be decoded.
        """

        def clips(role: str, also: Teacher | None = None) -> Clips:
            there = (i for i in items if i.split == split)
            mine = [i for i in there if i.role == role or (also and also.of(i))]
            return Clips.decode(mine, folder, spec, progress)

        events = clips("event", teacher)
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
    teacher: Teacher | None = None,
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
    teacher : Teacher, optional
        What it says of the sounds of ``train`` is learned beside the labels.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    recipe = recipe or EventRecipe()

    labels = sorted({item.label for item in train.events.items if item.label})

    def batches_of(clips: EventClips, seed: int, teacher: Teacher | None) -> ClipBatches:
        sizes = (recipe.n_classes, recipe.n_each, recipe.n_others)
        return ClipBatches(
            clips.events, spec, INPUT, clips.background, *sizes, labels, seed, teacher
        )

    batches = batches_of(train, config.seed, teacher)
    held_back = batches_of(dev, config.seed + 1, None)
    with precision("mixed_bfloat16" if config.mixed_precision else "float32"):
        model = build_siamese(spec.window_frames, INPUT.n_bands, recipe.network)
    cost = count_cost(model)
    if announce:
        announce(cost)
    tally = Tally(progress)
    prototypes = keras.layers.Embedding(len(labels), recipe.network.dim, name="prototypes")
    prototypes.build()
    models = {"model": model, "prototypes": prototypes}
    says = None
    if teacher is not None:
        # What the teacher says, told by the vector; not exported.
        says = models["says"] = keras.layers.Dense(teacher.dim)
        says.build((None, recipe.network.dim))
    loss = _clip_loss(model, prototypes, recipe, says)
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
    settings["taught"] = teacher is not None
    settings["classes"] = labels
    network = settings.pop("network")
    write_description(bundle, "event", "siamese", network, spec, INPUT, settings)
    log_run(out, "event", {"network": network} | settings, cost, tally.figures())
    return Trained(bundle, tally.figures())


def _clip_loss(
    model: Any, prototypes: Any, recipe: EventRecipe, says: Any = None
) -> Callable[[Any, bool, Any], dict[str, Any]]:
    import tensorflow as tf

    kinds = tf.range(prototypes.input_dim)

    def clip_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        levels, classes, *told = batch
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
        loss = sup_con(everything, tf.concat([classes, kinds], 0), recipe.temperature)
        figures = {"loss": loss, "accuracy": accuracy}
        if told:
            figures["far"] = _distance(says(tf.math.l2_normalize(vectors, 1)), told[0])
            figures["loss"] += recipe.distillation * figures["far"]
        return figures

    return clip_loss


def _distance(said: Any, told: Any) -> Any:
    # Mean cosine distance to what the teacher says, of the windows that it has heard.
    import tensorflow as tf

    heard = tf.cast(tf.reduce_any(told != 0.0, 1), tf.float32)
    cosines = tf.reduce_sum(tf.math.l2_normalize(said, 1) * told, 1)
    return tf.reduce_sum(heard * (1.0 - cosines)) / tf.maximum(tf.reduce_sum(heard), 1.0)
