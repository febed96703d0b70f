"""The explore-exploit schedule: the probability of a plain-mean step, and the draw.

SPEC: p(e) = p_min + (p_max - p_min)(1 + cos(pi e / E)) / 2, with e the epoch counted from 0 and E the
transition epoch (the cosine annealing of Loshchilov & Hutter 2017 applied to a probability).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import tensorflow as tf

from tf_lwdgh import config

MODES = ("cosine", "cosine_held", "fixed", "off")


def stream_key(*parts: int | str) -> tuple[int, int]:
    """Two 32-bit words that depend on every part: the key of a stateless random stream."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little", signed=True) for i in (0, 4))


@config.configurable
@dataclasses.dataclass(frozen=True)
class ExploreExploit:
    """When a meta-step explores (plain mean) and when it exploits (attention weights).

    Attributes:
      mode: 'cosine' (cyclic: it turns back after the transition epoch), 'cosine_held' (stays at p_min
        after it), 'fixed' (p_max before the transition epoch, then p_min) or 'off' (always exploit).
      p_max: the highest probability of exploring, in [0, 1].
      p_min: the lowest, in [0, p_max].
      transition: the transition epoch E as a fraction of all epochs, in (0, 1]; the paper's best is 0.33.
    """

    mode: str = "cosine"
    p_max: float = 1.0
    p_min: float = 0.0
    transition: float = 0.33

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(
                f"ExploreExploit.mode must be one of {', '.join(MODES)}. Received: {self.mode!r}."
            )
        if not 0 <= self.p_min <= self.p_max <= 1:
            raise ValueError(
                "ExploreExploit: 0 <= p_min <= p_max <= 1 must hold. "
                f"Received: p_min={self.p_min}, p_max={self.p_max}."
            )
        if not 0 < self.transition <= 1:
            raise ValueError(
                "ExploreExploit.transition is a fraction of the epochs and must be in (0, 1]. "
                f"Received: {self.transition}."
            )

    def probability(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        """The probability of exploring.

        Args:
          epoch: scalar integer, counted from 0.
          epochs: how many there are in the whole run.

        Returns:
          A float32 scalar in [p_min, p_max].
        """
        if self.mode == "off":
            return tf.zeros([])
        turn = self.transition * epochs
        e = tf.cast(epoch, tf.float64)
        if self.mode == "fixed":
            return tf.where(e < turn, float(self.p_max), float(self.p_min))
        if self.mode == "cosine_held":
            e = tf.minimum(e, turn)
        wave = self.p_min + 0.5 * (self.p_max - self.p_min) * (1 + tf.cos(math.pi * e / turn))
        return tf.cast(wave, tf.float32)

    def draw(self, step: tf.Tensor, seed: int, probability: tf.Tensor) -> tf.Tensor:
        """Whether meta-step `step` explores: a pure function of (seed, step).

        Args:
          step: scalar int64, the global meta-step.
          seed: the run's.
          probability: scalar float32 in [0, 1].

        Returns:
          A scalar bool.
        """
        key = tf.constant(stream_key(seed, "explore"), tf.int32)
        key = tf.random.experimental.stateless_fold_in(tf.cast(key, tf.int64), step)
        uniform = tf.random.stateless_uniform([], key, alg="philox")
        return uniform < probability


class Clock:
    """What a schedule may depend on: the meta-step, as a tensor, and the run's length and seed."""

    def __init__(self, step: tf.Tensor, *, steps_per_epoch: int, epochs: int, seed: int) -> None:
        self.step = tf.cast(step, tf.int64)
        self.epoch = self.step // steps_per_epoch
        self.epochs = epochs
        self.seed = seed
