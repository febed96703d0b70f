# SPDX-License-Identifier: Apache-2.0
"""The Gradient Conflict Index of each task in each unit.

Paper eq. 3, in the form that is consistent: GCI_k = ‖g_k‖ (1 - cos(g_k, ḡ)), ḡ the mean over all tasks.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.trees import Measured


def gradient_conflict_index(gradients: Measured, mean: Measured) -> tf.Tensor:
    """GCI of each task.

    Args:
      gradients: [T, D], one row a task.
      mean: [D], the mean over the tasks of all replicas.

    Returns:
      [T], at least 0; where a gradient or the mean is 0 the cosine counts as 0.
    """
    return tf.maximum(gradients.norms * (1 - trees.cosines(gradients, mean)), 0)
