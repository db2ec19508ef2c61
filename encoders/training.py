"""One loop that trains every encoder, checkpoints it and logs it.

TensorFlow is imported by the functions that train.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from encoders.batches import Batch, Batches, prefetch
from encoders.errors import EarmarkError

N_WATCHED = 4
"""Held-back batches that are looked at with every checkpoint."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast.

    Parameters
    ----------
    steps : int
    learning_rate : float
        Peak rate: warmed up over the first 5 %, then a cosine down to zero.
    seed : int
    checkpoint_every : int
        Steps between checkpoints (and between looks at the held-back batches).
    mixed_precision : bool
        Multiply in bfloat16 where the layers allow it. A third faster on processors that have
        instructions for it (AVX512-BF16, AMX), slower on others.
    """

    steps: int = 4000
    learning_rate: float = 1e-3
    seed: int = 0
    checkpoint_every: int = 250
    mixed_precision: bool = False


def fit(
    models: dict[str, Any],
    loss: Callable[..., dict[str, Any]],
    batches: Batches,
    held_back: Batches,
    config: TrainingConfig,
    out: Path,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    start: Path | None = None,
) -> None:
    """Train, checkpoint, log; go on from the last checkpoint in ``out`` if there is one.

    Parameters
    ----------
    models : dict of keras.Model
        What is trained, by the name it has in the checkpoint.
    loss : callable
        ``loss(batch, training, step)`` gives a dict of scalars; ``"loss"`` is minimised.
    batches, held_back : Batches
        To fit, and to watch (the first batches only; never trained on).
    out : Path
        Gets ``checkpoints/`` and ``logs/`` (TensorBoard).
    progress : callable, optional
        Called with the step and its figures.
    start : Path, optional
        ``out`` of an earlier run, whose weights are the first ones of this.
    """
    import keras
    import tensorflow as tf

    step = tf.Variable(0, dtype=tf.int64)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, config.steps, warmup_target=config.learning_rate, warmup_steps=config.steps // 20
    )
    optimizer = keras.optimizers.Adam(schedule)
    variables = [v for model in models.values() for v in model.trainable_variables]
    optimizer.build(variables)
    checkpoint = tf.train.Checkpoint(step=step, optimizer=optimizer, **models)
    manager = tf.train.CheckpointManager(checkpoint, str(out / "checkpoints"), max_to_keep=2)
    if manager.latest_checkpoint:
        try:
            checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
        except (ValueError, AssertionError):
            raise EarmarkError(
                f"{out} holds the checkpoint of another network; choose another --out"
            ) from None
    elif start is not None:
        _restore_weights(models, start)

    @tf.function
    def train_step(batch: Batch, number: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            figures = loss(batch, True, number)
        gradients = tape.gradient(figures["loss"], variables)
        optimizer.apply(gradients, variables)
        return figures

    @tf.function
    def watch(batch: Batch, number: Any) -> dict[str, Any]:
        return loss(batch, False, number)

    watched = [tuple(tf.constant(a) for a in held_back.batch(i)) for i in range(N_WATCHED)]
    logs = tf.summary.create_file_writer(str(out / "logs"))
    first = int(step)
    feed = prefetch(batches, first, config.steps)
    with logs.as_default():
        for number in range(first, config.steps):
            asked = time.perf_counter()
            batch = tuple(tf.constant(a) for a in next(feed))
            waited = time.perf_counter() - asked
            figures = {k: float(v) for k, v in train_step(batch, tf.constant(number)).items()}
            step.assign(number + 1)
            # How much of the step went into waiting for the teacher.
            figures["waited"] = waited / (time.perf_counter() - asked)
            if (number + 1) % config.checkpoint_every == 0 or number + 1 == config.steps:
                manager.save()
                seen = [watch(held, tf.constant(number)) for held in watched]
                for name in seen[0]:
                    figures[f"dev_{name}"] = float(np.mean([s[name] for s in seen]))
            for name, value in figures.items():
                tf.summary.scalar(name, value, step=number)
            if progress:
                progress(number + 1, figures)
    feed.close()


def _restore_weights(models: dict[str, Any], start: Path) -> None:
    import tensorflow as tf

    latest = tf.train.latest_checkpoint(str(start / "checkpoints"))
    if latest is None:
        raise EarmarkError(f"{start} holds no checkpoint to start from")
    try:
        status = tf.train.Checkpoint(**models).restore(latest)
        status.expect_partial().assert_existing_objects_matched()
    except (ValueError, AssertionError):
        raise EarmarkError(f"{start} holds the checkpoint of another network") from None
