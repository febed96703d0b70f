"""What every learner is: an episode in, a query loss out; and adaptation without labels for serving."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Episode, TaskResult, Tensors


class Algorithm(Protocol):
    """A learner. Its methods are pure functions of the parameters and one task."""

    def trained(self, model: FunctionalModel) -> list[bool]:
        """Which of the model's variables the outer loop trains."""

    def task(
        self,
        model: FunctionalModel,
        params: Tensors,
        state: Tensors,
        episode: Episode,
        *,
        n_way: int | tf.Tensor | None = None,
    ) -> TaskResult:
        """The query loss of one training task, differentiable in `params`."""

    def adapt_and_predict(
        self,
        model: FunctionalModel,
        params: Tensors,
        state: Tensors,
        support_images: tf.Tensor,
        support_labels: tf.Tensor,
        query_images: tf.Tensor,
        *,
        n_way: int | tf.Tensor | None = None,
        steps: int | None = None,
    ) -> tf.Tensor:
        """The query set's logits after adapting to the support set; not differentiable."""


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy in nats.

    Args:
      logits: [B, N].
      labels: [B] integers in [0, N).

    Returns:
      A scalar.
    """
    chosen = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    return -tf.reduce_mean(tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=-1))


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The share of rows whose largest logit is the label's: [..., B, N], [..., B] -> [...] float32."""
    hits = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32), axis=-1)
