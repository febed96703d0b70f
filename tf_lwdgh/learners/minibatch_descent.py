# SPDX-License-Identifier: Apache-2.0
"""SGD with momentum and dampening on minibatches of a few rows, as one loop of the graph.

Of the minibatch's mean loss the gradient g, then
  v_1 = g + λθ,   v_{s+1} = μ v_s + (1 − d)(g + λθ),   θ_{s+1} = θ_s − α v_{s+1},
in which, as in PyTorch, the first step is not dampened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tf_lwdgh.types import Tensors

Losses = Callable[[Tensors, tf.Tensor, tf.Tensor], tf.Tensor]  # (parameters, rows, labels) -> [b]


@dataclasses.dataclass(frozen=True)
class Descent:
    """Settings: rate α, momentum μ, dampening d, weight decay λ; epochs of minibatches of so many rows."""

    rate: float
    momentum: float
    dampening: float
    weight_decay: float
    epochs: int
    minibatch: int


def orders(count: tf.Tensor, epochs: int, key: tf.Tensor) -> tf.Tensor:
    """The order of the rows in each epoch, [epochs, count] int32, by a key [2] int64."""
    uniform = tf.random.stateless_uniform([epochs, count], key, dtype=tf.float64, alg="philox")
    return tf.argsort(uniform, stable=True)


def descend(
    losses: Losses,
    start: Tensors,
    rows: tf.Tensor,
    labels: tf.Tensor,
    settings: Descent,
    order: tf.Tensor,
) -> Tensors:
    """Parameters after all epochs.

    Args:
      losses: one loss a row.
      start: the parameters before.
      rows: [B, D].
      labels: [B].
      settings: see there.
      order: of `orders`, [epochs, B]; an epoch's last minibatch has what is left.
    """
    count, size = tf.shape(rows)[0], settings.minibatch
    batches = (count + size - 1) // size
    order = tf.pad(order, [[0, 0], [0, batches * size - count]], constant_values=-1)
    order = tf.reshape(order, [settings.epochs * batches, size])

    def step(number: tf.Tensor, params: Tensors, velocities: Tensors):
        chosen = order[number]
        there = tf.cast(chosen >= 0, rows.dtype)
        chosen = tf.maximum(chosen, 0)
        with tf.GradientTape() as tape:
            tape.watch(params)
            each = losses(params, tf.gather(rows, chosen), tf.gather(labels, chosen))
            loss = tf.reduce_sum(there * each) / tf.reduce_sum(there)
        gradients = tape.gradient(loss, params, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        share = tf.where(number > 0, tf.constant(1 - settings.dampening, rows.dtype), 1)
        velocities = [
            settings.momentum * v + share * (g + settings.weight_decay * p)
            for v, g, p in zip(velocities, gradients, params)
        ]
        params = [p - settings.rate * v for p, v in zip(params, velocities)]
        return number + 1, params, velocities

    last = settings.epochs * batches
    begin = (tf.constant(0), list(start), [tf.zeros_like(p) for p in start])
    return tf.while_loop(lambda number, *_: number < last, step, begin)[1]
