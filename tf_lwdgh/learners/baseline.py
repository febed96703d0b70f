# SPDX-License-Identifier: Apache-2.0
"""Baseline (Chen et al. 2019): a classifier's frozen features, and a new linear head trained on each task.

The head is trained by SGD with momentum on minibatches of the support set, as in the authors' code.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.head_learner import HeadLearner
from tf_lwdgh.learners.losses import cross_entropies
from tf_lwdgh.learners.minibatch_descent import Descent, descend, orders
from tf_lwdgh.types import Published, Tensors

_ORDER, _KERNEL, _BIAS = range(3)  # the independent random streams of a task


@config.configurable
@dataclasses.dataclass(frozen=True)
class Baseline(HeadLearner):
    """The learner: a Classifier in training; at test its network is frozen.

    The head's start and the order of the images are drawn by the task's key, which at test is one and the
    same for all tasks: a prediction can be repeated.

    Attributes:
      epochs: over the support set, at least 0.
      rate: α > 0.
      momentum: in [0, 1).
      dampening: in [0, 1]: a gradient counts 1 − dampening in the velocity, the first wholly.
      weight_decay: >= 0.
      minibatch: images of a step, at least 1.
    """

    epochs: int = 100
    rate: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 0.001
    minibatch: int = 4

    reference: ClassVar[str] = "Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification, ICLR 2019"
    equation: ClassVar[str] = "W, b = SGD on L_S(Wz + b), z frozen"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4 of 64 filters", "42.11", "LibFewShot's tables"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4 of 64 filters", "62.53", "LibFewShot's tables"),
    )
    traps: ClassVar[str] = (
        "With dampening 0.9 its steps are a tenth of what rate and momentum say, so that the head stays far "
        "from the loss's minimum: LogisticRegression is what goes there."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        finite = 0 < self.rate < math.inf
        self.require("epochs", self.epochs >= 0, "must be at least 0")
        self.require("rate", finite, "must be > 0, finite")
        self.require("momentum", 0 <= self.momentum < 1, "must be in [0, 1)")
        self.require("dampening", 0 <= self.dampening <= 1, "must be in [0, 1]")
        self.require("weight_decay", self.weight_decay >= 0, "must be >= 0")
        self.require("minibatch", self.minibatch >= 1, "must be at least 1")

    def fit(self, context: Context, features: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        settings = Descent(self.rate, self.momentum, self.dampening, self.weight_decay, self.epochs, self.minibatch)
        order = orders(tf.shape(features)[0], self.epochs, self._key(context, _ORDER))
        start = self.start(context, features)
        return self.task_head(descend(self._losses, start, features, labels, settings, order))

    def start(self, context: Context, features: tf.Tensor) -> Tensors:
        """The head's parameters before the first step: uniform within ±1/√D, as PyTorch has it."""
        return [self._uniform(context, features, _KERNEL), self._uniform(context, features, _BIAS)]

    def task_head(self, params: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel [D, N] and bias [N] of the head's parameters."""
        return params[0], params[1]

    def _losses(self, params: Tensors, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        kernel, bias = self.task_head(params)
        return cross_entropies(tf.matmul(features, kernel) + bias, labels)

    @staticmethod
    def _key(context: Context, stream: int) -> tf.Tensor:
        return tf.random.fold_in(context.task_key, tf.constant(stream, tf.int64), alg="philox")

    def _uniform(self, context: Context, features: tf.Tensor, stream: int) -> tf.Tensor:
        width, ways = features.shape[-1], context.ways
        shape, bound = [ways] if stream == _BIAS else [width, ways], 1 / math.sqrt(width)
        key = self._key(context, stream)
        return tf.random.stateless_uniform(shape, key, -bound, bound, features.dtype, alg="philox")
