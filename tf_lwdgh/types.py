"""The values that pass between the parts: plain tuples of tensors.

Shape letters, used throughout the package: T tasks of a meta-batch, N way, K shot, Q queries a class,
H, W, C an image's height, width and channels.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

Tensors = list[tf.Tensor]  # one tensor a variable, in the order of FunctionalModel.variables


class Episode(NamedTuple):
    """One few-shot task; a meta-batch is an Episode whose tensors have one more leading axis T.

    The support set is ordered class by class, as is the query set.
    """

    support_images: tf.Tensor  # [N*K, H, W, C] float
    support_labels: tf.Tensor  # [N*K] int32 in [0, N)
    query_images: tf.Tensor  # [N*Q, H, W, C] float
    query_labels: tf.Tensor  # [N*Q] int32 in [0, N)


class TaskResult(NamedTuple):
    """What a learner makes of one task."""

    loss: tf.Tensor  # scalar: the query loss, in nats
    logits: tf.Tensor  # [N*Q, N]: the query set's
    state: Tensors  # the batch statistics of the support set, for the moving averages


class Aggregated(NamedTuple):
    """One update made of the tasks' gradients."""

    gradients: Tensors  # one a variable, of the variable's shape, on the scale of the mean
    metrics: dict[str, tf.Tensor]  # 'group/name' -> scalar, or one value a task
