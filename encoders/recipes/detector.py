"""From a corpus with labels to a detector bundle: the whole training of the detector."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.bundle import SHIPPED, write_meta
from encoders.clips import Clips
from encoders.corpus import Item, best_covered
from encoders.cost import count_cost
from encoders.detector import KIND, STEP
from encoders.detector_network import DetectorConfig, build_detector
from encoders.errors import EarmarkError
from encoders.experiment import Progress, Tally, log_run
from encoders.export import export_network
from encoders.features import FeatureSpec
from encoders.mixtures import MixtureRecipe, Mixtures
from encoders.recipes.common import Announce, DecodeProgress, Trained, precision
from encoders.recipes.event import INPUT, NETWORK
from encoders.siamese import build_siamese
from encoders.training import TrainingConfig, fit
from encoders.warm_start import FLOAT_NETWORK, start_from_network

SECONDS = 10
"""What the network sees at once."""

LEAST, LEAST_SOURCES = 15, 3
"""A label of fewer recordings, or of fewer sources, is not learned."""

SPEECH = "speech"
"""The label that recordings of the role speech get."""

# So much of what there is plenty of.
_MOST_SPEECH, _MOST_MUSIC = 2500, 150
# Shorter ambience is no background.
_LEAST_AMBIENCE_S = 4.0
# Steps that a sound is heard in, and begins in, are few: they count so many times.
_ACTIVE, _ONSET = 2.0, 4.0
# What onsets are worth beside activity.
_ONSETS_SHARE = 0.5


_NETWORK, _MIXTURES = DetectorConfig(channels=NETWORK.channels), MixtureRecipe()
_SPECIAL_MIXTURES = MixtureRecipe(p_stranger=0.1, balance=0.25)


@dataclasses.dataclass(frozen=True)
class DetectorRecipe:
    """What can be chosen of the detector and its training.

    Parameters
    ----------
    network : DetectorConfig
    mixtures : MixtureRecipe
    n_mixtures : int
        In a batch.
    members : int
        Networks that are trained, each from a seed of its own; what the bundle says is the mean of
        their logits.
    specialists : int
        Networks that know only some classes, and take all others for nothing. Of these classes the
        bundle says the mean of both kinds of network.
    n_special : int
        How many classes they know: those of which the scarcer split has most recordings.
    special_steps : float
        Steps of their training, as a share of those of the members.
    special_mixtures : MixtureRecipe
        What they learn from: sounds of the other classes are strangers.
    """

    network: DetectorConfig = _NETWORK
    mixtures: MixtureRecipe = _MIXTURES
    n_mixtures: int = 16
    members: int = 1
    specialists: int = 2
    n_special: int = 15
    special_steps: float = 0.5
    special_mixtures: MixtureRecipe = _SPECIAL_MIXTURES

    def n_steps(self, config: TrainingConfig) -> int:
        """Steps of all networks."""
        return self.members * config.steps + self.specialists * self.narrow(config).steps

    def narrow(self, config: TrainingConfig) -> TrainingConfig:
        """How a specialist is trained."""
        return dataclasses.replace(config, steps=max(1, round(self.special_steps * config.steps)))


@dataclasses.dataclass(frozen=True)
class DetectorClips:
    """Spectrograms of one split: sounds, speech among them, ambience and music."""

    sounds: Clips
    ambience: Clips
    music: Clips

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        split: str,
        folder: Path,
        spec: FeatureSpec,
        progress: DecodeProgress | None = None,
    ) -> DetectorClips:
        """Decode what is needed of ``split`` (once: the cache in ``folder`` is kept).

        Raises
        ------
        EarmarkError
            If there is no labelled event that can be decoded.
        """
        rng = np.random.default_rng(0)

        def clips(role: str, most: int | None = None) -> Clips:
            mine = [i for i in items if i.role == role and i.split == split]
            if most is not None and len(mine) > most:
                mine = [mine[k] for k in sorted(rng.permutation(len(mine))[:most])]
            return Clips.decode(mine, folder, spec, progress)

        events, speech = clips("event"), clips("speech", _MOST_SPEECH)
        if not any(item.label for item in events.items):
            raise EarmarkError(
                f"the corpus has no event with a label in split {split!r}: its CSV needs a column "
                "'label' that says what kind of sound each event is"
            )
        spoken = [dataclasses.replace(item, label=SPEECH) for item in speech.items]
        sounds = Clips(events.frames + speech.frames, events.items + spoken)
        noise, least = clips("noise"), _LEAST_AMBIENCE_S * spec.sample_rate / spec.hop_length
        long = [k for k, frames in enumerate(noise.frames) if len(frames) >= least]
        ambience = Clips([noise.frames[k] for k in long], [noise.items[k] for k in long])
        return cls(sounds, ambience, clips("music", _MOST_MUSIC))

    def classes(self) -> list[str]:
        """The labels that are worth learning, sorted."""
        counts = Counter(item.label for item in self.sounds.items if item.label)
        sources = Counter(label for label, _ in {(i.label, i.source) for i in self.sounds.items})
        return sorted(k for k, n in counts.items() if n >= LEAST and sources[k] >= LEAST_SOURCES)


def train_detector(
    train: DetectorClips,
    dev: DetectorClips,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    recipe: DetectorRecipe | None = None,
    progress: Progress | None = None,
    start: Path | None = None,
    announce: Announce | None = None,
) -> Trained:
    """Train the detector.

    Parameters
    ----------
    train, dev : DetectorClips
        To fit, and to watch.
    out : Path
        Gets the checkpoints, the logs, ``bundle/`` and a line in ``experiment.json``.
    spec : FeatureSpec
        Of the event encoder.
    start : Path, optional
        An event bundle, whose convolutions are the first ones of this. [default: the shipped one]
    announce : callable, optional
        Is told what the network costs before training starts.

    Raises
    ------
    EarmarkError
        If no label has enough recordings.
    """
    recipe = recipe or DetectorRecipe()
    spec = dataclasses.replace(
        spec, window_length=SECONDS * spec.sample_rate, window_hop=SECONDS * spec.sample_rate // 2
    )
    classes = train.classes()
    if not classes:
        raise EarmarkError(
            f"no label has {LEAST} recordings of {LEAST_SOURCES} sources: there is nothing to learn"
        )
    special = best_covered([*train.sounds.items, *dev.sounds.items], "dev", recipe.n_special)
    special = [name for name in special if name in classes]
    if len(special) == len(classes) or not recipe.specialists:
        special = []
    job = _Job(train, dev, spec, (start or SHIPPED / "event") / FLOAT_NETWORK, Tally(progress))
    members = [
        job.train(classes, out / f"member-{n}", config, recipe, n, None if n else announce)
        for n in range(recipe.members)
    ]
    theirs = dataclasses.replace(recipe, mixtures=recipe.special_mixtures)
    specialists = [
        job.train(special, out / f"specialist-{n}", recipe.narrow(config), theirs, n)
        for n in range(recipe.specialists if special else 0)
    ]
    trained = brought_together(members, specialists, [classes.index(name) for name in special])
    figures = job.tally.figures()
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    # In 8 bits it finds less: scores of what is barely heard are what tells it from nothing.
    export_network(trained, bundle / FLOAT_NETWORK)
    settings = dataclasses.asdict(config) | dataclasses.asdict(recipe)
    network = settings.pop("network")
    meta = {
        "name": KIND, "kind": KIND, "dim": len(classes), "spec": spec.to_dict(),
        "inputs": INPUT.to_dict(), "network": network, "training": settings, "classes": classes,
        "special": special, "thresholds": [0.5] * len(classes),
    }  # fmt: skip
    write_meta(bundle, json.loads(json.dumps(meta)))
    log_run(out, KIND, {"network": network} | settings, count_cost(trained), figures)
    return Trained(bundle, figures)


@dataclasses.dataclass
class _Job:
    train_clips: DetectorClips
    dev_clips: DetectorClips
    spec: FeatureSpec
    encoder: Path
    tally: Tally
    # Of the networks before.
    steps: int = 0

    def train(
        self,
        classes: Sequence[str],
        out: Path,
        config: TrainingConfig,
        recipe: DetectorRecipe,
        number: int,
        announce: Announce | None = None,
    ) -> Any:
        import keras

        config = dataclasses.replace(config, seed=config.seed + number)
        keras.utils.set_random_seed(config.seed)
        n_classes = len(classes)
        batches = make_mixtures(self.train_clips, classes, self.spec, recipe, config.seed)
        held_back = make_mixtures(self.dev_clips, classes, self.spec, recipe, config.seed + 1)
        shape = (self.spec.window_frames, INPUT.n_bands, n_classes, recipe.network)
        with precision("mixed_bfloat16" if config.mixed_precision else "float32"):
            model = build_detector(*shape)
        if announce:
            announce(count_cost(model))
        if recipe.network.channels == NETWORK.channels:
            start_from_encoder(model, self.encoder, batches.batch(config.steps)[0])
        loss = _detection_loss(model, n_classes)
        before = self.steps

        def progress(step: int, figures: dict[str, float]) -> None:
            self.tally(before + step, figures)

        fit({"model": model}, loss, batches, held_back, config, out, progress)
        self.steps += config.steps
        trained = build_detector(*shape)
        trained.set_weights(model.get_weights())
        return trained


def brought_together(
    members: Sequence[Any], specialists: Sequence[Any], special: Sequence[int]
) -> Any:
    """One network that says the mean of what several say.

    Parameters
    ----------
    members : sequence of keras.Model
        Of all classes, and of one shape.
    specialists : sequence of keras.Model
        Of some classes.
    special : sequence of int
        Which ones these are. All specialists together count as much as all members.
    """
    import keras

    inputs = keras.Input(members[0].input_shape[1:], name="levels")

    def mean(networks: Sequence[Any]) -> Any:
        said = [network(inputs) for network in networks]
        return keras.layers.Average()(said) if len(said) > 1 else said[0]

    outputs = mean(members)
    if specialists:
        n_outputs = members[0].output_shape[-1]
        columns = np.concatenate([special, np.add(special, n_outputs // 2)])
        share = np.ones(n_outputs, np.float32)
        share[columns] = 0.5
        place = np.zeros((len(columns), n_outputs), np.float32)
        place[np.arange(len(columns)), columns] = 0.5
        placed = keras.layers.Dense(n_outputs, use_bias=False)
        outputs = keras.layers.Add()(
            [keras.layers.Rescaling(share.tolist())(outputs), placed(mean(specialists))]
        )
        placed.set_weights([place])
    return keras.Model(inputs, outputs)


def make_mixtures(
    clips: DetectorClips,
    classes: Sequence[str],
    spec: FeatureSpec,
    recipe: DetectorRecipe | None = None,
    seed: int = 0,
) -> Mixtures:
    """Mixtures of one split, as long as ``spec`` has its windows."""
    recipe = recipe or DetectorRecipe()
    return Mixtures(
        clips.sounds, clips.ambience, clips.music, classes, spec, INPUT, STEP,
        recipe.n_mixtures, seed, recipe.mixtures,
    )  # fmt: skip


def start_from_encoder(model: Any, network: Path, levels: np.ndarray) -> None:
    """Give a detector the convolutions of an event encoder.

    Parameters
    ----------
    model : keras.Model
    network : Path
        The float network of the encoder.
    levels : np.ndarray [shape=(n, n_frames, n_bands)]
        Mixtures; the statistics of the normalisation are taken from them.
    """
    import keras

    n_frames = FeatureSpec().window_frames
    encoder = build_siamese(n_frames, levels.shape[2], NETWORK)
    start_from_network(encoder, network, levels.reshape(-1, n_frames, levels.shape[2]))
    kinds = (keras.layers.Conv2D, keras.layers.BatchNormalization)
    convolutions = [layer for layer in encoder.layers if isinstance(layer, kinds)]
    for number, layer in enumerate(convolutions):
        name = "conv" if isinstance(layer, keras.layers.Conv2D) else "norm"
        model.get_layer(f"{name}{number // 2}").set_weights(layer.get_weights())


def _detection_loss(model: Any, n_classes: int) -> Callable[[Any, bool, Any], dict[str, Any]]:
    import tensorflow as tf

    def detection_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        levels, active, onsets, weights = batch
        logits = model(levels, training=training)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits
        of_active = entropy(active, logits[..., :n_classes])
        of_onsets = entropy(onsets, logits[..., n_classes:])
        of_active *= 1.0 + active * (_ACTIVE * weights - 1.0)
        of_onsets *= 1.0 + onsets * (_ONSET - 1.0)
        loss = tf.reduce_mean(tf.reduce_sum(of_active + _ONSETS_SHARE * of_onsets, axis=-1))
        told = tf.cast(logits[..., :n_classes] > 0.0, tf.float32)
        hits = 2.0 * tf.reduce_sum(told * active)
        return {"loss": loss, "f1": hits / tf.maximum(tf.reduce_sum(told + active), 1.0)}

    return detection_loss
