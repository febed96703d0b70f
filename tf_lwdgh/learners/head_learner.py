# SPDX-License-Identifier: Apache-2.0
"""What the classifiers share that learn a new linear head on frozen features at test."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.learners.classifier import Classifier
from tf_lwdgh.learners.context import Context
from tf_lwdgh.types import Meta, Tensors


class TaskHead(NamedTuple):
    """A task as learned: logits xW + b."""

    kernel: tf.Tensor  # [D, N]
    bias: tf.Tensor  # [N]
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@dataclasses.dataclass(frozen=True)
class HeadLearner(Classifier):
    """A Classifier in training; at test a head is fitted to the support set's features."""

    def fit(self, context: Context, features: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel [D, N] and bias [N] for a support set: features [B, D], labels [B]."""
        raise NotImplementedError

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> TaskHead:
        features, state = self.embed_support(context, meta, images)
        return TaskHead(*self.fit(context, self.represent(context, meta, features), labels), state)

    def predict(self, context: Context, meta: Meta, adapted: TaskHead, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        features = self.represent(context, meta, features)
        return tf.matmul(features, adapted.kernel) + adapted.bias, state
