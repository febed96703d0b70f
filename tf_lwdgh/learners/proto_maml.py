# SPDX-License-Identifier: Apache-2.0
"""Proto-MAML (Triantafillou et al. 2020): MAML whose head starts as a prototypical network's.

With c_k the mean of class k's support features at θ, the head starts at W_k = 2c_k, b_k = −‖c_k‖²,
so that its logits are −‖z − c_k‖² but for ‖z‖², which the softmax cancels. Then the whole network
learns the task. The outer gradient flows through the c_k.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.prototypes import class_means
from tf_lwdgh.networks.functional import Prepared
from tf_lwdgh.types import Meta, Published, Tensors


@config.configurable
@dataclasses.dataclass(frozen=True)
class ProtoMAML(GradientLearner):
    """The learner. It takes any number of ways; the network's head is not used and not trained.

    Without inner steps it is the prototypical network with squared distances. The authors' recipe
    is of first order (InnerLoop.second_order = False; the gradient through the prototypes stays),
    with rate 0.01 of the mean cross-entropy, as here; BatchNorm's scales and offsets stay in place.

    Attributes:
      head: not a setting: made of the support set.
    """

    head: str = dataclasses.field(default="zero", init=False)

    reference: ClassVar[str] = "Triantafillou et al.: Meta-Dataset, ICLR 2020"
    equation: ClassVar[str] = "W_k = 2c_k, b_k = −‖c_k‖²; θ_{s+1} = θ_s − α∇L_S(θ_s), head included"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Resnet12", "62.62", "UNICORN-MAML's table"),
        Published("mini-ImageNet 5-way 5-shot, Resnet12", "79.24", "UNICORN-MAML's table"),
    )
    traps: ClassVar[str] = (
        "Features are large, so the first logits are too, and a rate that suits MAML may be too "
        "much. The published figures are of a Resnet12. Some of Meta-Dataset's configurations "
        "named after Proto-MAML include plain MAML's, with the prototypes off."
    )

    def start(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> Tensors:
        batch = self.support_takes_batch(context)
        features, _ = context.model.features(meta.network, meta.state, support, training=batch)
        means = class_means(features, labels, context.ways)
        head = [2 * tf.transpose(means), -tf.reduce_sum(means * means, -1)]
        return [*meta.network[:-2], *head]
