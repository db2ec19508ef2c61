"""From a corpus to a fingerprint bundle: the whole training of the Siamese encoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from encoders.batches import PairBatches, WindowBatches
from encoders.bundle import Network, unit_vectors, write_decision
from encoders.corpus import PcmCache
from encoders.cost import count_cost
from encoders.decision import SIMILARITIES, fit_decision, similarity_of_cosine
from encoders.degrade import World, simulate_rooms
from encoders.errors import EarmarkError
from encoders.experiment import Progress, Tally, examine, log_run
from encoders.export import export_network
from encoders.features import FeatureSpec
from encoders.levels import LevelInput, MfccInput
from encoders.losses import DISTANCES, LOSSES, LearnedSimilarity
from encoders.recipes.common import (
    N_CALIBRATION,
    Announce,
    Caches,
    Trained,
    precision,
    write_description,
)
from encoders.siamese import SiameseConfig, build_siamese
from encoders.training import N_WATCHED, TrainingConfig, fit
from encoders.warm_start import FLOAT_NETWORK, start_from_network

INPUTS: dict[str, LevelInput] = {
    "log-mel": LevelInput(low=0, high=96),
    "mfcc": MfccInput(low=0, high=96),
}
"""50 Hz to 3.7 kHz: the telephone's band, and below it the bass that outlives noise."""

N_ROOMS = 600
"""Simulated for training; one in six is kept for the held-back batches."""

N_EXAMINED = 2048
"""Held-back pairs, after the watched ones, on which the decision is calibrated."""

N_EACH = 8
"""Windows of one excerpt in a batch of pairs."""


@dataclasses.dataclass(frozen=True)
class SiameseRecipe:
    """What can be chosen of the fingerprint encoder and its training.

    Parameters
    ----------
    network : SiameseConfig
    loss : str
        A key of :data:`encoders.losses.LOSSES`.
    similarity : str
        One of :data:`encoders.decision.SIMILARITIES`. All are searched by inner product.
    inputs : str
        A key of :data:`INPUTS`.
    n_pairs : int
        Pairs in a batch, a multiple of the eight that each excerpt gives.
    temperature : float, optional
        Of NT-Xent. [default: that of the loss; the learned similarity learns it]
    margin : float, optional
        Of the other losses. [default: that of the loss]
    other_sounds : float
        Share of the pairs that are speech, effects and ambience instead of music.

    Raises
    ------
    EarmarkError
        If choices are unknown or do not go together.
    """

    network: SiameseConfig = dataclasses.field(default_factory=SiameseConfig)
    loss: str = "nt-xent"
    similarity: str = "cosine"
    inputs: str = "log-mel"
    n_pairs: int = 256
    temperature: float | None = None
    margin: float | None = None
    other_sounds: float = 0.2

    def __post_init__(self) -> None:
        for value, known in (
            (self.loss, LOSSES),
            (self.similarity, SIMILARITIES),
            (self.inputs, INPUTS),
        ):
            if value not in known:
                raise EarmarkError(f"unknown choice {value!r}; known: {', '.join(known)}")
        if self.n_pairs < 2 * N_EACH or self.n_pairs % N_EACH:
            raise EarmarkError(
                f"a batch has a multiple of {N_EACH} pairs, at least {2 * N_EACH}; "
                f"not {self.n_pairs}"
            )
        if self.margin is not None and self.loss == "nt-xent":
            raise EarmarkError("nt-xent has a temperature and no margin")
        if self.temperature is not None and self.loss != "nt-xent":
            raise EarmarkError(f"{self.loss} has a margin and no temperature")
        if self.temperature is not None and self.similarity == "learned":
            raise EarmarkError("the learned similarity learns its own temperature")

    @property
    def loss_options(self) -> dict[str, float]:
        """What is set of the loss."""
        options = {"temperature": self.temperature, "margin": self.margin}
        return {name: value for name, value in options.items() if value is not None}


