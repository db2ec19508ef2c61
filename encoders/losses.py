"""What a Siamese encoder is trained to do: similarities of its vectors, and losses.

Losses and similarities can be combined freely: a loss sees nothing of the vectors but their
distances. TensorFlow is imported when they are used, not before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Distance = Callable[[Any, Any], Any]
"""Every row of a tensor [shape=(n_a, dim)] from every row of another: [shape=(n_a, n_b)]."""


def cosine_similarity(a: Any, b: Any) -> tf.Tensor:
    """Cosine of every row of ``a`` with every row of ``b`` [shape=(n_a, n_b)]."""
    import tensorflow as tf

    return tf.matmul(tf.math.l2_normalize(a, 1), tf.math.l2_normalize(b, 1), transpose_b=True)


def cosine_distance(a: Any, b: Any) -> tf.Tensor:
    """One minus the cosine, 0 to 2 [shape=(n_a, n_b)]."""
    return 1.0 - cosine_similarity(a, b)


def euclidean_distance(a: Any, b: Any) -> tf.Tensor:
    """Distance of the vectors *scaled to unit length*, 0 to 2 [shape=(n_a, n_b)].

    Vectors of free length could not be searched by inner product. Those of unit length can: their
    distance is ``sqrt(2 - 2 cosine)``, and ranks as the cosine does. What differs from it in
    training is the geometry: small distances weigh more.
    """
    import tensorflow as tf

    return tf.sqrt(tf.maximum(2.0 - 2.0 * cosine_similarity(a, b), 1e-12))


DISTANCES: dict[str, Distance] = {"cosine": cosine_distance, "euclidean": euclidean_distance}


class LearnedSimilarity:
    """A similarity that is trained with the network: how much each dimension weighs, and when to
    call two sounds the same.

    Weighted components and a logistic output are those of Koch, Zemel and Salakhutdinov (2015),
    here of products instead of differences: the cosine of ``w * a`` and ``w * b``. A weighted
    vector is as easily searched by inner product as any other, so :meth:`fold_into` leaves nothing
    to do at run time. ``sigmoid(scale * cosine + bias)`` is the probability of the same sound; the
    scale is also the inverse temperature of NT-Xent (CLIP, 2021).

    Parameters
    ----------
    dim : int
        Size of the vectors.

    Attributes
    ----------
    layer : keras.layers.Layer
        Holds the variables, for the optimiser and the checkpoints.
    """

    # As CLIP does: beyond it, training becomes unstable.
    _MAX_SCALE = 100.0

    def __init__(self, dim: int) -> None:
        import keras

        start = keras.initializers.Constant
        self.layer: Any = keras.layers.Layer(name="similarity")
        self.layer.log_weights = self.layer.add_weight((dim,), start(0.0))
        self.layer.log_scale = self.layer.add_weight((), start(math.log(20.0)))
        self.layer.bias = self.layer.add_weight((), start(-10.0))
        self.layer.built = True

    @property
    def scale(self) -> tf.Tensor:
        """Steepness of the logistic output."""
        import tensorflow as tf

        return tf.minimum(tf.exp(self.layer.log_scale), self._MAX_SCALE)

    @property
    def weights(self) -> tf.Tensor:
        """What each dimension is multiplied by [shape=(dim,)]."""
        import tensorflow as tf

        return tf.exp(self.layer.log_weights)

    def distance(self, a: Any, b: Any) -> tf.Tensor:
        """One minus the cosine of the weighted vectors [shape=(n_a, n_b)]."""
        return cosine_distance(a * self.weights, b * self.weights)

    def decision_loss(self, anchors: Any, positives: Any, same: Any) -> tf.Tensor:
        """Cross entropy of the logistic output; same and different pairs weigh the same.

        Parameters as in :func:`nt_xent`.
        """
        import tensorflow as tf

        evidence = self.scale * (1.0 - self.distance(anchors, positives)) + self.layer.bias
        different = _different(same)
        missed = tf.reduce_mean(tf.nn.softplus(-tf.linalg.diag_part(evidence)))
        accepted = tf.reduce_sum(different * tf.nn.softplus(evidence))
        return missed + accepted / tf.maximum(tf.reduce_sum(different), 1.0)

    def fold_into(self, model: keras.Model) -> None:
        """Multiply the last layer of ``model``: its vectors' cosine is then this similarity."""
        last = model.layers[-1]
        last.kernel.assign(last.kernel * self.weights)
        last.bias.assign(last.bias * self.weights)

    def logistic(self) -> tuple[float, float]:
        """Scale and bias."""
        return float(self.scale), float(self.layer.bias)


def nt_xent(
    anchors: Any,
    positives: Any,
    same: Any,
    distance: Distance = cosine_distance,
    temperature: Any = 0.05,
) -> tf.Tensor:
    """Normalised temperature-scaled cross entropy with in-batch negatives (SimCLR, 2020).

    Parameters
    ----------
    anchors, positives : tensor [shape=(n, dim)]
        Row ``i`` of both belongs to the same sound.
    same : tensor [shape=(n, n), dtype=bool]
        Pairs of *different* rows that sound the same all the same, such as an exact loop; they
        are left out of the negatives.
    distance : callable
        The similarity is what is missing of it.
    temperature : float

    Returns
    -------
    loss : tensor, scalar
    """
    import tensorflow as tf

    distances, partner, negative = _all_pairs(anchors, positives, same, distance)
    is_partner = tf.one_hot(partner, tf.shape(distances)[0], on_value=True, off_value=False)
    logits = tf.where(negative | is_partner, -distances / temperature, -1e9)
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=partner, logits=logits)
    )


