# SPDX-License-Identifier: Apache-2.0
"""Gradient surgery (Yu et al. 2020): each task's gradient without what conflicts with the others'."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import Gram
from tf_lwdgh.types import Published


@config.configurable
@dataclasses.dataclass(frozen=True)
class PCGrad(GramAggregator):
    """For each task i, over the others j in random order: where g_i·g_j < 0, g_i -= (g_i·g_j/‖g_j‖²) g_j.

    The g_j are the original ones; the mean of the projected g_i is the update (published: their sum). The
    order is drawn anew for each task and meta-step, from the run's seed, and is that of all units.
    """

    reference: ClassVar[str] = "Yu et al.: Gradient Surgery for Multi-Task Learning, NeurIPS 2020"
    equation: ClassVar[str] = "g_i ← g_i − (g_i·g_j/‖g_j‖²) g_j where g_i·g_j < 0; d = mean of the g_i"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, MAML, Convnet4", "50.93 ± 1.88", "the LWDGH paper, Table 1"),
        Published("mini-ImageNet 5-way 5-shot, MAML, Convnet4", "65.93 ± 0.95", "the LWDGH paper, Table 1"),
    )
    traps: ClassVar[str] = (
        "Published implementations return the sum, and in the authors' own the shuffling has no effect."
    )

    def weights(self, gram: Gram, *, losses: tf.Tensor, key: tf.Tensor) -> tf.Tensor:

        matrix = gram.matrix
        count = tf.shape(matrix)[-1]
        squares = tf.linalg.diag_part(matrix)
        # Independent keys of one order each: row i is a random order of the tasks.
        order = tf.argsort(tf.random.stateless_uniform([count, count], key, dtype=tf.float64, alg="philox"))

        def project(position, rows):
            """rows[u, i] are the coefficients of the projected g_i in the original gradients."""
            chosen = tf.one_hot(order[:, position], count, dtype=matrix.dtype)  # [K, K]
            chosen *= 1 - tf.eye(count, dtype=matrix.dtype)  # not on itself
            products = tf.reduce_sum(tf.matmul(rows, matrix) * chosen, -1)
            share = tf.math.divide_no_nan(tf.minimum(products, 0), tf.linalg.matvec(chosen, squares))
            return position + 1, rows - share[..., None] * chosen

        start = tf.eye(count, batch_shape=[tf.shape(matrix)[0]], dtype=matrix.dtype)
        loop = (tf.constant(0), start)
        _, rows = tf.while_loop(lambda p, _: p < count, project, loop, parallel_iterations=1)
        return tf.reduce_mean(rows, 1)
