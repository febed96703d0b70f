# SPDX-License-Identifier: Apache-2.0
"""Relation networks (Sung et al. 2018): a small network says how alike a query and a class are.

r_c = σ(g([F_c, F(x)])) of maps F, F_c the sum over class c's support images; the loss is the mean of
(r_c − [y = c])² over queries and classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.encoders import relation_conv
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

_PART = "relation"
_SMALL = 10  # maps of fewer places a side are padded in the relation module


class ClassMaps(NamedTuple):
    """A task as learned."""

    maps: tf.Tensor  # [N, H, W, C]: the sum over each class's support images
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class RelationNetwork(EmbeddingLearner):
    """The learner; its network's features must be a map, as relation_encoder's and convnet4's are.

    Logits are the scores before σ.

    Attributes:
      filters: of the relation module's convolutions.
      hidden: units of its hidden layer.
    """

    filters: int = 64
    hidden: int = 8

    reference: ClassVar[str] = "Sung et al.: Learning to Compare, CVPR 2018"
    equation: ClassVar[str] = "r_c = σ(g([F_c, F(x)])); the loss is the mean of (r_c − [y = c])²"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, its own encoder", "50.44 ± 0.82", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, its own encoder", "65.32 ± 0.70", "the paper"),
        Published("Omniglot 5-way 1-shot", "99.6 ± 0.2", "the paper"),
    )
    traps: ClassVar[str] = (
        "The authors' BatchNorm never left training mode, so that the published figures are "
        "transductive; inductively others lost up to 10 points. Their 5-shot script chooses the "
        "checkpoint by test classes. The squared loss has small gradients, so that the weights "
        "softmax(−GCI) lie close to the mean's. "
        "Their clipping is of encoder and module apart; OuterLoop.clip_norm is of both together."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("filters", "hidden"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        if model.map_shape is None or min(model.map_shape[:2]) < 4:
            raise ValueError(
                "RelationNetwork needs a network whose features are a map of at least 4 × 4 places "
                "laid out flat, such as @relation_encoder or @convnet4 with fewer blocks. Received: "
                f"{model.keras_model.name} with a map of {model.map_shape}."
            )

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        height, width, channels = model.map_shape
        pairs = x = keras.Input((height, width, 2 * channels), dtype=model.variables[0].dtype)
        padding = "same" if min(height, width) < _SMALL else "valid"
        for i in (1, 2):
            x = relation_conv(x, self.filters, f"block{i}", padding=padding, pool=True, epsilon=1e-5)
        x = keras.layers.Flatten(name="flat", dtype=x.dtype)(x)
        for name, units, activation in (("hidden", self.hidden, "relu"), ("score", 1, None)):
            x = keras.layers.Dense(
                units, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                bias_initializer="ones", name=name, dtype=x.dtype,
            )(x)  # fmt: skip
        return {_PART: keras.Model(pairs, x)}

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> ClassMaps:
        features, state = self.embed_support(context, meta, images)
        members = tf.one_hot(labels, context.ways, axis=0, dtype=features.dtype)
        maps = context.model.as_maps(tf.matmul(members, features))
        if state:  # the module's statistics are those of support images against the classes
            _, state = self._scores(context, meta, state, context.model.as_maps(features), maps, True)
        return ClassMaps(maps, state)

    def predict(self, context: Context, meta: Meta, adapted: ClassMaps, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        batch = self.queries_take_batch(context)
        return self._scores(context, meta, state, context.model.as_maps(features), adapted.maps, batch)

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """The mean squared error of the scores after σ."""
        adapted = self.adapt(context, meta, episode.support_images, episode.support_labels)
        logits, state = self.predict(context, meta, adapted, episode.query_images)
        wanted = tf.one_hot(episode.query_labels, tf.shape(logits)[-1], dtype=logits.dtype)
        error = tf.reduce_mean(tf.square(tf.sigmoid(logits) - wanted))
        return TaskResult(error, cross_entropy(logits, episode.query_labels), logits, state)

    @staticmethod
    def _scores(
        context: Context,
        meta: Meta,
        state: Tensors,
        queries: tf.Tensor,
        classes: tf.Tensor,
        batch: bool,
    ) -> tuple[tf.Tensor, Tensors]:
        """Scores [B, N] before σ of maps [B, H, W, C] against [N, H, W, C], and the statistics."""
        count, ways = tf.shape(queries)[0], tf.shape(classes)[0]
        pairs = tf.concat([tf.tile(classes, [count, 1, 1, 1]), tf.repeat(queries, ways, axis=0)], -1)
        scores, state = context.model.parts[_PART](meta.own, state, pairs, training=batch)
        return tf.reshape(scores, [count, ways]), state
