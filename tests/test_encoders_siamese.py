"""The Siamese encoder: its losses against numpy, one network for both views, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders import recipes
from encoders.corpus import Item, PcmCache
from encoders.degrade import World, shipped_rooms
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec
from encoders.levels import LevelInput
from encoders.siamese import (
    LOSSES,
    SiameseConfig,
    build_siamese,
    contrastive_margin,
    cosine_similarity,
    nt_xent,
)
from encoders.training import PairBatches, TrainingConfig, fit

tf = pytest.importorskip("tensorflow", reason="needs the train extra")

SPEC = FeatureSpec()
INPUT = LevelInput(low=8, high=104)
TINY = SiameseConfig(dim=16, channels=(8, 12, 16), hidden=24)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs(n: int = 12, dim: int = 6, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    anchors = rng.normal(size=(n, dim)).astype(np.float32)
    return anchors, anchors + spread * rng.normal(size=(n, dim)).astype(np.float32)


def alike(n: int, *couples: tuple[int, int]) -> np.ndarray:
    same = np.zeros((n, n), bool)
    for i, j in couples:
        same[i, j] = same[j, i] = True
    return same


def reference_nt_xent(
    anchors: np.ndarray, positives: np.ndarray, same: np.ndarray, temperature: float
) -> float:
    """Row by row, as the paper has it."""
    n = len(anchors)
    both = unit(np.concatenate([anchors, positives]).astype(np.float64))
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j != i and not same[i % n, j % n]]
        exponentials = {j: np.exp(both[i] @ both[j] / temperature) for j in {*others, partner}}
        losses.append(-np.log(exponentials[partner] / sum(exponentials.values())))
    return float(np.mean(losses))


def reference_contrastive(
    anchors: np.ndarray, positives: np.ndarray, same: np.ndarray, margin: float
) -> float:
    a, p = unit(anchors.astype(np.float64)), unit(positives.astype(np.float64))
    n = len(a)
    together = np.mean([np.sum((a[i] - p[i]) ** 2) for i in range(n)])
    overlaps = [
        max(0.0, margin - np.linalg.norm(a[i] - p[j])) ** 2
        for i in range(n)
        for j in range(n)
        if i != j and not same[i, j]
    ]
    active = [x for x in overlaps if x > 0]
    return float(together + (np.mean(active) if active else 0.0))


@pytest.mark.parametrize("couples", [(), ((0, 3), (5, 7))])
def test_nt_xent_is_the_papers(couples: tuple[tuple[int, int], ...]) -> None:
    anchors, positives = pairs()
    same = alike(len(anchors), *couples)
    for temperature in (0.05, 0.5):
        expected = reference_nt_xent(anchors, positives, same, temperature)
        assert float(nt_xent(anchors, positives, same, temperature)) == pytest.approx(
            expected, rel=1e-4
        )


@pytest.mark.parametrize("couples", [(), ((0, 3), (5, 7))])
@pytest.mark.parametrize("margin", [0.1, 0.8, 1.9])
def test_contrastive_is_the_papers(couples: tuple[tuple[int, int], ...], margin: float) -> None:
    anchors, positives = pairs()
    same = alike(len(anchors), *couples)
    expected = reference_contrastive(anchors, positives, same, margin)
    assert float(contrastive_margin(anchors, positives, same, margin)) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_good_pairs_cost_less_than_mixed_up_ones(loss: Any) -> None:
    anchors, positives = pairs(spread=0.2)
    none = alike(len(anchors))
    perfect = float(loss(anchors, anchors, none))
    good = float(loss(anchors, positives, none))
    mixed_up = float(loss(anchors, np.roll(positives, 1, axis=0), none))
    assert perfect < good < mixed_up


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_exact_loop_is_not_pushed_away(loss: Any) -> None:
    anchors, positives = pairs(spread=0.2)
    anchors[4], positives[4] = anchors[1], positives[1]
    tolerated, none = alike(len(anchors), (1, 4)), alike(len(anchors))
    assert float(loss(anchors, positives, tolerated)) < float(loss(anchors, positives, none)) - 0.01

    def pull(same: np.ndarray) -> np.ndarray:
        """Gradient of the loss by anchor 1, from the two loops alone."""
        x, y = tf.constant(anchors[[1, 4]]), tf.constant(positives[[1, 4]])
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x, y, same)
        return tape.gradient(value, x).numpy()[0]

    # Alone in a batch with its loop there is nothing left to be pushed away from.
    if loss is nt_xent:
        np.testing.assert_allclose(pull(alike(2, (0, 1))), 0.0, atol=1e-5)
        assert np.linalg.norm(pull(alike(2))) > 1e-3


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_length_of_the_vectors_does_not_matter(loss: Any) -> None:
    anchors, positives = pairs()
    none = alike(len(anchors))
    assert float(loss(7 * anchors, 0.1 * positives, none)) == pytest.approx(
        float(loss(anchors, positives, none)), rel=1e-4
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_finite_even_for_equal_vectors(loss: Any) -> None:
    anchors, _ = pairs()
    x = tf.constant(np.repeat(anchors[:1], 6, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x, x, alike(6))
    assert np.isfinite(tape.gradient(value, x).numpy()).all()


def test_cosine_similarity() -> None:
    a, b = pairs(5)[0], pairs(7)[0]
    np.testing.assert_allclose(cosine_similarity(a, b), unit(a) @ unit(b).T, atol=1e-6)


def test_the_default_network_is_small() -> None:
    model = build_siamese(SPEC.window_frames, INPUT.n_bands, SiameseConfig())
    assert model.count_params() <= 2_500_000
    assert model.output_shape == (None, 128)


@pytest.mark.parametrize("n_frames", [32, 20])
def test_network_shape(n_frames: int) -> None:
    model = build_siamese(n_frames, 96, TINY)
    assert model.input_shape == (None, n_frames, 96)
    levels = np.random.default_rng(0).random((3, n_frames, 96), np.float32)
    embeddings = model(levels, training=False).numpy()
    assert embeddings.shape == (3, 16)
    assert np.isfinite(embeddings).all()
    # Not of unit length yet: that is the runtime's and the loss's work.
    assert not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3)


@pytest.fixture(scope="module")
def music_cache(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> PcmCache:
    names = ("palace.ogg", "musicbox.mp3", "morning-coffee.mp3")
    items = [Item(demo_tracks / name, "music", "train") for name in names]
    return PcmCache.build(items, tmp_path_factory.mktemp("pcm"), SPEC.sample_rate)


def small_batches(music: PcmCache, seed: int) -> PairBatches:
    world = World(SPEC.sample_rate, [music], shipped_rooms(), p_codec=0.0)
    return PairBatches(music, world, SPEC, INPUT, n_excerpts=6, n_each=4, seed=seed)


class _Captured(Exception):
    pass


def test_both_views_go_through_one_network(
    music_cache: PcmCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: dict[str, Any] = {}

    def capture(models: dict[str, Any], loss: Any, *rest: Any) -> None:
        caught.update(models=models, loss=loss)
        raise _Captured

    rooms = np.resize(shipped_rooms(), (501, shipped_rooms().shape[1]))
    monkeypatch.setattr(recipes, "fit", capture)
    monkeypatch.setattr(recipes, "simulate_rooms", lambda *args, **settings: rooms)
    empty = PcmCache(np.empty(0, np.int16), np.empty(0))
    caches = recipes.Caches(music_cache, empty, empty, empty)
    with pytest.raises(_Captured):
        recipes.train_siamese(caches, caches, tmp_path, SPEC, TrainingConfig(steps=1), TINY)
    (model,) = caught["models"].values()
    anchors, positives, same = small_batches(music_cache, 0).batch(0)
    figures = caught["loss"]((anchors, positives, same), False, 0)
    # The loss is nt-xent of this one model's vectors of both views.
    expected = reference_nt_xent(
        model(anchors, training=False).numpy(), model(positives, training=False).numpy(), same, 0.05
    )
    assert float(figures["loss"]) == pytest.approx(expected, rel=1e-3)
    assert float(caught["loss"]((anchors, anchors, same), False, 0)["accuracy"]) > 0.9
    mixed_up = (anchors, np.roll(anchors, 1, axis=0), same)
    assert float(caught["loss"](mixed_up, False, 0)["accuracy"]) < 0.2


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_it_learns_from_real_pairs(loss: Any, music_cache: PcmCache, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = build_siamese(SPEC.window_frames, INPUT.n_bands, TINY)
    figures: list[dict[str, float]] = []

    def pair_loss(batch: Any, training: bool, step: Any) -> dict[str, Any]:
        anchors, positives, same = batch
        both = model(tf.concat([anchors, positives], 0), training=training)
        n = anchors.shape[0]
        return {"loss": loss(both[:n], both[n:], same)}

    config = TrainingConfig(steps=16, learning_rate=3e-3, checkpoint_every=100)
    fit(
        {"model": model},
        pair_loss,
        small_batches(music_cache, 0),
        small_batches(music_cache, 1),
        config,
        tmp_path,
        lambda step, seen: figures.append(dict(seen)),
    )
    losses = [f["loss"] for f in figures]
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:3])


def test_training_without_music_is_told(tmp_path: Path) -> None:
    items = [Item(tmp_path / "absent.ogg", "music", "train")]
    with pytest.raises(EarmarkError, match="no music that can be decoded in split 'train'"):
        recipes.Caches.build(items, "train", tmp_path, SPEC)


def test_config_is_plain_data() -> None:
    assert dataclasses.asdict(TINY) == {"dim": 16, "channels": (8, 12, 16), "hidden": 24}
