# SPDX-License-Identifier: Apache-2.0
"""The outer optimizer: Keras's by their names in gin, and one schedule for the rate of them all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_lwdgh import config

DECAYS = ("constant", "cosine", "linear", "step")
NAMES = (
    "Adam", "AdamW", "Adamax", "Nadam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Lion", "Lamb",
)  # fmt: skip
# Set by LearningRate and OuterLoop.
_ELSEWHERE = ["learning_rate", "clipnorm", "clipvalue", "global_clipnorm"]

OPTIMIZERS = {
    name: config.external_configurable(getattr(keras.optimizers, name), module="keras.optimizers", denylist=_ELSEWHERE)
    for name in NAMES
}


@config.configurable
@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The outer optimizer's learning rate over the run.

    Attributes:
      rate: the highest rate, > 0; 0.001 in the paper.
      decay: 'constant'; 'cosine' or 'linear', to `floor` times the rate at the end of the run; or 'step',
        times `factor` at each milestone.
      floor: where 'cosine' and 'linear' end, as a fraction of the rate, in [0, 1].
      milestones: for 'step': fractions of the run, rising, in (0, 1).
      factor: for 'step', in (0, 1].
      warmup: the fraction of the run over which the rate rises linearly from 0, in [0, 1).
    """

    rate: float = 0.001
    decay: str = "constant"
    floor: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    warmup: float = 0.0

    def __post_init__(self) -> None:
        marks = tuple(self.milestones)
        rising = all(0 < m < 1 for m in marks) and list(marks) == sorted(set(marks))
        self._require("rate", self.rate > 0 and math.isfinite(self.rate), "must be > 0, finite")
        self._require("decay", self.decay in DECAYS, f"must be one of {', '.join(DECAYS)}")
        self._require("floor", 0 <= self.floor <= 1, "must be in [0, 1]")
        self._require("milestones", rising, "must rise and lie in (0, 1): fractions of the run")
        self._require("factor", 0 < self.factor <= 1, "must be in (0, 1]")
        self._require("warmup", 0 <= self.warmup < 1, "is a fraction of the run and in [0, 1)")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise ValueError(f"LearningRate.{name} {rule}. Received: LearningRate.{name} = {value!r}.")

    @property
    def depends_on_length(self) -> bool:
        """Whether a run of another length has other rates at the same step."""
        return self.decay != "constant" or self.warmup > 0

    def schedule(self, total_steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """What a Keras optimizer takes as its learning rate, for a run of `total_steps`."""
        return Schedule(self, total_steps) if self.depends_on_length else self.rate


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each step of a run: a pure function of the step."""

    def __init__(self, settings: LearningRate, total_steps: int) -> None:
        self.settings, self.total_steps = settings, total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at a step, counted from 0: a float32 scalar."""
        s = self.settings
        done = tf.cast(step, tf.float32) / self.total_steps
        share = tf.ones([])
        if s.decay in ("cosine", "linear"):
            left = tf.clip_by_value((1 - done) / (1 - s.warmup), 0, 1)
            if s.decay == "cosine":
                left = 0.5 * (1 - tf.cos(math.pi * left))
            share = s.floor + (1 - s.floor) * left
        elif s.decay == "step":
            passed = tf.add_n([tf.cast(done >= mark, tf.float32) for mark in s.milestones])
            share = s.factor**passed
        if s.warmup > 0:
            first = (tf.cast(step, tf.float32) + 1) / (s.warmup * self.total_steps)
            share *= tf.minimum(first, 1)
        return s.rate * share

    def get_config(self) -> dict:
        return {"total_steps": self.total_steps, **dataclasses.asdict(self.settings)}


def build(name_or_class: Callable[..., object], rate: LearningRate, total_steps: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer.

    Args:
      name_or_class: what makes a Keras optimizer when called with `learning_rate=`.
      rate: its learning rate.
      total_steps: the run's length in meta-steps.

    Raises:
      ValueError: it makes something else.
    """
    optimizer = name_or_class(learning_rate=rate.schedule(total_steps))
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            "Experiment.optimizer must make a Keras optimizer, such as @Adam (without brackets). "
            f"Received: {optimizer!r}."
        )
    return optimizer


def take_global_updates(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets an optimizer apply updates as they are: they range over all replicas already.

    Of itself a Keras optimizer sums over the replicas first: another all-reduce of the gradient's size, and
    R times the update.
    """
    if not hasattr(optimizer, "_all_reduce_sum_gradients"):
        raise TypeError(f"{type(optimizer).__name__} is no optimizer of Keras's TensorFlow backend.")
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs
