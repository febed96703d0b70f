# SPDX-License-Identifier: Apache-2.0
"""Prototypical networks (Snell et al. 2017): a query belongs to the class whose mean feature is nearest.

Logits −‖z − c_k‖², summed over the features and not averaged; c_k the mean of class k's support features.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.prototypes import class_means, squared_distances
from tf_lwdgh.types import Meta, Published, Tensors


class Prototypes(NamedTuple):
    """A task as learned."""

    means: tf.Tensor  # [N, D]
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class PrototypicalNetwork(EmbeddingLearner):
    """The learner. It has nothing of its own beside the network, whose head is not used."""

    reference: ClassVar[str] = "Snell, Swersky, Zemel: Prototypical Networks, NeurIPS 2017"
    equation: ClassVar[str] = "logits −‖z − c_k‖², c_k the mean of class k's support features"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "49.42 ± 0.78", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "68.20 ± 0.66", "the paper"),
        Published("Omniglot 5-way 1-shot", "98.8", "the paper"),
    )
    traps: ClassVar[str] = (
        "The published figures are of 64 filters and of training with more ways than are tested: 30 "
        "at 1 shot, 20 at 5 shots, on Omniglot 60, as in gin/recipes/ (TrainingTasks.n_way). Trained and "
        "tested 5-way it has 46.61 and 65.77 in SNAIL's table."
    )

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Prototypes:
        features, state = self.embed_support(context, meta, images)
        features = self.represent(context, meta, features)
        return Prototypes(class_means(features, labels, context.ways), state)

    def predict(
        self, context: Context, meta: Meta, adapted: Prototypes, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        features = self.represent(context, meta, features)
        return self.compare(meta, features, adapted.means), state

    # What differs between the learners that compare with class means.

    def represent(self, context: Context, meta: Meta, features: tf.Tensor) -> tf.Tensor:
        """What is compared of features [B, D]; by default themselves."""
        return features

    def compare(self, meta: Meta, features: tf.Tensor, means: tf.Tensor) -> tf.Tensor:
        """Logits [B, N] of what is compared [B, D] with class means [N, D]."""
        return -squared_distances(features, means)
