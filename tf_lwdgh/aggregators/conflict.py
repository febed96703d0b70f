"""The Gradient Conflict Index of each task in each unit, and sums of the gradients by weights.

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


def uniform_weights(gradients: Tensors, collective: Collective) -> tf.Tensor:
    """1/K for each of this replica's T tasks, K the tasks of all replicas: [T]."""
    n_tasks = tf.shape(gradients[0])[0]
    share = 1 / tf.cast(n_tasks * collective.size, gradients[0].dtype)
    return tf.fill([n_tasks], share)


def mean_gradients(gradients: Tensors, collective: Collective) -> Tensors:
    """ḡ, the mean over the tasks of all replicas: one tensor a variable."""
    weights = uniform_weights(gradients, collective)
    return collective.sum([trees.weighted_sum(weights, g) for g in gradients])


def measure(
    gradients: Tensors, mean: Tensors, units: Units, collective: Collective
) -> dict[str, tf.Tensor]:
    """GCI [K] of every unit, over the tasks of all replicas."""
    indices = []
    for members in units.values():
        rows = trees.flatten_unit(gradients, members)
        reference = trees.flatten_unit([g[None] for g in mean], members)[0]
        indices.append(gradient_conflict_index(rows, reference))
    everyone = tf.unstack(collective.gather(tf.stack(indices)), num=len(units))
    return dict(zip(units, everyone))


def conflict_metrics(gci: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """'gci/<unit>': Σ_k GCI_k of each unit, and 'gci/total', their sum."""
    metrics = {f"gci/{unit}": tf.reduce_sum(value) for unit, value in gci.items()}
    metrics["gci/total"] = tf.add_n(list(metrics.values()))
    return metrics
