# SPDX-License-Identifier: Apache-2.0
"""Wrong labels in the support sets of training tasks, to study what they do to training.

A pure function of (seed, step, task), with a random stream of its own: the same wrong labels after a
restart, and images and classes as they are without it.
"""

from __future__ import annotations

import dataclasses
import fractions
import math
import numbers

import tensorflow as tf

from tf_lwdgh import config as gin_config

_PHILOX = "philox"
_TASK, _PLACES, _SHIFTS = 0, 1, 2  # the independent random streams of a task


@gin_config.configurable
@dataclasses.dataclass(frozen=True)
class LabelNoise:
    """How many labels of training tasks are wrong. Query labels, validation and tests stay right.

    Attributes:
      share_of_labels: of the N*K support labels of a corrupted task exactly this share, rounded to the
        nearest number (halves up), are wrong: those many, drawn without replacement, become the label
        of another class of the task, each of the other N - 1 equally likely. 0: none.
      share_of_tasks: the probability that a training task is corrupted, each on its own.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    share_of_labels: float = 0.0
    share_of_tasks: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1:
                raise ValueError(
                    f"LabelNoise.{field.name} must be a number from 0 to 1. "
                    f"Received: LabelNoise.{field.name} = {value!r}."
                )

    @property
    def on(self) -> bool:
        """Whether any label is changed."""
        return self.share_of_labels > 0 and self.share_of_tasks > 0

    def count(self, n_labels: int) -> int:
        """How many of a corrupted task's n_labels support labels are wrong.

        Raises:
          ValueError: none, though some should be.
        """
        exact = fractions.Fraction(repr(float(self.share_of_labels))) * n_labels
        count = math.floor(exact + fractions.Fraction(1, 2))
        if self.on and count == 0:
            raise ValueError(
                "LabelNoise.share_of_labels must be 0 or make at least one label of a task wrong: at "
                f"least {0.5 / n_labels:g} with {n_labels} support labels. "
                f"Received: LabelNoise.share_of_labels = {self.share_of_labels!r}."
            )
        return count

    def apply(self, labels: tf.Tensor, n_way: int, key: tf.Tensor) -> tf.Tensor:
        """The labels of one task, some of them wrong.

        Args:
          labels: [N*K] int32 in [0, N), a static shape.
          n_way: N.
          key: [2] int64, the seed.

        Returns:
          [N*K] int32 in [0, N).
        """
        n_labels = labels.shape[0]
        uniform = tf.random.stateless_uniform(
            [], _fold(key, _TASK), dtype=tf.float64, alg=_PHILOX
        )
        # The places of the largest of independent numbers are a draw without replacement.
        bits = tf.random.stateless_uniform(
            [n_labels], _fold(key, _PLACES), None, None, tf.int64, alg=_PHILOX
        )
        places = tf.math.top_k(bits, self.count(n_labels)).indices
        wrong = tf.reduce_any(tf.equal(tf.range(n_labels)[:, None], places), axis=1)
        shifts = tf.random.stateless_uniform(
            [n_labels], _fold(key, _SHIFTS), 1, n_way, tf.int32, alg=_PHILOX
        )
        wrong &= uniform < self.share_of_tasks
        return tf.where(wrong, (labels + shifts) % n_way, labels)


def _fold(key: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.fold_in(key, tf.constant(stream, tf.int64), alg=_PHILOX)
