# SPDX-License-Identifier: Apache-2.0
"""iMAML (Rajeswaran et al. 2019): the outer gradient from where the inner loop ends, not its way.

A task learns φ = argmin L_S(φ) + (λ/2)‖φ − θ‖². There ∇L_S(φ) + λ(φ − θ) = 0, so that by the
implicit function theorem, with H the Hessian of L_S at φ,
  dφ/dθ = (I + H/λ)⁻¹,   g = x  with  (I + H/λ) x = ∇L_Q(φ).
Conjugate gradients solve that with products H v alone, each a gradient of ∇L_S·v. What doesn't move
in the inner loop, γ (BatchNorm's scales and offsets), has g = ∇_γ L_Q − (1/λ) ∇_γ(∇_φ L_S·x).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import differentiate
from tf_lwdgh.learners.conjugate_gradients import solve
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.learners.inner_loop import adapt, traced_once
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.functional import Prepared
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

Products = Callable[[Tensors], Tensors]


@config.configurable
@dataclasses.dataclass(frozen=True)
class IMAML(GradientLearner):
    """The learner. No gradient goes through its steps: InnerLoop.second_order and .memory are idle.

    Attributes:
      proximity: λ > 0, how strongly each step pulls back to θ.
      cg_steps: of conjugate gradients, at least 1; 1 is the gradient ∇L_Q(φ) itself, but for its
        length.
    """

    proximity: float = 0.5
    cg_steps: int = 5

    reference: ClassVar[str] = "Rajeswaran, Finn, Kakade, Levine: Meta-Learning with Implicit Gradients, NeurIPS 2019"
    equation: ClassVar[str] = "φ = argmin L_S + (λ/2)‖φ − θ‖²; outer gradient (I + H_S/λ)⁻¹∇L_Q(φ)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "49.30 ± 1.88", "secondary tables"),
    )
    traps: ClassVar[str] = (
        "The gradient is that of the minimum: with few or small inner steps φ is far from it. "
        "Where L_S is so curved downwards that I + H/λ isn't positive definite, φ is no minimum; "
        "conjugate gradients then stop at the last good iterate, at first ∇L_Q(φ). A minimum may "
        "lie on an edge of ReLU or max-pooling, which steps jump across for ever and where the "
        "theorem doesn't hold. The inner rate must be below 2/(λ + the largest curvature). "
        "Settings are those of hypertorch: λ 0.5, 10 steps at 0.1, 16 tasks. The authors' code has "
        "no network for mini-ImageNet; for Omniglot it pulls to θ once, after 16 plain steps, and "
        "solves with (1 + damping)I + H/(λ + 10)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("proximity", 0 < self.proximity < math.inf, "must be > 0, finite")
        self.require("cg_steps", self.cg_steps >= 1, "must be at least 1")
        for name in ("weight_decay", "sharpness"):
            value = getattr(self.inner_loop, name)
            if value:
                raise ValueError(
                    "IMAML's inner loop lowers the support loss and the distance to the start, "
                    f"nothing else: InnerLoop.{name} must be 0. "
                    f"Received: InnerLoop.{name} = {value!r}."
                )

    def trajectory(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> list[Tensors]:
        """The parameters before the first step and after each, of L_S + (λ/2)‖φ − θ‖²."""
        moving = [i for i, rate in enumerate(self.rates(context.model)) if rate]
        start = self.start(context, meta, support, labels)
        plain = self.support_loss(context, meta, support, labels)

        def pulled(params: Tensors, inputs: Tensors) -> tf.Tensor:
            away = [tf.reduce_sum(tf.square(params[i] - start[i])) for i in moving]
            return plain(params, inputs) + 0.5 * self.proximity * tf.add_n(away)

        return adapt(
            pulled,
            start,
            settings=self.inner_loop,
            moving=moving,
            update=self.update(context, meta, moving),
            steps=context.steps,
            differentiable=False,
        )

    def outer_gradient(self, context: Context, meta: Meta, episode: Episode) -> tuple[Meta, TaskResult]:
        """By the implicit function theorem at the φ that the inner loop came to."""
        support = context.model.prepare(episode.support_images)
        phi = self.trajectory(context, meta, support, episode.support_labels)[-1]

        def query_loss(at: Meta) -> TaskResult:
            adapted = self.adapted(context, meta, at.network, support)
            logits, state = self.predict(context, meta, adapted, episode.query_images)
            loss = cross_entropy(logits, episode.query_labels)
            return TaskResult(loss, loss, logits, state)

        everything = [True] * len(phi)
        direct, result = differentiate(query_loss, meta._replace(network=phi), everything, context.loss_scale)
        loss = self.support_loss(context, meta, support, episode.support_labels)
        gradient = self._implicit(context, lambda at: loss(at, []), phi, direct.network)
        wanted = self.trained(context.model)
        return Meta([g if yes else None for g, yes in zip(gradient, wanted)], {}, []), result

    def _implicit(
        self,
        context: Context,
        loss: Callable[[Tensors], tf.Tensor],
        phi: Tensors,
        direct: Tensors,
    ) -> Tensors:
        """The outer gradient in θ and γ, from ∇L_Q at φ."""
        rates = self.rates(context.model)
        moving = [i for i, rate in enumerate(rates) if rate]
        if not moving or self.inner_steps(context.steps) == 0:
            return direct
        products = curvature_products(loss, phi, moving, context.loss_scale)

        def matrix(v: Tensors) -> Tensors:
            curved = products(v)
            return [a + curved[i] / self.proximity for a, i in zip(v, moving)]

        solution = solve(matrix, [direct[i] for i in moving], self.cg_steps)
        mixed = products(solution)
        gradient = [d - m / self.proximity for d, m in zip(direct, mixed)]
        for i, x in zip(moving, solution):
            gradient[i] = x
        return gradient


def curvature_products(
    loss: Callable[[Tensors], tf.Tensor], at: Tensors, moving: Sequence[int], scale: float = 1.0
) -> Products:
    """From v, one tensor a moving parameter, to ∇(∇_moving L · v) in all parameters.

    In the moving ones that is H v; in the others the mixed second derivatives times v.

    Args:
      loss: a function of all parameters.
      at: where.
      moving: positions of the parameters that v is of.
      scale: the loss is multiplied and the product divided by it, for float16.
    """
    zero = tf.UnconnectedGradients.ZERO

    @traced_once
    def products(v: Tensors) -> Tensors:
        params = [tf.identity(p) for p in at]
        with tf.GradientTape() as outer:
            outer.watch(params)
            with tf.GradientTape() as inner:
                inner.watch(params)
                value = scale * loss(params)
            slopes = inner.gradient(value, [params[i] for i in moving], unconnected_gradients=zero)
            along = tf.add_n([tf.reduce_sum(g * x) for g, x in zip(slopes, v)])
        return [g / scale for g in outer.gradient(along, params, unconnected_gradients=zero)]

    return products
