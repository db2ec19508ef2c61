"""The losses of the Siamese encoder: against numpy, by every distance, and by their gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from encoders.losses import (
    DISTANCES,
    LOSSES,
    LearnedSimilarity,
    contrastive_margin,
    cosine_similarity,
    nt_xent,
    sup_con,
    triplet,
    triplet_hard,
)
from encoders.siamese import SiameseConfig, build_siamese

tf = pytest.importorskip("tensorflow", reason="needs the train extra")

Rows = np.ndarray

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_distance = pytest.mark.parametrize("distance", DISTANCES)
loops_or_none = pytest.mark.parametrize("couples", [(), ((0, 3), (5, 7))])


def unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs(n: int = 12, dim: int = 6, spread: float = 0.5) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(n)
    anchors = rng.normal(size=(n, dim)).astype(np.float32)
    return anchors, anchors + spread * rng.normal(size=(n, dim)).astype(np.float32)


def alike(n: int, *couples: tuple[int, int]) -> np.ndarray:
    same = np.zeros((n, n), bool)
    for i, j in couples:
        same[i, j] = same[j, i] = True
    return same


def on_circle(*degrees: float) -> Rows:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# As the papers have them: one row after the other.


def distance_of(name: str, a: Rows, b: Rows) -> float:
    return 1.0 - float(a @ b) if name == "cosine" else float(np.linalg.norm(a - b))


def rows_and_negatives(
    anchors: Rows, positives: Rows, same: np.ndarray, name: str
) -> list[tuple[float, list[float]]]:
    """For each of the 2n vectors: how far its partner is, and each of its negatives."""
    n = len(anchors)
    both = unit(np.concatenate([anchors, positives]).astype(np.float64))
    return [
        (
            distance_of(name, both[i], both[(i + n) % (2 * n)]),
            [
                distance_of(name, both[i], both[j])
                for j in range(2 * n)
                if j % n != i % n and not same[i % n, j % n]
            ],
        )
        for i in range(2 * n)
    ]


def reference_nt_xent(
    anchors: Rows, positives: Rows, same: np.ndarray, name: str, temperature: float
) -> float:
    losses = []
    for own, others in rows_and_negatives(anchors, positives, same, name):
        likeness = np.exp(-np.array([own, *others]) / temperature)
        losses.append(-np.log(likeness[0] / likeness.sum()))
    return float(np.mean(losses))


def reference_contrastive(
    anchors: Rows, positives: Rows, same: np.ndarray, name: str, margin: float
) -> float:
    a, p = unit(anchors.astype(np.float64)), unit(positives.astype(np.float64))
    n = len(a)
    together = np.mean([distance_of(name, a[i], p[i]) ** 2 for i in range(n)])
    overlaps = [
        max(0.0, margin - distance_of(name, a[i], p[j])) ** 2
        for i in range(n)
        for j in range(n)
        if i != j and not same[i, j]
    ]
    active = [x for x in overlaps if x > 0]
    return float(together + (np.mean(active) if active else 0.0))


def reference_triplet(
    anchors: Rows, positives: Rows, same: np.ndarray, name: str, margin: float, hard: bool
) -> float:
    losses = []
    for own, others in rows_and_negatives(anchors, positives, same, name):
        beyond = [d for d in others if d > own]
        chosen = min(others) if hard else min(beyond) if beyond else max(others)
        losses.append(max(0.0, own - chosen + margin))
    return float(np.mean(losses))


@each_distance
@loops_or_none
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_nt_xent_is_the_papers(
    temperature: float, couples: tuple[tuple[int, int], ...], distance: str
) -> None:
    anchors, positives = pairs()
    same = alike(len(anchors), *couples)
    expected = reference_nt_xent(anchors, positives, same, distance, temperature)
    found = nt_xent(anchors, positives, same, DISTANCES[distance], temperature)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@each_distance
@loops_or_none
@pytest.mark.parametrize("margin", [0.1, 0.8, 1.9])
def test_contrastive_is_the_papers(
    margin: float, couples: tuple[tuple[int, int], ...], distance: str
) -> None:
    anchors, positives = pairs()
    same = alike(len(anchors), *couples)
    expected = reference_contrastive(anchors, positives, same, distance, margin)
    found = contrastive_margin(anchors, positives, same, DISTANCES[distance], margin)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_reference_tells_the_two_minings_apart() -> None:
    anchors, positives = pairs(spread=1.5)
    semi_hard, hard = (
        reference_triplet(anchors, positives, alike(len(anchors)), "cosine", 0.2, hard)
        for hard in (False, True)
    )
    assert hard > semi_hard + 0.1


@each_distance
@loops_or_none
@pytest.mark.parametrize("spread", [0.3, 1.5])  # With 1.5, many negatives are nearer.
@pytest.mark.parametrize("hard", [False, True], ids=["semi-hard", "hard"])
def test_triplet_is_the_papers(
    hard: bool, spread: float, couples: tuple[tuple[int, int], ...], distance: str
) -> None:
    anchors, positives = pairs(spread=spread)
    same = alike(len(anchors), *couples)
    expected = reference_triplet(anchors, positives, same, distance, 0.2, hard)
    loss = triplet_hard if hard else triplet
    found = loss(anchors, positives, same, DISTANCES[distance], 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_triplets_in_order_cost_nothing() -> None:
    anchors, positives = on_circle(0, 90, 180, 270), on_circle(5, 95, 185, 275)
    for loss in (triplet, triplet_hard):
        assert float(loss(anchors, positives, alike(4), margin=0.5)) == 0.0
        assert float(loss(anchors, positives, alike(4), margin=1.2)) > 0.1


# What is asked of all of them.


@each_loss
@each_distance
def test_good_pairs_cost_less_than_mixed_up_ones(loss: Any, distance: str) -> None:
    loss = functools.partial(loss, distance=DISTANCES[distance])
    anchors, positives = pairs(spread=0.3)
    none = alike(len(anchors))
    perfect = float(loss(anchors, anchors, none))
    good = float(loss(anchors, positives, none))
    mixed_up = float(loss(anchors, np.roll(positives, 1, axis=0), none))
    assert perfect < good < mixed_up


@each_loss
@each_distance
def test_an_exact_loop_is_not_pushed_away(loss: Any, distance: str) -> None:
    loss = functools.partial(loss, distance=DISTANCES[distance])
    anchors, positives = pairs(spread=0.2)
    anchors[4], positives[4] = anchors[1], 2 * positives[1] - anchors[1]
    tolerated, none = alike(len(anchors), (1, 4)), alike(len(anchors))
    known, unknown = (float(loss(anchors, positives, same)) for same in (tolerated, none))
    assert known < unknown
    # Alone in a batch with its loop there is nothing to be pushed away from.
    x, y = anchors[[1, 4]], positives[[1, 4]]
    alone = float(loss(x, y, alike(2, (0, 1))))
    own = np.diagonal(DISTANCES[distance](x, y))
    expected = np.mean(own**2) if loss.func is contrastive_margin else 0.0
    assert alone == pytest.approx(expected, abs=1e-5)


@each_loss
def test_a_neighbour_that_is_no_loop_is_pushed_away(loss: Any) -> None:
    anchors, positives = pairs(spread=0.1)
    anchors[1] = anchors[0] + 0.3 * anchors[1]
    positives[1] = positives[0] + 0.3 * positives[1]
    x = tf.constant(anchors)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x, positives, alike(len(anchors)))
    away = -tape.gradient(value, x).numpy()[0]
    neighbour = unit(positives)[1] - unit(positives)[0]
    assert away @ neighbour < 0


@each_loss
@each_distance
def test_length_of_the_vectors_does_not_matter(loss: Any, distance: str) -> None:
    loss = functools.partial(loss, distance=DISTANCES[distance])
    anchors, positives = pairs()
    none = alike(len(anchors))
    assert float(loss(7 * anchors, 0.1 * positives, none)) == pytest.approx(
        float(loss(anchors, positives, none)), rel=1e-4
    )


@each_loss
@each_distance
def test_gradients_are_finite_even_for_equal_vectors(loss: Any, distance: str) -> None:
    anchors, _ = pairs()
    x = tf.constant(np.repeat(anchors[:1], 6, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x, x, alike(6), DISTANCES[distance])
    assert np.isfinite(float(value))
    assert np.isfinite(tape.gradient(value, x).numpy()).all()


# Similarities.


def test_cosine_similarity() -> None:
    a, b = pairs(5)[0], pairs(7)[0]
    np.testing.assert_allclose(cosine_similarity(a, b), unit(a) @ unit(b).T, atol=1e-6)


def test_distances() -> None:
    a, b = on_circle(0, 90), 3 * on_circle(0, 60, 180)
    np.testing.assert_allclose(
        DISTANCES["cosine"](a, b), [[0.0, 0.5, 2.0], [1.0, 1 - 3**0.5 / 2, 1.0]], atol=1e-6
    )
    expected = np.linalg.norm(a[:, None] - b[None] / 3, axis=2)
    np.testing.assert_allclose(DISTANCES["euclidean"](a, b), expected, atol=2e-3)


def learned(dim: int, weights: list[float]) -> LearnedSimilarity:
    similarity = LearnedSimilarity(dim)
    similarity.layer.log_weights.assign(np.log(weights))
    return similarity


def test_a_learned_similarity_begins_as_the_cosine() -> None:
    a, b = pairs()
    fresh = LearnedSimilarity(6)
    np.testing.assert_allclose(fresh.distance(a, b), DISTANCES["cosine"](a, b), atol=1e-6)
    assert fresh.logistic() == pytest.approx((20.0, -10.0))


def test_a_learned_similarity_weighs_the_dimensions() -> None:
    a, b = pairs(dim=3)
    weights = [2.0, 0.5, 0.1]
    expected = 1 - unit(a * weights) @ unit(b * weights).T
    np.testing.assert_allclose(learned(3, weights).distance(a, b), expected, atol=1e-5)


def test_the_scale_stays_below_100() -> None:
    similarity = LearnedSimilarity(3)
    similarity.layer.log_scale.assign(9.0)
    assert similarity.logistic()[0] == pytest.approx(100.0)


def test_decision_loss_is_the_cross_entropy() -> None:
    anchors, positives = pairs(5, 3)
    same = alike(5, (1, 3))
    similarity = LearnedSimilarity(3)
    evidence = 20 * unit(anchors) @ unit(positives).T - 10
    probability = 1 / (1 + np.exp(-evidence))
    different = ~(same | np.eye(5, dtype=bool))
    expected = -np.log(np.diag(probability)).mean() - np.log(1 - probability[different]).mean()
    assert float(similarity.decision_loss(anchors, positives, same)) == pytest.approx(
        expected, rel=1e-3
    )


def test_a_similarity_learns_which_dimensions_tell_the_truth() -> None:
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(64, 6)).astype(np.float32)
    positives = anchors + 0.1 * rng.normal(size=anchors.shape).astype(np.float32)
    positives[:, 3:] = 2 * rng.normal(size=(64, 3))  # These say nothing.
    similarity, none = LearnedSimilarity(6), alike(64)
    optimizer = tf.keras.optimizers.Adam(0.1)
    variables = similarity.layer.trainable_variables
    assert len(variables) == 3
    losses = []
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = similarity.decision_loss(anchors, positives, none)
        losses.append(float(loss))
        optimizer.apply(tape.gradient(loss, variables), variables)
    weights = np.asarray(similarity.weights)
    assert weights[:3].min() > 3 * weights[3:].max()
    assert losses[-1] < 0.5 * losses[0]


def test_a_folded_network_has_the_learned_similarity() -> None:
    tf.keras.utils.set_random_seed(0)
    model = build_siamese(8, 8, SiameseConfig(dim=4, channels=(3,), hidden=6))
    levels = np.random.default_rng(1).random((7, 8, 8), np.float32)
    similarity = learned(4, [3.0, 1.0, 0.3, 0.1])
    model.layers[-1].bias.assign([0.5, -0.2, 0.1, 0.3])
    before = model(levels, training=False)
    expected = 1 - similarity.distance(before, before).numpy()
    similarity.fold_into(model)
    after = model(levels, training=False)
    np.testing.assert_allclose(cosine_similarity(after, after), expected, atol=1e-5)
    assert not np.allclose(cosine_similarity(before, before), expected, atol=1e-3)


def test_sup_con_is_the_mean_log_share_of_each_positive() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 4)).astype(np.float32)
    classes = np.array([0, 0, 1, 1, 1, 2, 3], np.int32)
    scores = np.exp(unit(vectors) @ unit(vectors).T / 0.2)
    of_each = []
    for i in range(5):  # The last two are alone in their classes.
        others = [j for j in range(7) if j != i]
        positives = [j for j in others if classes[j] == classes[i]]
        of_each.append(
            -np.mean([np.log(scores[i, j] / scores[i, others].sum()) for j in positives])
        )
    value = sup_con(tf.constant(vectors), tf.constant(classes), 0.2)
    assert float(value) == pytest.approx(np.mean(of_each), rel=1e-5)


def test_sup_con_of_pairs_is_nt_xent() -> None:
    rng = np.random.default_rng(1)
    a, b = (tf.constant(rng.normal(size=(5, 8)), tf.float32) for _ in range(2))
    classes = tf.constant([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    pairs = nt_xent(a, b, np.zeros((5, 5), bool), temperature=0.1)
    assert float(sup_con(tf.concat([a, b], 0), classes, 0.1)) == pytest.approx(
        float(pairs), rel=1e-5
    )
    assert float(sup_con(a, tf.range(5))) == 0.0
