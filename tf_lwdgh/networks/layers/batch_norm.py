"""Batch normalisation whose derivatives are right to any order, as a Keras layer.

Ioffe & Szegedy 2015, y = gamma (x - m) / sqrt(v + epsilon) + beta. Keras's own layer puts a
stop_gradient into the variance, so that the gradient of a gradient, which MAML's outer loop is, comes
out wrong; this one differentiates through both statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

_AXES = (0, 1, 2)


_plain_only = False


def plain_only() -> bool:
    """Whether `plain_operations` is in force."""
    return _plain_only


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Within it every layer traces plain TensorFlow operations: no XLA, no custom gradients.

    For graphs that leave this process, such as SavedModels. Not thread-safe.
    """
    global _plain_only
    before, _plain_only = _plain_only, True
    try:
        yield
    finally:
        _plain_only = before


def batch_moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of each channel.

    Args:
      x: [B, H, W, C] float.

    Returns:
      Two tensors [C].
    """
    mean = tf.reduce_mean(x, _AXES)
    return mean, tf.reduce_mean(tf.square(x - mean), _AXES)


@keras.saving.register_keras_serializable("tf_lwdgh")
class BatchNormalization(keras.layers.Layer):
    """Normalises each channel of [B, H, W, C] images.

    With `training=True` the statistics are the batch's, and the moving averages become
    `momentum * moving + (1 - momentum) * batch`; with `training=False` the moving averages are used.
    Called through `stateless_call`, the new averages are outputs, and differentiable.

    Args:
      momentum: in [0, 1); 0 keeps the last batch's statistics alone.
      epsilon: added to the variance; > 0.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-5, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: {momentum}.")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0. Received: {epsilon}.")
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(
                name=name, shape=(input_shape[-1],), initializer=initializer, trainable=trainable
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if not training:
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
            return (x - mean) * tf.math.rsqrt(variance + self.epsilon) * gamma + beta
        mean, variance = batch_moments(x)
        self.keep(mean, variance)
        return (x - mean) * (tf.math.rsqrt(variance + self.epsilon) * gamma) + beta

    def keep(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the averages towards a batch's statistics, [C] each."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = tf.convert_to_tensor(moving)
            moving.assign(self.momentum * old + (1 - self.momentum) * batch if self.momentum else batch)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
