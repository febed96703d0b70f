# SPDX-License-Identifier: Apache-2.0
"""UNICORN-MAML (Ye & Chao 2022): one head vector for all classes, so that their order can't matter.

The head starts every task with N copies of a vector w [D] and of a bias b; the outer gradient of w
is the sum over the copies.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import AdaptedNetwork, GradientLearner
from tf_lwdgh.networks.functional import FunctionalModel, Prepared
from tf_lwdgh.types import Meta, Published, Tensors, stream_key


@config.configurable
@dataclasses.dataclass(frozen=True)
class UnicornMAML(GradientLearner):
    """The learner. It owns 'head/vector' [D] and 'head/bias' [], and takes any number of ways; the
    network's head is not used and not trained.

    The authors' recipe is of first order, from a pretrained Resnet12, with rate 0.1 of the mean
    cross-entropy, as here: 5 steps at 1 shot, 20 at 5 shots; one task a meta-step, SGD at 0.001
    with Nesterov momentum 0.9 and decay 0.0005.

    Attributes:
      head: not a setting: copies of the vector.
      query_temperature: queries' logits are divided by it, in training and after; the support set's
        are not. The authors' is 0.5.
      seed: of the vector at the start, uniform within ±1/√D.
    """

    head: str = dataclasses.field(default="zero", init=False)
    query_temperature: float = 1.0
    seed: int = 0

    reference: ClassVar[str] = "Ye, Chao: How to Train Your MAML to Excel in Few-Shot Classification, ICLR 2022"
    equation: ClassVar[str] = "W_k = w, b_k = b for every class; then θ_{s+1} = θ_s − α∇L_S(θ_s)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Resnet12", "65.17", "the authors' repository"),
        Published("mini-ImageNet 5-way 5-shot, Resnet12", "84.30", "the authors' repository"),
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "47–48", "a user of the repository"),
    )
    traps: ClassVar[str] = (
        "What all classes share cancels in the softmax, at every step and in every derivative: w "
        "and b get no gradient, and the method is MAML with MAML.head = 'zero' and a temperature. "
        "The published figures need a pretrained Resnet12; a user reports 26 % without."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = 0 < self.query_temperature < math.inf
        self.require("query_temperature", fits, "must be > 0, finite")

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        width, dtype = model.n_features, model.values()[-1].dtype
        key, bound = stream_key(self.seed, "UnicornMAML"), width**-0.5
        vector = tf.random.stateless_uniform([width], key, -bound, bound, dtype, alg="philox")
        # Their gradients are 0 but for rounding, in which there is no conflict to measure.
        return [
            OwnParameter("head/vector", vector, harmonized=False),
            OwnParameter("head/bias", tf.zeros([], dtype), harmonized=False),
        ]

    def start(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> Tensors:
        kernel = tf.tile(meta.own["head/vector"][:, None], [1, context.ways])
        return [*meta.network[:-2], kernel, tf.fill([context.ways], meta.own["head/bias"])]

    def predict(
        self, context: Context, meta: Meta, adapted: AdaptedNetwork, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        logits, state = super().predict(context, meta, adapted, images)
        return logits / self.query_temperature, state
