# SPDX-License-Identifier: Apache-2.0
"""L2-penalised softmax regression, by Newton's method as one loop of the graph.

The minimum over W and b of
  c Σ_i −log softmax(Wᵀx_i + b)[y_i] + ½‖W‖²,
of which W lies in the span of the rows x_i: with XXᵀ = UΛUᵀ, W = XᵀUΛ^(−1/2) V, ‖W‖ = ‖V‖, and the problem in
V has the rows of UΛ^(1/2) for features, as many as there are rows. A number added to all of b changes nothing, so
½c(Σb)² is added, which the minimum with Σb = 0 makes 0. Each step solves for Newton's direction by
conjugate gradients and goes down it by halves (Armijo).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lwdgh.learners import conjugate_gradients
from tf_lwdgh.types import Tensors

_CG_STEPS = 30
_HALVINGS = 12
_DECREASE = 1e-4  # Armijo's


class _Point(NamedTuple):
    """A point, and the objective there."""

    params: Tensors  # V [R, N] and b [N]
    logits: tf.Tensor  # [B, N]
    gradient: Tensors
    going: tf.Tensor  # whether the last step found a way down


def fit(
    rows: tf.Tensor,
    labels: tf.Tensor,
    n_way: int | tf.Tensor,
    *,
    c: float,
    tolerance: float,
    most_steps: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Kernel [D, N] and bias [N], which sums to 0, at the minimum.

    Args:
      rows: [B, D].
      labels: [B] integers in [0, N).
      n_way: N.
      c: > 0: the weight of the losses' sum.
      tolerance: it ends where no entry of the gradient in (V, b) is larger,
      most_steps: or after so many Newton steps.
    """
    lengths, ways = _decomposed(rows)
    problem = _Problem(ways * lengths, tf.one_hot(labels, n_way, dtype=rows.dtype), c)

    def goes_on(number: tf.Tensor, at: _Point) -> tf.Tensor:
        steep = tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(g)) for g in at.gradient]))
        return (number < most_steps) & at.going & (steep > tolerance)

    _, end = tf.while_loop(
        goes_on, lambda number, at: (number + 1, problem.step(at)), (tf.constant(0), problem.start())
    )
    basis = tf.matmul(rows, ways * tf.math.divide_no_nan(tf.ones([], rows.dtype), lengths), transpose_a=True)
    return tf.matmul(basis, end.params[0]), end.params[1]


def _decomposed(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Λ^(1/2) [B], 0 where it is nothing but rounding, and U [B, B]."""
    values, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_b=True))
    rounding = np.finfo(rows.dtype.as_numpy_dtype).eps * tf.cast(tf.shape(rows)[0], rows.dtype)
    there = values > rounding * tf.reduce_max(values)
    return tf.sqrt(tf.where(there, values, 0)), vectors


class _Problem:
    """The objective of features [B, R] and one-hot labels [B, N]."""

    def __init__(self, features: tf.Tensor, targets: tf.Tensor, c: float) -> None:
        self._features, self._targets, self._c = features, targets, c

    def start(self) -> _Point:
        shape = tf.stack([tf.shape(self._features)[1], tf.shape(self._targets)[1]])
        kernel = tf.zeros(shape, self._features.dtype)
        kernel.set_shape([self._features.shape[1], self._targets.shape[1]])
        return self._at([kernel, tf.zeros_like(self._targets[0])], tf.zeros_like(self._targets))

    def _at(self, params: Tensors, logits: tf.Tensor, going: tf.Tensor | bool = True) -> _Point:
        wrong = self._c * (tf.nn.softmax(logits) - self._targets)
        slopes = self._back(wrong)
        gradient = [slopes[0] + params[0], slopes[1] + self._c * tf.reduce_sum(params[1])]
        return _Point(params, logits, gradient, tf.convert_to_tensor(going))

    def _forth(self, params: Tensors) -> tf.Tensor:
        return tf.matmul(self._features, params[0]) + params[1]

    def _back(self, logits: tf.Tensor) -> Tensors:
        return [tf.matmul(self._features, logits, transpose_a=True), tf.reduce_sum(logits, 0)]

    def step(self, at: _Point) -> _Point:
        chances = tf.nn.softmax(at.logits)

        def hessian(v: Tensors) -> Tensors:
            moved = chances * self._forth(v)
            curved = self._back(self._c * (moved - chances * tf.reduce_sum(moved, -1, keepdims=True)))
            return [v[0] + curved[0], curved[1] + self._c * tf.reduce_sum(v[1])]

        way = conjugate_gradients.solve(hessian, [-g for g in at.gradient], _CG_STEPS)
        change = self._forth(way)
        size = self._size(at, way, change)
        params = [p + size * w for p, w in zip(at.params, way)]
        return self._at(params, at.logits + size * change, size > 0)

    def _size(self, at: _Point, way: Tensors, change: tf.Tensor) -> tf.Tensor:
        """The longest of 1, ½, ¼ … that goes down enough; 0 where none does, but for rounding."""
        dtype = change.dtype
        every = tf.constant([0.5**i for i in range(_HALVINGS)], dtype)
        sizes = tf.reshape(every, [-1, 1, 1])
        here = self._value(at.logits[None], [p[None] for p in at.params])[0]
        params = [at.params[0] + sizes * way[0], at.params[1] + tf.reshape(every, [-1, 1]) * way[1]]
        there = self._value(at.logits + sizes * change, params)
        slope = tf.add_n([tf.reduce_sum(g * w) for g, w in zip(at.gradient, way)])
        rounding = 10 * np.finfo(dtype.as_numpy_dtype).eps * tf.abs(here)
        enough = there <= here + _DECREASE * every * slope + rounding
        first = tf.argmax(tf.cast(enough, tf.int32))
        return tf.where(tf.reduce_any(enough), tf.gather(every, first), 0)

    def _value(self, logits: tf.Tensor, params: Tensors) -> tf.Tensor:
        """The objective of several points: [P, B, N], and [P, R, N] and [P, N] -> [P]."""
        losses = -tf.reduce_sum(self._targets * tf.nn.log_softmax(logits), [1, 2])
        free = tf.square(tf.reduce_sum(params[1], -1))
        return self._c * (losses + 0.5 * free) + 0.5 * tf.reduce_sum(tf.square(params[0]), [1, 2])
