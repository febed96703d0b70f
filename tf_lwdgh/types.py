# SPDX-License-Identifier: Apache-2.0
"""The values that pass between the rooms: plain tuples of tensors, and the run's clock.

Shape letters, used throughout the package: T tasks of a meta-batch on one replica, K tasks on all
replicas, U units, N way, K shot (where ways are spoken of), Q queries a class, D parameters of a unit,
H, W, C an image's height, width and channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

Tensors = list[tf.Tensor]  # one tensor a variable, in a fixed order of variables


class Episode(NamedTuple):
    """One few-shot task; a meta-batch is an Episode whose tensors have one more leading axis T.

    The support set is ordered class by class, as is the query set; by the images' own classes, where
    some labels are wrong (LabelNoise). Where tasks vary in ways and shots a class has its own number of
    support images, and a meta-batch's tensors are RaggedTensors, ragged along their second axis.

    Classes of a split are numbered from 0; of a mixture set by set. Where they count with their rotations,
    class c of M, turned r times, is number c + rM.
    """

    support_images: tf.Tensor  # [N*K, H, W, C] float
    support_labels: tf.Tensor  # [N*K] int32 in [0, N)
    query_images: tf.Tensor  # [N*Q, H, W, C] float
    query_labels: tf.Tensor  # [N*Q] int32 in [0, N)
    class_ids: tf.Tensor | tuple = ()  # [N] int32: of label i, the class's number; () where not known

    @property
    def varies(self) -> bool:
        """Whether the tasks of this meta-batch vary in ways and shots."""
        return isinstance(self.support_labels, tf.RaggedTensor)

    @property
    def n_tasks(self) -> tf.Tensor:
        """T of this meta-batch, a scalar int32."""
        if self.varies:
            return self.support_labels.nrows(tf.int32)
        return tf.shape(self.support_labels)[0]

    @property
    def ways(self) -> tf.Tensor:
        """N of this task, a scalar int32."""
        return tf.reduce_max(self.support_labels) + 1


class Meta(NamedTuple):
    """What the tasks of a learner share: all that the outer loop trains, and BatchNorm's averages.

    The same structure holds outer gradients; then `state` is empty, and None stands for no gradient.
    """

    network: Tensors  # one a variable of the network, in the order of FunctionalModel.variables
    own: dict[str, tf.Tensor]  # the learner's own meta-parameters by name
    state: Tensors  # BatchNorm's averages, in the order of FunctionalModel.state_variables


class TaskResult(NamedTuple):
    """What a learner makes of one training task."""

    objective: tf.Tensor  # scalar: what the outer gradient is that of
    loss: tf.Tensor  # scalar: the query loss, in nats
    logits: tf.Tensor  # [N*Q, N], or more columns after those: the query set's
    state: Tensors  # the batch statistics for the moving averages of batch_norm='global'
    told: Sequence[tf.Tensor] = ()  # what the learner's `after_step` wants to know, see `Learner.tells`


class Aggregated(NamedTuple):
    """One update made of the tasks' gradients."""

    gradients: Tensors  # one a variable, of the variable's shape, on the scale of the mean
    weights: dict[str, tf.Tensor]  # a unit's name -> [K], where the update is a weighted sum; else {}
    metrics: dict[str, tf.Tensor]  # 'group/name' -> scalar, or one value a task


class Published(NamedTuple):
    """An accuracy that somebody published."""

    setting: str  # such as 'mini-ImageNet 5-way 1-shot, Convnet4'
    accuracy: str  # in per cent, such as '48.70 ± 1.84'
    source: str


def stream_key(*parts: int | str) -> tuple[int, int]:
    """Two 32-bit words that depend on every part: the key of a stateless random stream."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 4], "little", signed=True) for i in (0, 4))
    return first, second


class Clock:
    """Where a run stands: what schedules and random draws may depend on.

    Attributes:
      step: scalar int64, the global meta-step, counted from 0.
      epoch: scalar int64, counted from 0.
      epochs: of the whole run.
      steps_per_epoch: meta-steps of an epoch.
      seed: the run's.
    """

    def __init__(self, step: tf.Tensor, *, steps_per_epoch: int, epochs: int, seed: int) -> None:
        self.step = tf.cast(step, tf.int64)
        self.epoch = self.step // steps_per_epoch
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.seed = seed

    def key(self, stream: str) -> tf.Tensor:
        """The seed of one random stream at this step, a pure function of (seed, stream, step).

        The same after a restart, and on every replica.

        Args:
          stream: the stream's name.

        Returns:
          [2] int64, for tf.random.stateless_* with alg='philox'.
        """
        key = tf.constant(stream_key(self.seed, stream), tf.int32)
        return tf.random.fold_in(tf.cast(key, tf.int64), self.step, alg="philox")
