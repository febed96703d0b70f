# SPDX-License-Identifier: Apache-2.0
"""What the learners share that train on the numbers of classes among all training classes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_lwdgh.learners.base import Learner
from tf_lwdgh.types import Episode


@dataclasses.dataclass(frozen=True)
class OfTrainingClasses(Learner):
    """A learner that owns something for each of the n_classes training classes."""

    n_classes: int | None = None

    numbers_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("n_classes", self.n_classes is None or self.n_classes >= 2, "must be at least 2")

    def for_classes(self, n_classes: int) -> OfTrainingClasses:
        fits = self.n_classes in (None, n_classes)
        self.require("n_classes", fits, f"must be that of the training classes, {n_classes}, or None")
        return dataclasses.replace(self, n_classes=n_classes)

    def columns(self, episode: Episode) -> tf.Tensor:
        """All training classes [n_classes], those of a task first and in its order.

        Raises:
          ValueError: the number of training classes, or those of the task, are not known.
        """
        class_ids, n_classes = episode.class_ids, self.n_classes
        if n_classes is None or isinstance(class_ids, tuple):
            raise ValueError(
                f"{type(self).__name__}.n_classes must be known to train, and the classes of each task: "
                f"both come with a data set. Received: n_classes = {n_classes}."
            )
        members = tf.one_hot(class_ids, n_classes, dtype=tf.int32)
        ways = tf.shape(class_ids)[0]
        place = tf.reduce_sum(members * tf.range(ways)[:, None], 0)
        place += ways * (1 - tf.reduce_sum(members, 0))
        return tf.argsort(place, stable=True)
