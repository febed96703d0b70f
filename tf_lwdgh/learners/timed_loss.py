# SPDX-License-Identifier: Apache-2.0
"""A part of an objective that counts at some meta-steps only, and costs nothing at the others."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.types import Tensors


def loss_where(
    wanted: tf.Tensor,
    loss: Callable[[Tensors], tf.Tensor],
    at: Tensors,
    *,
    loss_scale: float = 1.0,
) -> tf.Tensor:
    """loss(at) where it is wanted, else 0; differentiable once, in `at`.

    The gradient is computed beside the value, in the same branch of the graph. A gradient through
    the branch would hand all its intermediate results out, which takes their memory and can't run
    as one batch of tasks.

    Args:
      wanted: scalar bool, the same for all tasks.
      loss: from tensors to a scalar; what it captures gets no gradient.
      at: the tensors.
      loss_scale: the loss is multiplied and its gradient divided by it, for float16.
    """

    def value_and_gradient(fixed: Tensors) -> Tensors:
        inputs = [tf.identity(x) for x in fixed]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss_scale * loss(inputs)
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(value, inputs, unconnected_gradients=zero)
        return [x / loss_scale for x in (value, *found)]

    @tf.custom_gradient
    def run(*inputs: tf.Tensor):
        fixed = [tf.stop_gradient(x) for x in inputs]

        def nothing() -> Tensors:
            return [tf.zeros([], inputs[0].dtype), *(tf.zeros_like(x) for x in fixed)]

        value, *slopes = tf.cond(wanted, lambda: value_and_gradient(fixed), nothing)
        return value, lambda upstream: [upstream * g for g in slopes]

    return run(*at)
