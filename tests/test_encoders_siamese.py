"""The Siamese encoder: its shape and cost, one network for both views, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.batches import Batch, PairBatches
from encoders.corpus import Item, PcmCache
from encoders.cost import Cost, count_cost
from encoders.degrade import World, shipped_rooms
from encoders.errors import EarmarkError
from encoders.features import FeatureSpec
from encoders.losses import nt_xent
from encoders.recipes import Caches, SiameseRecipe, fingerprint, train_siamese
from encoders.siamese import SiameseConfig, build_siamese
from encoders.training import TrainingConfig, fit
from encoders.vae import VaeConfig, build_decoder

tf = pytest.importorskip("tensorflow", reason="needs the train extra")

SPEC = FeatureSpec()
INPUT = fingerprint.INPUTS["log-mel"]
TINY = SiameseConfig(dim=16, channels=(8, 12, 16), hidden=24)


def test_the_default_network_is_small() -> None:
    model = build_siamese(SPEC.window_frames, INPUT.n_bands, SiameseConfig())
    cost = count_cost(model)
    assert cost.parameters == model.count_params() <= 2_500_000
    assert 15e6 < cost.multiply_adds <= 20e6
    assert str(cost) == "18.9 M multiply-adds a window, 2.13 M parameters"
    assert model.output_shape == (None, 128)


@pytest.mark.parametrize("n_frames", [32, 20])
@pytest.mark.parametrize("n_bands", [96, 40])
def test_network_shape(n_frames: int, n_bands: int) -> None:
    model = build_siamese(n_frames, n_bands, TINY)
    assert model.input_shape == (None, n_frames, n_bands)
    levels = np.random.default_rng(0).random((3, n_frames, n_bands), np.float32)
    embeddings = model(levels, training=False).numpy()
    assert embeddings.shape == (3, 16)
    assert np.isfinite(embeddings).all()
    # Not of unit length yet: that is the runtime's and the loss's work.
    assert not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3)


def test_cost_is_what_a_person_counts() -> None:
    # 32 x 96 to 32 x 48 x 4, then to 16 x 24 x 6: a 3 x 3 kernel at each place; then dense.
    cost = count_cost(build_siamese(32, 96, SiameseConfig(dim=5, channels=(4, 6), hidden=7)))
    flat = 16 * 24 * 6
    convolutions = 32 * 48 * 9 * 4 + 16 * 24 * 9 * 4 * 6
    assert cost.multiply_adds == convolutions + flat * 7 + 7 * 5
    # Kernels; a normalisation has four numbers a channel; dense layers have biases.
    assert cost.parameters == 9 * 4 + 9 * 4 * 6 + 4 * (4 + 6) + flat * 7 + 7 + 7 * 5 + 5


def test_cost_of_a_decoder_is_counted_at_the_places_of_its_inputs() -> None:
    # Dense 4 to 12 to 8 x 4 x 6, spread out to 16 x 8 x 4 and 32 x 16 x 4, then to one channel.
    cost = count_cost(build_decoder(32, 16, VaeConfig(dim=4, channels=(4, 6), hidden=12)))
    spread = 8 * 4 * 9 * 6 * 4 + 16 * 8 * 9 * 4 * 4
    assert cost.multiply_adds == 4 * 12 + 12 * 8 * 4 * 6 + spread + 32 * 16 * 9 * 4


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


@pytest.fixture
def captured(music_cache: PcmCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a recipe hands to the loop: models, loss, batches to fit, batches to watch."""

    def capture(recipe: SiameseRecipe) -> list[Any]:
        caught: list[Any] = []

        def instead(*arguments: Any) -> None:
            caught.extend(arguments)
            raise _Captured

        empty = PcmCache(np.empty(0, np.int16), np.empty(0))
        caches = Caches(music_cache, empty, empty, empty)
        config = TrainingConfig(steps=1)
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "fit", instead)
            with pytest.raises(_Captured):
                train_siamese(caches, caches, tmp_path, SPEC, config, recipe, rooms=shipped_rooms())
        return caught[:4]

    return capture


