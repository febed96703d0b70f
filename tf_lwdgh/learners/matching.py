# SPDX-License-Identifier: Apache-2.0
"""Matching networks (Vinyals et al. 2016): a query's label is the support labels' mean under attention.

p(c) = Σ_i a_i [y_i = c] with a = softmax_i(s cos(f(x), g(x_i))); s is learned. With full-context embeddings
g is a support image's features read by a bidirectional LSTM over the whole support set, and f a query's
read by an LSTM with attention over all g.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.shuffles import permutation
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors

_NOWHERE = -1e9  # the logit of a class without support images


class Memory(NamedTuple):
    """A task as learned."""

    support: tf.Tensor  # [S, D]: g of each support image
    members: tf.Tensor  # [N, S]: 1 where an image is of a class, else 0
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class MatchingNetwork(EmbeddingLearner):
    """The learner.

    Attributes:
      scale: s at the start; at s = 1, as in the paper, no probability of five is above 0.65.
      learned_scale: whether the outer loop learns s.
      full_context: whether embeddings know of the whole support set; 71.7 M weights at 1,600 features.
      reading_steps: how often a query attends to the support set, where embeddings know of it; None: as
        often as there are support images. The paper does not say.
    """

    scale: float = 10.0
    learned_scale: bool = True
    full_context: bool = False
    reading_steps: int | None = None

    reference: ClassVar[str] = "Vinyals et al.: Matching Networks for One Shot Learning, NeurIPS 2016"
    equation: ClassVar[str] = "p(c) = Σ_i a_i [y_i = c], a = softmax_i(s cos(f(x), g(x_i)))"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4, full context", "43.56 ± 0.84", "LEO's table"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4, full context", "55.31 ± 0.73", "LEO's table"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "48.14 ± 0.78", "Chen et al. 2019"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "63.48 ± 0.66", "Chen et al. 2019"),
        Published("Omniglot 5-way 1-shot", "98.1", "the paper"),
    )
    traps: ClassVar[str] = (
        "Uneven shots favour the class of more. With full context the order of the support set counts: "
        "it is drawn anew for every task, by a fixed draw after training."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("scale", 0 < self.scale < math.inf, "must be > 0, finite")
        whole = self.reading_steps is None or self.reading_steps >= 1
        self.require("reading_steps", whole, "must be at least 1, or None")

    def own(self, model: FunctionalModel) -> list[OwnParameter]:
        if not self.learned_scale:
            return []
        start = tf.constant(self.scale, model.variables[0].dtype)
        return [OwnParameter("matching/scale", start, harmonized=False)]

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        if not self.full_context:
            return {}
        width, dtype = model.n_features, model.variables[0].dtype
        items = keras.Input([None, width], dtype=dtype)
        over = keras.layers.Bidirectional(
            keras.layers.LSTM(width, return_sequences=True, name="lstm", dtype=dtype),
            merge_mode="sum", name="both_ways", dtype=dtype,
        )  # fmt: skip
        inputs = [keras.Input([n], dtype=dtype) for n in (2 * width, width, width)]
        cell = keras.layers.LSTMCell(width, name="cell", dtype=dtype)
        return {
            "support_context": keras.Model(items, over(items)),
            "query_context": keras.Model(inputs, cell(inputs[0], inputs[1:])[1]),
        }

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Memory:
        features, state = self.embed_support(context, meta, images)
        members = tf.one_hot(labels, context.ways, axis=0, dtype=features.dtype)
        if self.full_context:
            order = permutation(tf.shape(labels)[0], context.task_key)
            features, members = tf.gather(features, order), tf.gather(members, order, axis=1)
            read, _ = self._part(context, meta, "support_context", features[None])
            features += read[0]
        return Memory(features, members, state)

    def predict(self, context: Context, meta: Meta, adapted: Memory, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        if self.full_context:
            features = self._read(context, meta, features, adapted.support)
        cosines = tf.matmul(
            tf.math.l2_normalize(features, -1),
            tf.math.l2_normalize(adapted.support, -1),
            transpose_b=True,
        )
        scale = meta.own["matching/scale"] if self.learned_scale else self.scale
        return _log_share(scale * cosines, adapted.members), state

    def _read(self, context: Context, meta: Meta, features: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
        """Queries' features after attending to the support set: [B, D]."""

        def step(h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            attention = tf.nn.softmax(tf.matmul(h, support, transpose_b=True))
            seen = tf.concat([features, tf.matmul(attention, support)], -1)
            (h, c), _ = self._part(context, meta, "query_context", [seen, h, c])
            return h + features, c

        steps = tf.shape(support)[0] if self.reading_steps is None else self.reading_steps
        _, h, _ = tf.while_loop(
            lambda i, h, c: i < steps,
            lambda i, h, c: (i + 1, *step(h, c)),
            (tf.constant(0), features, tf.zeros_like(features)),
        )
        return h

    @staticmethod
    def _part(context: Context, meta: Meta, name: str, inputs):
        return context.model.parts[name](meta.own, meta.state, inputs, training=context.training)


def _log_share(scores: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
    """log Σ_i softmax(scores)_i [i in c] of each class: [B, S], [N, S] -> [B, N]."""
    absent = tf.constant(_NOWHERE, scores.dtype)
    by_class = tf.where(members > 0, scores[:, None], absent)
    return tf.reduce_logsumexp(by_class, -1) - tf.reduce_logsumexp(scores, -1, keepdims=True)