def train_siamese(
    train: Caches,
    dev: Caches,
    out: Path,
    spec: FeatureSpec,
    config: TrainingConfig,
    recipe: SiameseRecipe | None = None,
    progress: Progress | None = None,
    start: Path | None = None,
    announce: Announce | None = None,
    rooms: np.ndarray | None = None,
) -> Trained:
    """Train the fingerprint encoder and calibrate its decision about pairs.

    Parameters
    ----------
    train, dev : Caches
        To fit, and to watch and calibrate.
    out : Path
        Gets the checkpoints, the logs, ``bundle/`` and a line in ``experiment.json``.
    start : Path, optional
        ``out`` of an earlier run, or a bundle, whose weights are the first ones of this.
    announce : callable, optional
        Is told what the network costs before training starts.
    rooms : np.ndarray [shape=(n_rooms, n_taps)], optional
        Impulse responses; one in six is kept for ``dev``. [default: :data:`N_ROOMS` simulated]
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    recipe = recipe or SiameseRecipe()
    if rooms is None:
        rooms = simulate_rooms(N_ROOMS, spec.sample_rate, seed=config.seed)
    seen = len(rooms) * 5 // 6
    inputs = _fitted_input(recipe.inputs, train.music, spec, config.seed)

    def pairs(caches: Caches, rooms: np.ndarray, seed: int, p_other: float) -> PairBatches:
        world = World(spec.sample_rate, caches.background, rooms, caches.voices)
        n_excerpts = recipe.n_pairs // N_EACH
        return PairBatches(
            caches.music, world, spec, inputs, n_excerpts, N_EACH,
            others=caches.other_sounds, p_other=p_other, seed=seed,
        )  # fmt: skip

    batches = pairs(train, rooms[:seen], config.seed, recipe.other_sounds)
    # Held-back figures are those of music, whatever else was trained on.
    held_back = pairs(dev, rooms[seen:], config.seed + 1, 0.0)
    with precision("mixed_bfloat16" if config.mixed_precision else "float32"):
        model = build_siamese(spec.window_frames, inputs.n_bands, recipe.network)
    cost = count_cost(model)
    if announce:
        announce(cost)
    models: dict[str, Any] = {"model": model}
    learned = None
    if recipe.similarity == "learned":
        learned = LearnedSimilarity(recipe.network.dim)
        models["similarity"] = learned.layer
    if start is not None and (start / FLOAT_NETWORK).exists():
        start_from_network(model, start / FLOAT_NETWORK, np.concatenate(batches.batch(0)[:2]))
        earlier = None
    else:
        earlier = start
    tally = Tally(progress)
    pair_loss = _pair_loss(model, recipe, learned)
    fit(models, pair_loss, batches, held_back, config, out, tally, earlier)

    trained = build_siamese(spec.window_frames, inputs.n_bands, recipe.network)
    trained.set_weights(model.get_weights())
    if learned:
        learned.fold_into(trained)
    bundle = out / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    examples = np.concatenate([np.concatenate(batches.batch(i)[:2]) for i in range(2)])
    rng = np.random.default_rng(config.seed)
    export_network(trained, bundle / "float32.tflite")
    export_network(trained, bundle / "int8.tflite", rng.permutation(examples)[:N_CALIBRATION])
    settings = dataclasses.asdict(config) | dataclasses.asdict(recipe)
    settings["start"] = start.name if start else None
    network = settings.pop("network")
    write_description(bundle, "fingerprint", "siamese", network, spec, inputs, settings)
    logistic = learned.logistic() if learned else None
    figures = tally.figures() | _calibrate(bundle, held_back, recipe, logistic)
    log_run(out, "siamese", {"network": network} | settings, cost, figures)
    return Trained(bundle, figures)


def _fitted_input(kind: str, music: PcmCache, spec: FeatureSpec, seed: int) -> LevelInput:
    inputs = INPUTS[kind]
    if not isinstance(inputs, MfccInput):
        return inputs
    (coefficients,) = WindowBatches([music], [1.0], spec, inputs, seed=seed).batch(0)
    return inputs.fitted_to(coefficients)


def _pair_loss(
    model: Any, recipe: SiameseRecipe, learned: LearnedSimilarity | None
) -> Callable[[Any, bool, Any], dict[str, Any]]:
    import tensorflow as tf

    loss = LOSSES[recipe.loss]
    distance = learned.distance if learned else DISTANCES[recipe.similarity]

    def pair_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        anchors, positives, same = batch
        n = anchors.shape[0]
        # One pass for both views: batch normalisation sees clean and degraded sound together.
        both = model(tf.concat([anchors, positives], 0), training=training)
        known, heard = both[:n], both[n:]
        options = dict[str, Any](recipe.loss_options)
        if learned and recipe.loss == "nt-xent":
            options["temperature"] = 1.0 / learned.scale
        value = loss(known, heard, same, distance, **options)
        if learned:
            value += learned.decision_loss(known, heard, same)
        right = tf.equal(tf.argmin(distance(heard, known), 1), tf.range(n, dtype=tf.int64))
        return {"loss": value, "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    return pair_loss


def _calibrate(
    bundle: Path,
    held_back: PairBatches,
    recipe: SiameseRecipe,
    logistic: tuple[float, float] | None,
) -> dict[str, float]:
    # Of the 8-bit network, as that is what runs by default.
    network = Network(bundle / "int8.tflite")
    end = N_WATCHED + math.ceil(N_EXAMINED / recipe.n_pairs)
    found = examine(lambda inputs: unit_vectors(network(inputs)), held_back, N_WATCHED, end)
    kind = recipe.similarity
    same, different = (similarity_of_cosine(kind, c) for c in (found.same, found.different))
    decision = fit_decision(kind, same, different, logistic)
    write_decision(bundle, decision)
    return {
        "top_1": found.top_1,
        "top_1_among": float(found.n_windows),
        "equal_error_rate": decision.equal_error_rate,
        "strict_misses": decision.strict_misses,
    }
