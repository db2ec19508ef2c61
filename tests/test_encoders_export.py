"""Exported networks answer as Keras does, on real windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.bundle import Network
from encoders.export import export_network
from encoders.features import FeatureSpec, cut_windows, log_mel
from encoders.levels import LevelInput
from encoders.siamese import SiameseConfig, build_siamese
from encoders.vae import VaeConfig, build_decoder

pytest.importorskip("tensorflow", reason="needs the train extra")

SPEC = FeatureSpec()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def exported(
    music: tuple[np.ndarray, int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, np.ndarray, Path]:
    """A network with a life behind it (its normalisation is not the identity), and its files."""
    import keras

    keras.utils.set_random_seed(3)
    windows = cut_windows(log_mel(music[0], SPEC), SPEC, hop_frames=4)
    levels = LevelInput(low=8, high=104)(windows)
    model = build_siamese(SPEC.window_frames, 96, SiameseConfig(16, (8, 12, 16), 32))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(keras.random.uniform(layer.gamma.shape, 0.5, 1.5))
            layer.beta.assign(keras.random.uniform(layer.beta.shape, -0.3, 0.3))
            layer.moving_mean.assign(keras.random.uniform(layer.beta.shape, -0.2, 0.2))
            layer.moving_variance.assign(keras.random.uniform(layer.beta.shape, 0.3, 1.0))
    folder = tmp_path_factory.mktemp("exported")
    export_network(model, folder / "float32.tflite")
    export_network(model, folder / "int8.tflite", levels[::2][:128])
    return model, levels, folder


@pytest.mark.parametrize(("precision", "cosine"), [("int8", 0.99), ("float32", 0.9999)])
def test_an_exported_network_answers_as_keras_does(
    precision: str, cosine: float, exported: tuple[Any, np.ndarray, Path]
) -> None:
    model, levels, folder = exported
    network = Network(folder / f"{precision}.tflite")
    assert network.input_shape == (32, 96)
    assert network.output_shape == (16,)
    unseen = levels[1::2]
    answers = network(unseen)
    assert np.isfinite(answers).all()
    expected = model(unseen, training=False).numpy()
    assert cosines(answers, expected).min() > cosine
    if precision == "float32":  # Weights of 16 bits, not of 8.
        assert np.linalg.norm(answers - expected) < 1e-3 * np.linalg.norm(expected)


def test_an_exported_decoder_answers_as_keras_does(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(3)
    decoder = build_decoder(32, 16, VaeConfig(dim=4, channels=(4, 6), hidden=12))
    export_network(decoder, tmp_path / "decoder.tflite")
    latents = np.random.default_rng(0).normal(size=(73, 4)).astype(np.float32)
    answers = Network(tmp_path / "decoder.tflite")(latents)
    expected = decoder(latents, training=False).numpy()
    assert cosines(answers, expected).min() > 0.9999


def test_eight_bits_are_smaller(exported: tuple[Any, np.ndarray, Path]) -> None:
    _, _, folder = exported
    int8, float32 = ((folder / f"{p}.tflite").read_bytes() for p in ("int8", "float32"))
    assert len(int8) < len(float32)
    assert int8 != float32
