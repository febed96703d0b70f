# SPDX-License-Identifier: Apache-2.0
"""Gradients for the aggregators' tests: two layers of two variables; calls to aggregate them."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from tf_lwdgh.aggregators import Aggregator, trees
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Aggregated, Clock

NAMES = ["conv/kernel", "conv/bias", "head/kernel", "head/bias"]
LAYERS = ["conv", "conv", "head", "head"]
SHAPES = [(2, 3), (5,), (4, 2), (6,)]
SIZES = [int(np.prod(s)) for s in SHAPES]
J = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])  # the example that the values were published for
SEED = 3


def random_rows(n_tasks: int, seed: int = 0, dtype=np.float64) -> list[np.ndarray]:
    """Gradients of all four variables, [K, *shape] each; about every second pair conflicts."""
    r = np.random.default_rng((seed, n_tasks))
    return [r.normal(size=(n_tasks, *s)).astype(dtype) + 0.2 for s in SHAPES]


def random_losses(n_tasks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, n_tasks, 1)).uniform(0.2, 2.0, n_tasks)


def units(kind: str, names=NAMES, layers=LAYERS) -> trees.Units:
    return trees.make_units(kind, names, layers)


def clock(step=0, seed: int = SEED) -> Clock:
    return Clock(step, steps_per_epoch=10, epochs=10, seed=seed)


def tasks(rows, losses=None, units_=None, collective=None) -> TaskGradients:
    """TaskGradients of arrays [K, *shape]; each variable is its own unit unless told otherwise."""
    rows = [tf.convert_to_tensor(g) for g in rows]
    losses = np.ones(rows[0].shape[0]) if losses is None else losses
    units_ = {f"v{i}": [i] for i in range(len(rows))} if units_ is None else units_
    losses = tf.cast(losses, rows[0].dtype)
    return TaskGradients(rows, losses=losses, units=units_, collective=collective)


def aggregate(aggregator: Aggregator, rows, losses=None, units_=None, step=0) -> Aggregated:
    """What the aggregator makes of arrays [K, *shape], run eagerly."""
    return aggregator(tasks(rows, losses, units_), clock(tf.constant(step, tf.int64)))


@functools.cache
def compiled(aggregator: Aggregator, kind: str = "layer"):
    """A graph (step, losses [K], *rows [K, *shape] float64) -> Aggregated, for any K."""
    specs = [tf.TensorSpec([None, *shape], tf.float64) for shape in SHAPES]

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.float64), *specs],
    )
    def run(step, losses, *rows):
        return aggregator(tasks(rows, losses, units(kind)), clock(step))

    return run


def flat(tensors, members) -> np.ndarray:
    """One unit's rows [K, D] of arrays [K, *shape]."""
    return np.concatenate([np.reshape(tensors[i], (len(tensors[i]), -1)) for i in members], 1)


def flat_update(update, members) -> np.ndarray:
    """One unit's update [D] of tensors [*shape]."""
    return np.concatenate([np.ravel(update[i]) for i in members])
