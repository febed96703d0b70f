# SPDX-License-Identifier: Apache-2.0
"""ANIL (Raghu et al. 2020), almost no inner loop: only the head learns a task.

The body's features are computed once. The outer gradient reaches the body through them, those of
the support set too, since the head's steps depend on them. The same as MAML with rate 0 for the
body, at a fraction of its time.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import AdaptedNetwork, GradientLearner
from tf_lwdgh.learners.inner_loop import adapt, by_rates
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.prototypes import class_means
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors

TEST_HEADS = ("adapted", "cosine")


@config.configurable
@dataclasses.dataclass(frozen=True)
class ANIL(GradientLearner):
    """The learner.

    Attributes:
      test_head: what answers after training: 'adapted', the head as it learned the task; or
        'cosine', no head (the paper's NIL): the mean cosine of a query's features to those of each
        class's support images. The mean, not the sum, is a choice of ours: where every class has as
        many, both order the classes alike. A test task then makes no inner steps and may have any
        number of ways, and its loss, of logits within ±1, says little.
    """

    test_head: str = "adapted"

    reference: ClassVar[str] = "Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse?, ICLR 2020"
    equation: ClassVar[str] = "w_{s+1} = w_s − α∇_w L_S(θ, w_s), w the head; ∂L_Q(θ, w_S)/∂(θ, w_0)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "46.7 ± 0.4", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "61.5 ± 0.5", "the paper"),
        Published("mini-ImageNet 5-way 1-shot, NIL at test", "48.0", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, NIL at test", "62.2", "the paper"),
    )
    traps: ClassVar[str] = (
        "Code that embeds support and query images in one batch leaks the queries into the support "
        "set's BatchNorm (learn2learn's and LibFewShot's do); here they never meet. The paper "
        "compares with a MAML of its own, 46.9 and 63.1, and leaves its inner rate unsaid as far "
        "as we know."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.test_head in TEST_HEADS
        self.require("test_head", known, f"must be one of {', '.join(TEST_HEADS)}")

    @property
    def any_way(self) -> bool:
        return super().any_way or self.test_head == "cosine"

    @property
    def any_way_in_training(self) -> bool:
        return super().any_way

    def inner_steps(self, steps: int | None = None) -> int | None:
        """As asked; with test_head='cosine' those of a test task: 0."""
        return 0 if self.test_head == "cosine" else super().inner_steps(steps)

    def rates(self, model: FunctionalModel) -> list[float]:
        return [rate if head else 0.0 for rate, head in zip(super().rates(model), model.is_head)]

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        if not any(self.rates(model)):
            raise ValueError(
                "InnerLoop.inner_lr must be above 0 for a variable of the head, since ANIL moves "
                f"nothing else. Received: InnerLoop.inner_lr = {self.inner_loop.inner_lr!r}."
            )

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> AdaptedNetwork:
        support = context.model.prepare(images)
        batch = self.support_takes_batch(context)
        features, state = context.model.features(meta.network, meta.state, support, training=batch)
        if self.batch_norm != "inductive":
            state = meta.state
        if self._by_cosine(context):
            head = self._directions(context, features, labels)
        else:
            start = self.start(context, meta, support, labels)[-2:]
            head = self._learned(context, start, features, labels)
        return AdaptedNetwork([*meta.network[:-2], *head], list(state))

    def predict(
        self, context: Context, meta: Meta, adapted: AdaptedNetwork, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        if not self._by_cosine(context):
            return super().predict(context, meta, adapted, images)
        batch = self.queries_take_batch(context)
        features, state = context.model.features(adapted.params, adapted.state, images, training=batch)
        return context.model.head(adapted.params, tf.math.l2_normalize(features, -1)), state

    def _by_cosine(self, context: Context) -> bool:
        return self.test_head == "cosine" and not context.training

    @staticmethod
    def _directions(context: Context, features: tf.Tensor, labels: tf.Tensor) -> Tensors:
        """A head whose logits are the mean cosines, of queries' features of length 1."""
        means = class_means(tf.math.l2_normalize(features, -1), labels, context.ways)
        return [tf.transpose(means), tf.zeros([context.ways], features.dtype)]

    def _learned(self, context: Context, head: Tensors, features: tf.Tensor, labels: tf.Tensor) -> Tensors:
        """Kernel [D, N] and bias [N] after the inner loop on features [B, D]."""
        rates = self.rates(context.model)[-2:]
        moving = [i for i, rate in enumerate(rates) if rate]
        return adapt(
            lambda at, inputs: cross_entropy(context.model.head(at, inputs[0]), labels),
            head,
            settings=self.inner_loop,
            moving=moving,
            update=by_rates([rates[i] for i in moving]),
            inputs=lambda step: [features],
            steps=context.steps,
            differentiable=context.training,
        )[-1]
