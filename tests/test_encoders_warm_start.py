"""A network starts where the training of a bundle had ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.bundle import SHIPPED, Network
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import LevelInput
from encoders.siamese import SiameseConfig, build_siamese
from encoders.warm_start import FLOAT_NETWORK, read_layers, start_from_network

tf = pytest.importorskip("tensorflow", reason="needs the train extra")

SPEC = FeatureSpec()
NETWORK = SHIPPED / "fingerprint" / FLOAT_NETWORK


@pytest.fixture(scope="module")
def levels(music: tuple[np.ndarray, int]) -> np.ndarray:
    windows = cut_windows(log_mel(music[0][: 20 * music[1]], SPEC), SPEC)
    return LevelInput(low=0, high=96)(windows)


@pytest.fixture(scope="module")
def started(levels: np.ndarray) -> Any:
    model = build_siamese(SPEC.window_frames, 96, SiameseConfig())
    start_from_network(model, NETWORK, levels)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_the_model_answers_as_the_network_does(
    training: bool, started: Any, levels: np.ndarray
) -> None:
    # In training, too, where the batch is normalised by its own statistics.
    answers = np.asarray(started(levels, training=training))
    np.testing.assert_allclose(answers, Network(NETWORK)(levels), atol=2e-2)


def test_a_larger_model_gives_the_same_vectors_and_learns_with_all_of_it(
    levels: np.ndarray,
) -> None:
    model = build_siamese(
        SPEC.window_frames, 96, SiameseConfig(channels=(32, 48, 96, 200, 400), hidden=528)
    )
    start_from_network(model, NETWORK, levels)
    answers = np.asarray(model(levels, training=False))
    np.testing.assert_allclose(answers, Network(NETWORK)(levels), atol=2e-2)
    # What is new is not dead: it feels the loss through what listens to it.
    last = model.layers[-1].kernel
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(levels, training=True)))
    assert np.any(np.asarray(tape.gradient(loss, last))[512:] != 0.0)


def test_layers_have_the_shapes_of_keras() -> None:
    shapes = [kernel.shape for kernel, _ in read_layers(NETWORK)]
    assert shapes[0] == (3, 3, 1, 32)
    assert shapes[-1] == (512, 128)
    assert all(bias.shape == shape[-1:] for shape, (_, bias) in zip(
        shapes, read_layers(NETWORK), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        SiameseConfig(dim=64),
        SiameseConfig(dim=256),
        SiameseConfig(channels=(32, 48, 96, 192)),
        SiameseConfig(channels=(32, 48, 96, 192, 320)),
    ],
)
def test_another_shape_is_refused(config: SiameseConfig, levels: np.ndarray) -> None:
    model = build_siamese(SPEC.window_frames, 96, config)
    with pytest.raises(EarmarkError, match="of another shape"):
        start_from_network(model, NETWORK, levels)


def test_a_missing_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="cannot start from"):
        read_layers(tmp_path / FLOAT_NETWORK)