def contrastive_margin(
    anchors: Any,
    positives: Any,
    same: Any,
    distance: Distance = cosine_distance,
    margin: float = 0.8,
) -> tf.Tensor:
    """Classical contrastive loss on pairs (Hadsell, Chopra, LeCun, 2006).

    Pairs are drawn together by their squared distance; every other combination in the batch is
    pushed out to ``margin``. Parameters as in :func:`nt_xent`.
    """
    import tensorflow as tf

    distances = distance(anchors, positives)
    together = tf.square(tf.linalg.diag_part(distances))
    apart = _different(same) * tf.square(tf.maximum(0.0, margin - distances))
    # Most negatives are already outside the margin: average over those that are not.
    n_active = tf.math.count_nonzero(apart, dtype=tf.float32)
    return tf.reduce_mean(together) + tf.reduce_sum(apart) / tf.maximum(n_active, 1.0)


def triplet(
    anchors: Any,
    positives: Any,
    same: Any,
    distance: Distance = cosine_distance,
    margin: float = 0.25,
) -> tf.Tensor:
    """Triplet loss with semi-hard negatives (FaceNet, 2015; for fingerprints Araz et al., 2025).

    Each vector shall be closer to its partner, by ``margin``, than to the nearest negative beyond
    the partner. Where no negative is beyond it, the farthest one is taken: the nearest would make
    all vectors collapse into one at the start of training. Parameters as in :func:`nt_xent`; the
    default margin is that of Araz, 0.5 in squared Euclidean distance, as a cosine.
    """
    import tensorflow as tf

    distances, partner, negative = _all_pairs(anchors, positives, same, distance)
    own = tf.gather(distances, partner, batch_dims=1)
    beyond = negative & (distances > own[:, None])
    nearest = tf.reduce_min(tf.where(beyond, distances, _FAR), 1)
    farthest = tf.reduce_max(tf.where(negative, distances, 0.0), 1)
    chosen = tf.where(tf.reduce_any(beyond, 1), nearest, farthest)
    return _hinge(own, chosen, negative, margin)


def triplet_hard(
    anchors: Any,
    positives: Any,
    same: Any,
    distance: Distance = cosine_distance,
    margin: float = 0.25,
) -> tf.Tensor:
    """Triplet loss with the hardest negative of the batch (Hermans, Beyer, Leibe, 2017).

    For networks that are trained already: from random weights all vectors collapse into one, as
    FaceNet warns and as it happens here. Parameters as in :func:`triplet`.
    """
    import tensorflow as tf

    distances, partner, negative = _all_pairs(anchors, positives, same, distance)
    own = tf.gather(distances, partner, batch_dims=1)
    return _hinge(own, tf.reduce_min(tf.where(negative, distances, _FAR), 1), negative, margin)


def sup_con(vectors: Any, classes: Any, temperature: float = 0.1) -> tf.Tensor:
    """Supervised contrastive loss (Khosla et al., 2020; the sum outside the logarithm).

    Every vector is drawn to all others of its class, and only those; views of one sound without a
    label are a class of their own, and the loss is then NT-Xent's.

    Parameters
    ----------
    vectors : tensor [shape=(n, dim)]
    classes : tensor [shape=(n,), dtype=int]
        A vector that is alone in its class pulls nothing, but is a negative of the others.
    temperature : float

    Returns
    -------
    loss : tensor, scalar
        Mean over the vectors that are not alone.
    """
    import tensorflow as tf

    logits = cosine_similarity(vectors, vectors) / temperature
    itself = tf.eye(tf.shape(logits)[0], dtype=tf.bool)
    positive = tf.cast((classes[:, None] == classes[None, :]) & ~itself, tf.float32)
    log_likelihood = logits - tf.reduce_logsumexp(
        tf.where(itself, -1e9, logits), axis=1, keepdims=True
    )
    n_positives = tf.reduce_sum(positive, 1)
    of_each = tf.reduce_sum(positive * log_likelihood, 1) / tf.maximum(n_positives, 1.0)
    n_counted = tf.math.count_nonzero(n_positives, dtype=tf.float32)
    return -tf.reduce_sum(of_each) / tf.maximum(n_counted, 1.0)


LOSSES: dict[str, Callable[..., Any]] = {
    "nt-xent": nt_xent,
    "contrastive": contrastive_margin,
    "triplet": triplet,
    "triplet-hard": triplet_hard,
}

# Farther than any two vectors are.
_FAR = 1e3


def _all_pairs(
    anchors: Any, positives: Any, same: Any, distance: Distance
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    # Anchors and positives in one: distances [shape=(2n, 2n)], the partner of each row
    # [shape=(2n,)], and who is a negative of whom [shape=(2n, 2n), dtype=bool].
    import tensorflow as tf

    n = tf.shape(anchors)[0]
    both = tf.concat([anchors, positives], 0)
    partner = tf.concat([tf.range(n, 2 * n), tf.range(n)], 0)
    negative = tf.tile(_different(same) > 0, (2, 2))
    return distance(both, both), partner, negative


def _different(same: Any) -> tf.Tensor:
    # 1 where two different rows are different sounds, else 0 [shape=(n, n)].
    import tensorflow as tf

    same = tf.convert_to_tensor(same)
    return tf.cast(~(same | tf.eye(tf.shape(same)[0], dtype=tf.bool)), tf.float32)


def _hinge(own: Any, other: Any, negative: Any, margin: float) -> tf.Tensor:
    # A row without a negative has nothing to be kept away from.
    import tensorflow as tf

    wrong = tf.maximum(0.0, own - other + margin)
    return tf.reduce_mean(tf.where(tf.reduce_any(negative, 1), wrong, 0.0))
