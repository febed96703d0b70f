# SPDX-License-Identifier: Apache-2.0
"""Reptile (Nichol et al. 2018): the initialisation moves towards what every task adapts to.

No derivative goes through the inner loop: with φ the parameters after S steps of rate α from θ, the
outer gradient of a task is θ − φ, or on the scale of a gradient (θ − φ)/(α S): the mean of the
steps' gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.inner_loop import Update, adapt
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.shuffles import minibatches
from tf_lwdgh.networks.functional import FunctionalModel, Prepared
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

OPTIMIZERS = ("sgd", "adam")
SCALES = ("gradient", "displacement")
_SECONDARY = "secondary tables; other people's runs are within 2 points"


@config.configurable
@dataclasses.dataclass(frozen=True)
class Reptile(GradientLearner):
    """The learner. In training support and query set together are what a task learns from.

    What doesn't move in the inner loop isn't trained, BatchNorm's scales and offsets among it
    unless InnerLoop.adapt_batch_norm; InnerLoop.second_order and .memory play no part.

    Attributes:
      optimizer: of the inner loop: 'sgd', or 'adam' without its first moment (β1 = 0).
      beta_2: Adam's decay of the second moments, in [0, 1).
      epsilon: Adam's, > 0.
      batch_size: images of an inner step in training, from shuffled passes over the task's images
        of which one may begin within a batch; None: all of them, in every step.
      test_batch_size: the same of the support set, outside training.
      scale: of the outer gradient: 'gradient', (θ − φ)/(rate · steps), on which aggregators that
        weigh lengths work as they do with other learners; or 'displacement', θ − φ. The rate is
        each variable's.
    """

    optimizer: str = "adam"
    beta_2: float = 0.999
    epsilon: float = 1e-8
    batch_size: int | None = 10
    test_batch_size: int | None = 5
    scale: str = "gradient"

    reference: ClassVar[str] = (
        "Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, arXiv 1803.02999, 2018"
    )
    equation: ClassVar[str] = "φ = θ after S steps on minibatches; outer gradient (θ − φ)/(αS)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "47.07 ± 0.26", _SECONDARY),
        Published("mini-ImageNet 5-way 5-shot, Convnet4", "62.74 ± 0.37", _SECONDARY),
        Published("mini-ImageNet 5-way 1-shot, Convnet4, transductive", "49.97 ± 0.32", _SECONDARY),
        Published("mini-ImageNet 5-way 5-shot, Convnet4, transductive", "65.99 ± 0.58", _SECONDARY),
    )
    traps: ClassVar[str] = (
        "It learns from 15 images a class in training whatever the test's shots; here from the "
        "support and the query set, so that the training's loss and accuracy are of images already "
        "seen. The original's Adam keeps its second moments from task to task (and restores them "
        "after an evaluation); here every task starts with none, so that its first step is the "
        "rate times the gradient's sign. The original pools with 'same' padding, which leaves 6×6 "
        "and not 5×5 pixels of an image of 84×84. Its non-transductive figures classify each query "
        "alone in one batch with the whole support set, its transductive ones one query a class "
        "together; 'inductive' and 'transductive' here come near them, no more. Its θ ← θ + "
        "ε·mean(φ − θ) is SGD of rate ε on displacements, of rate ε·α·S on the scale of gradients. "
        "learn2learn's reaches 60.0 and not 65.5 % at 5-shot."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("optimizer", self.optimizer in OPTIMIZERS, f"must be one of {', '.join(OPTIMIZERS)}")
        self.require("scale", self.scale in SCALES, f"must be one of {', '.join(SCALES)}")
        self.require("beta_2", 0 <= self.beta_2 < 1, "must be in [0, 1)")
        self.require("epsilon", self.epsilon > 0, "must be > 0")
        for name in ("batch_size", "test_batch_size"):
            size = getattr(self, name)
            fits = size is None or size >= 1
            self.require(name, fits, "must be at least 1, or None for all images")
        if self.inner_loop.steps < 1:
            raise ValueError(
                "Reptile learns from what the inner loop moves: InnerLoop.steps must be at least "
                f"1. Received: InnerLoop.steps = {self.inner_loop.steps}."
            )

    def trained(self, model: FunctionalModel) -> list[bool]:
        """Those that the inner loop moves, without a head that starts every task at zero."""
        moves = [rate > 0 for rate in self.rates(model)]
        return [a and b for a, b in zip(moves, super().trained(model))]

    def support_loss(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor):
        """Of the images whose indices are a step's inputs; of all of them where it has none."""
        everything = super().support_loss(context, meta, support, labels)

        def loss(params: Tensors, inputs: Tensors) -> tf.Tensor:
            if not inputs:
                return everything(params, inputs)
            images, chosen = (tf.gather(x, inputs[0]) for x in (support.images, labels))
            logits, _ = self.apply_to_support(context, meta, params, Prepared(images, None))
            return cross_entropy(logits, chosen)

        return loss

    def trajectory(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> list[Tensors]:
        """The parameters before the first step and after each."""
        rates = self.rates(context.model)
        moving = [i for i, rate in enumerate(rates) if rate]
        start = self.start(context, meta, support, labels)
        update, slots = self.update(context, meta, moving), []
        if self.optimizer == "adam":
            update, slots = self._adam([rates[i] for i in moving]), _adam_slots(start, moving)
        size = self.batch_size if context.training else self.test_batch_size
        steps, batches = self.inner_steps(context.steps), []
        if size is not None:
            count = labels.shape[0] or tf.size(labels)
            batches = minibatches(count, size, steps, context.task_key)
        return adapt(
            self.support_loss(context, meta, support, labels),
            start,
            settings=self.inner_loop,
            moving=moving,
            update=update,
            inputs=lambda step: batches[step : step + 1],
            slots=slots,
            steps=steps,
            differentiable=False,
        )

    def outer_gradient(self, context: Context, meta: Meta, episode: Episode) -> tuple[Meta, TaskResult]:
        """θ − φ in `scale`; the result is of the query set, which φ has learned from too."""
        images = tf.concat([episode.support_images, episode.query_images], 0)
        labels = tf.concat([episode.support_labels, episode.query_labels], 0)
        seen = context.model.prepare(images)
        params = self.trajectory(context, meta, seen, labels)[-1]
        steps = self.inner_steps(context.steps)
        gradients = [
            (theta - phi) / (rate * steps if self.scale == "gradient" else 1.0) if wanted else None
            for theta, phi, rate, wanted in zip(
                meta.network, params, self.rates(context.model), self.trained(context.model)
            )
        ]
        adapted = self.adapted(context, meta, params, seen)
        logits, state = self.predict(context, meta, adapted, episode.query_images)
        loss = cross_entropy(logits, episode.query_labels)
        return Meta(gradients, {}, []), TaskResult(loss, loss, logits, state)

    def _adam(self, rates: list[float]) -> Update:
        """Adam without its first moment: α g/(√(v/(1 − β₂ᵗ)) + ε), v ← β₂v + (1 − β₂)g²."""
        beta = self.beta_2

        def update(velocities: Tensors, _: Tensors, slots: Tensors) -> tuple[Tensors, Tensors]:
            power = beta * slots[-1]
            second = [beta * s + (1 - beta) * tf.square(v) for s, v in zip(slots, velocities)]
            changes = [
                rate * v / (tf.sqrt(s / (1 - power)) + self.epsilon) for rate, v, s in zip(rates, velocities, second)
            ]
            return changes, [*second, power]

        return update


def _adam_slots(params: Tensors, moving: Sequence[int]) -> Tensors:
    """The second moments before the first step, and the power β₂⁰."""
    return [*(tf.zeros_like(params[i]) for i in moving), tf.ones([], params[0].dtype)]
