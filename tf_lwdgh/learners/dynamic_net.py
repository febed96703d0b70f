# SPDX-License-Identifier: Apache-2.0
"""Dynamic few-shot learning without forgetting (Gidaris & Komodakis 2018): weights of classes made by attention.

A cosine classifier over training classes has weights w_b. Those of a new class are made of its support
features, z̄ and w̄ of length 1: w = φ_avg ∘ mean_i z̄_i + φ_att ∘ mean_i Σ_b softmax_b(γ cos(φ_q z̄_i, k_b)) w̄_b.
Logits are τ cos(z, w). This is the second stage: the network comes from a Classifier with a cosine head
and stays as it is. In a training task some classes play new ones, and leave the base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.prototypes import class_means, cosines
from tf_lwdgh.learners.training_classes import OfTrainingClasses
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

_BASE = "classifier/kernel"  # as the Classifier names it, so that a run may start from one's
_KEYS = "memory/keys"
_NEVER = -1e9


class Weights(NamedTuple):
    """A task as learned."""

    weights: tf.Tensor  # [N, D]
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class DynamicNet(OfTrainingClasses, EmbeddingLearner):
    """The learner; at test all training classes are its memory, and tasks may have any ways.

    A training task has novel_ways + base_ways classes, whatever the episodes' ways are: the queries of all
    are to be told among the new classes and all training classes that don't play one.

    Attributes:
      n_classes: training classes; None: as many as the data set has.
      novel_ways: classes of a training task that play new ones.
      base_ways: classes of a training task that stay in the base.
      scale: τ at the start, > 0.
      sharpness: γ at the start, > 0.
    """

    novel_ways: int = 5
    base_ways: int = 5
    scale: float = 10.0
    sharpness: float = 10.0

    reference: ClassVar[str] = "Gidaris, Komodakis: Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018"
    equation: ClassVar[str] = (
        "w = φ_avg ∘ mean z̄_i + φ_att ∘ mean_i Σ_b softmax_b(γ cos(φ_q z̄_i, k_b)) w̄_b; logits τ cos(z, w)"
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, 128 filters", "56.20 ± 0.86", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, 128 filters", "73.00 ± 0.64", "the paper"),
    )
    traps: ClassVar[str] = (
        "Meant to start from a classifier with a cosine head on features without a last ReLU: "
        "Experiment.start = 'runs/…'. Dropout of the network, which the authors keep on, is off."
    )

    class_axis: ClassVar[tuple[str, int] | None] = (_KEYS, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("novel_ways", "base_ways"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("scale", "sharpness"):
            self.require(name, 0 < getattr(self, name) < math.inf, "must be > 0, finite")

    def training_shape(self, n_classes: int, n_images: int) -> Mapping[str, int]:
        return {"n_way": self.novel_ways + self.base_ways}

    def trained(self, model: FunctionalModel) -> list[bool]:
        """None of the network's variables."""
        return [False] * len(model.variables)

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        if self.n_classes is None:
            return []
        width, count, dtype = model.n_features, self.n_classes, model.variables[0].dtype

        def normal(shape: tuple[int, ...], spread: float) -> tf.Tensor:
            return keras.initializers.RandomNormal(stddev=spread)(shape, dtype)

        spread = math.sqrt(2 / width)
        near_one = tf.eye(width, dtype=dtype) + normal((width, width), 0.001)
        return [
            OwnParameter(_BASE, normal((width, count), spread)),
            OwnParameter(_KEYS, normal((count, width), spread)),
            OwnParameter("memory/query", near_one),
            OwnParameter("weights/average", tf.ones([width], dtype)),
            OwnParameter("weights/attention", tf.ones([width], dtype)),
            OwnParameter("sharpness", tf.constant(self.sharpness, dtype)),
            OwnParameter("scale", tf.constant(self.scale, dtype)),
        ]

    def support_takes_batch(self, context: Context) -> bool:
        return self.batch_norm != "global"

    def queries_take_batch(self, context: Context) -> bool:
        return self.batch_norm == "transductive"

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Weights:
        features, state = self.embed_support(context, meta, images)
        none = tf.zeros([0], tf.int32)
        return Weights(self.weights(meta, features, labels, context.ways, none), state)

    def predict(self, context: Context, meta: Meta, adapted: Weights, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        return meta.own["scale"] * cosines(features, adapted.weights), state

    def weights(
        self,
        meta: Meta,
        features: tf.Tensor,
        labels: tf.Tensor,
        ways: int | tf.Tensor,
        absent: tf.Tensor,
    ) -> tf.Tensor:
        """The weights [N, D] of new classes.

        Args:
          meta: the meta-parameters.
          features: of the support set, [B, D].
          labels: [B] integers in [0, N).
          ways: N.
          absent: numbers of the training classes that are not in the memory.
        """
        own, unit = meta.own, tf.math.l2_normalize(features, -1)
        sharp = own["sharpness"] * cosines(tf.matmul(unit, own["memory/query"]), own[_KEYS])
        gone = tf.reduce_sum(tf.one_hot(absent, self.n_classes, dtype=sharp.dtype), 0)
        attention = tf.nn.softmax(sharp + _NEVER * gone)
        recalled = tf.matmul(attention, tf.math.l2_normalize(own[_BASE], 0), transpose_b=True)
        made = own["weights/average"] * unit + own["weights/attention"] * recalled
        return class_means(made, labels, ways)

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """The cross-entropy of all queries among the new classes and the base; the task's come first.

        Raises:
          ValueError: the number of training classes, or those of the task, are not known.
        """
        columns = self.columns(episode)
        novel, ways = self.novel_ways, tf.shape(episode.class_ids)[0]
        support, state = self.embed_support(context, meta, episode.support_images)
        rows = novel * (tf.shape(support)[0] // ways)  # the support set is ordered class by class
        made = self.weights(meta, support[:rows], episode.support_labels[:rows], novel, episode.class_ids[:novel])
        queries, state = self.embed_queries(context, meta, state, episode.query_images)
        base = cosines(queries, tf.transpose(meta.own[_BASE]))
        base = tf.gather(base, columns[novel:], axis=1)
        logits = meta.own["scale"] * tf.concat([cosines(queries, made), base], -1)
        loss = cross_entropy(logits, episode.query_labels)
        return TaskResult(loss, loss, logits, state)
