# SPDX-License-Identifier: Apache-2.0
"""The outer gradients of a meta-batch's tasks, and what is known of them, each computed once, when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lwdgh.aggregators import conflict, trees
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.trees import Measured, Units
from tf_lwdgh.types import Tensors


def _once(compute: Callable[[TaskGradients], Any]) -> property:
    """A property that is computed when it is first asked for.

    Not functools.cached_property: before Python 3.12 that holds a lock while it computes, one for all
    instances, and the replicas of a strategy, a thread each, wait within it for one another.
    """

    @functools.wraps(compute)
    def value(self: TaskGradients) -> Any:
        if compute.__name__ not in self._known:
            self._known[compute.__name__] = compute(self)
        return self._known[compute.__name__]

    return property(value)


class Gram(NamedTuple):
    """Inner products of the tasks' gradients in every unit, in float64.

    With s = scale, the largest norm of the unit's gradients, g_i·g_j = s² matrix[i, j]; so the matrix
    holds numbers of at most 1, whatever the gradients' scale. Where all gradients are 0, so is it.
    """

    matrix: tf.Tensor  # [U, K, K], symmetric, positive semi-definite up to rounding
    scale: tf.Tensor  # [U]


class TaskGradients:
    """The gradients of the tasks.

    Everything but `rows` and `losses` ranges over the K tasks of all replicas and is the same on each.

    Attributes:
      rows: one tensor [T, *shape] a variable: this replica's tasks.
      losses: [T], the query losses of this replica's tasks.
      units: the partition of the variables that are treated together. Variables of no unit get the mean.
      collective: sums over the replicas.
    """

    def __init__(self, rows: Tensors, *, losses: tf.Tensor, units: Units, collective: Collective | None = None) -> None:
        self.rows, self.losses, self.units = list(rows), losses, units
        self.collective = collective or Collective()
        self._known: dict[str, Any] = {}

    @property
    def n_tasks(self) -> int | tf.Tensor:
        """K; a Python integer where it is known when tracing."""
        here = self.rows[0].shape[0]
        here = tf.shape(self.rows[0])[0] if here is None else here
        return here * self.collective.size

    @_once
    def mean(self) -> Tensors:
        """ḡ, one tensor a variable; an all-reduce of the gradient's size."""
        share = 1 / tf.cast(self.n_tasks, self.rows[0].dtype)
        weights = tf.fill([tf.shape(self.rows[0])[0]], share)
        return self.collective.sum([trees.weighted_sum(weights, g) for g in self.rows])

    @_once
    def all_losses(self) -> tf.Tensor:
        """[K]."""
        return self.collective.gather(self.losses)

    @_once
    def unit_rows(self) -> list[Measured]:
        """Each unit's rows [T, D]: this replica's tasks."""
        return [trees.measured(trees.flatten_unit(self.rows, m)) for m in self.units.values()]

    @_once
    def unit_means(self) -> list[Measured]:
        """Each unit's part of ḡ, [D]."""
        return trees.measured_units(self.mean, self.units)

    @_once
    def norms(self) -> tf.Tensor:
        """The norm of every task's gradient in every unit: [U, K]."""
        return self.collective.gather(tf.stack([rows.norms for rows in self.unit_rows]))

    @_once
    def gci(self) -> tf.Tensor:
        """The Gradient Conflict Index of every task in every unit: [U, K]."""
        pairs = zip(self.unit_rows, self.unit_means)
        return self.collective.gather(tf.stack([conflict.gradient_conflict_index(rows, mean) for rows, mean in pairs]))

    @_once
    def gram(self) -> Gram:
        """Inner products of all pairs of tasks.

        With R replicas the rows of one replica after the other are sent to all, so that no replica ever
        holds those of more than two: R all-reduces of T times the gradient's size.
        """
        scale = tf.reduce_max(self.norms, -1)
        rows = [
            tf.math.divide_no_nan(r.vectors, s) for r, s in zip(self.unit_rows, tf.unstack(scale, num=len(self.units)))
        ]
        mine = [tf.cast(r, tf.float64) for r in rows]
        blocks = [
            tf.stack([tf.matmul(tf.cast(t, tf.float64), m, transpose_b=True) for t, m in zip(theirs, mine)])
            for theirs in self.collective.in_turn(rows)
        ]
        matrix = self.collective.gather(tf.concat(blocks, 1))  # [U, K, T] -> [U, K, K]
        symmetric = 0.5 * (matrix + tf.linalg.matrix_transpose(matrix))
        return Gram(symmetric, tf.cast(scale, tf.float64))

    def weighted(self, weights: tf.Tensor) -> Tensors:
        """Σ_k weights[u, k] g_k in each unit u, over all replicas; the mean where there is no unit.

        Args:
          weights: [U, K].

        Returns:
          One tensor a variable.
        """
        mine = self.collective.mine(tf.cast(weights, self.rows[0].dtype))
        share = 1 / tf.cast(self.n_tasks, self.rows[0].dtype)
        outside = tf.fill([tf.shape(self.rows[0])[0]], share)
        of_variable = dict.fromkeys(range(len(self.rows)), outside)
        for u, members in enumerate(self.units.values()):
            of_variable |= dict.fromkeys(members, mine[u])
        return self.collective.sum([trees.weighted_sum(of_variable[i], g) for i, g in enumerate(self.rows)])

    def or_mean(self, update: Tensors) -> Tensors:
        """What a method that works on coordinates made; the mean where a variable belongs to no unit.

        Args:
          update: one tensor a variable.

        Returns:
          One tensor a variable.
        """
        inside = {i for members in self.units.values() for i in members}
        if len(inside) == len(update):
            return update
        return [u if i in inside else m for i, (u, m) in enumerate(zip(update, self.mean))]

    def by_unit(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """values[u] by the name of unit u."""
        return dict(zip(self.units, tf.unstack(values, num=len(self.units))))
