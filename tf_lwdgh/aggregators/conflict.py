"""The Gradient Conflict Index of each task in each unit.

Paper eq. 3, in the form that is consistent: GCI_k = ‖g_k‖ (1 - cos(g_k, ḡ)), ḡ the mean over all tasks.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.trees import Units
from tf_lwdgh.types import Tensors


def gradient_conflict_index(gradients: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """GCI of each task.

    Args:
      gradients: [T, D], one row a task.
      mean: [D], the mean over the tasks of all replicas.

    Returns:
      [T], at least 0; where a gradient or the mean is 0 the cosine counts as 0.
    """
    cosine = trees.cosines(gradients, mean)
    return tf.maximum(trees.safe_norm(gradients) * (1 - cosine), 0)


def measure(gradients: Tensors, mean: Tensors, units: Units, collective: Collective) -> tf.Tensor:
    """GCI of every unit, over the tasks of all replicas: [U, K]."""
    indices = []
    for members in units.values():
        rows = trees.flatten_unit(gradients, members)
        reference = trees.flatten_unit([g[None] for g in mean], members)[0]
        indices.append(gradient_conflict_index(rows, reference))
    return collective.gather(tf.stack(indices))
