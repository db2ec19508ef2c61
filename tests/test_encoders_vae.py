"""The autoencoder: its loss against numpy, its shapes, and that it learns real windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.batches import WindowBatches
from encoders.corpus import Item, PcmCache
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.training import TrainingConfig, fit
from encoders.vae import (
    VaeConfig,
    build_decoder,
    build_encoder,
    negative_elbo,
    sample_posterior,
)

tf = pytest.importorskip("tensorflow", reason="needs the train extra")

SPEC = FeatureSpec()
INPUT = LevelInput(low=0, high=128)
TINY = VaeConfig(dim=4, channels=(4, 8, 8), hidden=24)


def some_posterior(n: int = 5, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.7, (n, 2 * dim)).astype(np.float32)


@pytest.mark.parametrize(("sigma", "beta"), [(0.08, 1.0), (0.3, 0.25), (0.08, 0.0)])
def test_elbo_is_the_papers(sigma: float, beta: float) -> None:
    rng = np.random.default_rng(0)
    levels, reconstruction = rng.random((2, 5, 16, 8)).astype(np.float32)
    posterior = some_posterior()
    loss, error, kl = negative_elbo(levels, posterior, reconstruction, sigma, beta)
    # Minus the Gaussian log-likelihood without its constant; the closed form of the divergence.
    squared = np.sum((levels - reconstruction) ** 2, axis=(1, 2))
    expected_error = np.mean(squared) / (2 * sigma**2)
    mean, variance = posterior[:, :3], np.exp(posterior[:, 3:])
    per_window = -0.5 * np.sum(1 + np.log(variance) - mean**2 - variance, axis=1)
    assert float(error) == pytest.approx(expected_error, rel=1e-4)
    assert float(kl) == pytest.approx(per_window.mean(), rel=1e-4)
    assert float(loss) == pytest.approx(expected_error + beta * per_window.mean(), rel=1e-4)


def test_divergence_is_the_integral() -> None:
    """The closed form against ``E[log q - log p]`` on samples."""
    mean, log_variance = 0.8, -0.6
    x = mean + np.exp(0.5 * log_variance) * np.random.default_rng(0).standard_normal(200_000)
    log_q = -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance)
    nothing = np.zeros((1, 2, 2), np.float32)
    _, _, kl = negative_elbo(nothing, np.array([[mean, log_variance]], np.float32), nothing)
    assert float(kl) == pytest.approx(np.mean(log_q + 0.5 * x**2), abs=0.01)


def test_nothing_is_lost_at_the_prior() -> None:
    levels = np.random.default_rng(0).random((4, 8, 8), np.float32)
    parts = negative_elbo(levels, np.zeros((4, 6), np.float32), levels)
    assert [float(part) for part in parts] == [0.0, 0.0, 0.0]


def test_divergence_is_positive_off_the_prior() -> None:
    nothing = np.zeros((1, 2, 2), np.float32)
    for place in range(4):
        for value in (-0.5, 0.5):
            posterior = np.zeros((1, 4), np.float32)
            posterior[0, place] = value
            assert float(negative_elbo(nothing, posterior, nothing)[2]) > 0.01


def test_samples_have_the_posteriors_mean_and_variance() -> None:
    posterior = np.tile(np.array([[2.0, -1.0, 0.0, np.log(0.25)]], np.float32), (20_000, 1))
    latents = sample_posterior(posterior, (1, 2)).numpy()
    assert latents.shape == (20_000, 2)
    np.testing.assert_allclose(latents.mean(axis=0), [2.0, -1.0], atol=0.03)
    np.testing.assert_allclose(latents.std(axis=0), [1.0, 0.5], atol=0.02)
    assert abs(np.corrcoef(latents.T)[0, 1]) < 0.03


def test_samples_repeat_by_seed() -> None:
    posterior = some_posterior()
    first = sample_posterior(posterior, (3, 4)).numpy()
    np.testing.assert_array_equal(sample_posterior(posterior, (3, 4)).numpy(), first)
    assert not np.allclose(sample_posterior(posterior, (3, 5)).numpy(), first)


def test_samples_let_the_gradient_through() -> None:
    posterior = tf.constant(some_posterior())
    with tf.GradientTape() as tape:
        tape.watch(posterior)
        total = tf.reduce_sum(sample_posterior(posterior, (3, 4)))
    gradient = tape.gradient(total, posterior).numpy()
    np.testing.assert_allclose(gradient[:, :3], 1.0)
    assert (np.abs(gradient[:, 3:]) > 1e-4).all()


@pytest.mark.parametrize(("n_frames", "n_bands"), [(32, 128), (16, 40)])
@pytest.mark.parametrize("channels", [(4,), (4, 6, 8)])
def test_the_decoder_mirrors_the_encoder(
    n_frames: int, n_bands: int, channels: tuple[int, ...]
) -> None:
    config = VaeConfig(dim=5, channels=channels, hidden=16)
    encoder = build_encoder(n_frames, n_bands, config)
    decoder = build_decoder(n_frames, n_bands, config)
    assert encoder.input_shape == decoder.output_shape == (None, n_frames, n_bands)
    assert encoder.output_shape == (None, 10)
    assert decoder.input_shape == (None, 5)
    levels = np.random.default_rng(0).random((2, n_frames, n_bands), np.float32)
    posterior = encoder(levels, training=False)
    back = decoder(posterior[:, :5], training=False).numpy()
    assert back.shape == levels.shape
    assert np.isfinite(back).all()


@pytest.mark.parametrize(("n_frames", "n_bands"), [(30, 128), (32, 124)])
def test_sizes_that_do_not_divide_are_refused(n_frames: int, n_bands: int) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        build_decoder(n_frames, n_bands, TINY)


def test_it_learns_real_windows(demo_tracks: Path, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    names = ("palace.ogg", "restaurant.ogg", "morning-coffee.mp3")
    items = [Item(demo_tracks / name, "music", "train") for name in names]
    cache = PcmCache.build(items, tmp_path / "pcm", SPEC.sample_rate)
    encoder = build_encoder(SPEC.window_frames, INPUT.n_bands, TINY)
    decoder = build_decoder(SPEC.window_frames, INPUT.n_bands, TINY)

    def elbo_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        (levels,) = batch
        posterior = encoder(levels, training=training)
        seed = tf.stack([0, tf.cast(step, tf.int32)])
        reconstruction = decoder(sample_posterior(posterior, seed), training=training)
        loss, error, kl = negative_elbo(levels, posterior, reconstruction, beta=0.1)
        return {"loss": loss, "reconstruction": error, "kl": kl}

    figures: list[dict[str, float]] = []
    fit(
        {"encoder": encoder, "decoder": decoder},
        elbo_loss,
        WindowBatches([cache], [1.0], SPEC, INPUT, n_excerpts=8, n_each=2, seed=0),
        WindowBatches([cache], [1.0], SPEC, INPUT, n_excerpts=8, n_each=2, seed=1),
        TrainingConfig(steps=25, learning_rate=5e-3, checkpoint_every=100),
        tmp_path / "run",
        lambda step, seen: figures.append(dict(seen)),
    )
    errors = [f["reconstruction"] for f in figures]
    assert np.mean(errors[-5:]) < 0.5 * errors[0]
    assert all(f["kl"] >= 0 for f in figures)