def test_both_views_go_through_one_network(captured: Any, music_cache: PcmCache) -> None:
    models, loss, *_ = captured(SiameseRecipe(TINY))
    (model,) = models.values()
    anchors, positives, same = small_batches(music_cache, 0).batch(0)
    figures = loss((anchors, positives, same), False, 0)
    # The loss is nt-xent of this one model's vectors of both views.
    expected = nt_xent(model(anchors, training=False), model(positives, training=False), same)
    assert float(figures["loss"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(loss((anchors, anchors, same), False, 0)["accuracy"]) > 0.9
    mixed_up = (anchors, np.roll(anchors, 1, axis=0), same)
    assert float(loss(mixed_up, False, 0)["accuracy"]) < 0.2


def test_options_reach_the_loss_and_the_batches(captured: Any, music_cache: PcmCache) -> None:
    batch = small_batches(music_cache, 0).batch(0)

    def value(**choices: Any) -> float:
        _, loss, *_ = captured(SiameseRecipe(TINY, **choices))
        return float(loss(batch, False, 0)["loss"])

    assert value(temperature=0.05) == pytest.approx(value(), rel=1e-5)
    assert value(temperature=0.5) != pytest.approx(value(), rel=1e-2)
    assert value(loss="triplet", margin=0.25) == pytest.approx(value(loss="triplet"), rel=1e-5)
    assert value(loss="triplet", margin=1.0) > value(loss="triplet") + 0.5
    assert value(similarity="euclidean") != pytest.approx(value(), rel=1e-2)
    # It begins as the cosine; its own loss comes on top.
    assert value(similarity="learned") > value() + 0.1
    _, _, fitted, watched = captured(SiameseRecipe(TINY, n_pairs=24))
    assert fitted.batch(0)[2].shape == watched.batch(0)[2].shape == (24, 24)
    assert not np.array_equal(fitted.batch(0)[0], watched.batch(0)[0])


def test_an_mfcc_network_sees_standardised_coefficients(captured: Any) -> None:
    models, loss, fitted, watched = captured(SiameseRecipe(TINY, inputs="mfcc", n_pairs=64))
    assert models["model"].input_shape == (None, SPEC.window_frames, 40)
    anchors, _, _ = batch = fitted.batch(0)
    assert anchors.shape[1:] == (SPEC.window_frames, 40)
    # By the constants of other windows of the same music.
    np.testing.assert_allclose(anchors.mean(axis=(0, 1)), 0.0, atol=1.0)
    np.testing.assert_allclose(anchors.std(axis=(0, 1)), 1.0, atol=0.6)
    assert watched.inputs == fitted.inputs
    assert np.isfinite(float(loss(batch, False, 0)["loss"]))


class Repeated:
    """A few batches over and over."""

    def __init__(self, music: PcmCache) -> None:
        self.made = [small_batches(music, 0).batch(number) for number in range(4)]

    def batch(self, number: int) -> Batch:
        return self.made[number % len(self.made)]


@pytest.fixture(scope="module")
def repeated(music_cache: PcmCache) -> Repeated:
    return Repeated(music_cache)


def accuracies(models: Any, loss: Any, batches: Repeated, out: Path, steps: int = 40) -> list[Any]:
    """Of every step of a run."""
    figures: list[float] = []
    config = TrainingConfig(steps=steps, learning_rate=3e-3, checkpoint_every=100)
    fit(
        models,
        loss,
        batches,
        batches,
        config,
        out,
        lambda _, seen: figures.append(seen["accuracy"]),
    )
    return figures


@pytest.mark.parametrize(
    ("loss", "similarity"),
    [
        ("nt-xent", "cosine"),
        ("contrastive", "cosine"),
        ("triplet", "cosine"),
        ("nt-xent", "euclidean"),
        ("nt-xent", "learned"),
    ],
)
def test_it_learns_from_real_pairs(
    loss: str, similarity: str, captured: Any, repeated: Repeated, tmp_path: Path
) -> None:
    models, pair_loss, *_ = captured(SiameseRecipe(TINY, loss, similarity))
    seen = accuracies(models, pair_loss, repeated, tmp_path)
    assert len(seen) == 40
    assert np.mean(seen[-4:]) > np.mean(seen[:4]) + 0.2
    if similarity == "learned":
        assert float(models["similarity"].bias) != pytest.approx(-10.0, abs=1e-4)


def test_hard_triplets_improve_a_trained_network(
    captured: Any, repeated: Repeated, tmp_path: Path
) -> None:
    models, nt_xent_loss, *_ = captured(SiameseRecipe(TINY))
    before = accuracies(models, nt_xent_loss, repeated, tmp_path / "first")
    # The second run takes the weights of the first from its checkpoint, as --from does.
    models, hard_loss, *_ = captured(SiameseRecipe(TINY, "triplet-hard"))
    config = TrainingConfig(steps=40, learning_rate=1e-3, checkpoint_every=100)
    after: list[float] = []
    fit(
        models, hard_loss, repeated, repeated, config, tmp_path / "second",
        lambda _, seen: after.append(seen["accuracy"]), tmp_path / "first",
    )  # fmt: skip
    assert np.mean(after[:4]) > np.mean(before[:4]) + 0.2
    assert np.mean(after[-4:]) > np.mean(after[:4])


def test_a_learned_similarity_comes_back_from_a_checkpoint(captured: Any, tmp_path: Path) -> None:
    models, *_ = captured(SiameseRecipe(TINY, similarity="learned"))
    models["similarity"].bias.assign(-3.0)
    saved = tf.train.Checkpoint(**models).save(str(tmp_path / "models"))
    models["similarity"].bias.assign(7.0)
    tf.train.Checkpoint(**models).restore(saved).assert_existing_objects_matched()
    assert float(models["similarity"].bias) == -3.0


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"loss": "hinge"}, "unknown choice 'hinge'; known: nt-xent, contrastive, triplet"),
        ({"similarity": "manhattan"}, "unknown choice 'manhattan'; known: cosine"),
        ({"inputs": "chroma"}, "unknown choice 'chroma'; known: log-mel, mfcc"),
        ({"n_pairs": 8}, "a multiple of 8 pairs, at least 16; not 8"),
        ({"n_pairs": 30}, "a multiple of 8 pairs, at least 16; not 30"),
        ({"margin": 0.1}, "nt-xent has a temperature and no margin"),
        ({"loss": "triplet", "temperature": 0.1}, "triplet has a margin and no temperature"),
        ({"similarity": "learned", "temperature": 0.1}, "learns its own temperature"),
    ],
)
def test_choices_that_do_not_go_together_are_told(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EarmarkError, match=sentence):
        SiameseRecipe(**choices)


def test_training_without_music_is_told(tmp_path: Path) -> None:
    items = [Item(tmp_path / "absent.ogg", "music", "train")]
    with pytest.raises(EarmarkError, match="no music that can be decoded in split 'train'"):
        Caches.build(items, "train", tmp_path, SPEC)


def test_config_is_plain_data() -> None:
    assert dataclasses.asdict(TINY) == {"dim": 16, "channels": (8, 12, 16), "hidden": 24}
    assert Cost(1, 2) == Cost(1, 2) != Cost(1, 3)
