# SPDX-License-Identifier: Apache-2.0
"""What a learner is told beside the meta-parameters and the task."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Clock


class Context(NamedTuple):
    """How a learner is asked.

    Attributes:
      model: the network's functional view.
      training: whether an outer gradient is wanted; also whether batch_norm='global' takes batches.
      n_way: the task's ways N; None: the network's.
      steps: inner steps, where they are not the training's.
      clock: where the run stands, for what anneals; None after training: as at its end.
      key: [2] int64, a seed of this task for tf.random.stateless_* with alg='philox'.
      coupling: scalar, what Learner.couple gave this task; None where the learner couples nothing.
      loss_scale: objectives are multiplied and gradients divided by it, for float16.
    """

    model: FunctionalModel
    training: bool = False
    n_way: int | tf.Tensor | None = None
    steps: int | None = None
    clock: Clock | None = None
    key: tf.Tensor | None = None
    coupling: tf.Tensor | None = None
    loss_scale: float = 1.0

    @property
    def ways(self) -> int | tf.Tensor:
        """N."""
        return self.model.n_way if self.n_way is None else self.n_way

    @property
    def task_key(self) -> tf.Tensor:
        """The key; a fixed one where none is given, so that a prediction can be repeated."""
        return tf.zeros([2], tf.int64) if self.key is None else self.key
