# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation whose derivatives are right to any order, as a Keras layer.

Ioffe & Szegedy 2015, y = gamma (x - m) / sqrt(v + epsilon) + beta. Keras's own layer puts a
stop_gradient into the variance, so that the gradient of a gradient, which MAML's outer loop is, comes
out wrong; this one differentiates through both statistics.
"""

from __future__ import annotations

import keras
import tensorflow as tf


def refuse_norms_of_keras(keras_model: keras.Model, what: str) -> None:
    """Raises ValueError where a model holds Keras's BatchNormalization, naming the layer."""
    for layer in keras_model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            raise ValueError(
                f"{what} can't hold Keras's own BatchNormalization, which stops a gradient in "
                "the variance: its second derivative is wrong. Take keras_models.adopt(model, n_way), "
                f"which replaces it. Received: {layer.name!r} in {keras_model.name!r}."
            )


def batch_moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of each channel.

    Args:
      x: [B, H, W, C] or [B, C] float.

    Returns:
      Two tensors [C].
    """
    axes = list(range(len(x.shape) - 1))
    mean = tf.reduce_mean(x, axes)
    return mean, tf.reduce_mean(tf.square(x - mean), axes)


@keras.saving.register_keras_serializable("tf_lwdgh")
class BatchNormalization(keras.layers.Layer):
    """Normalises each channel of [B, H, W, C] maps or [B, C] features.

    With `training=True` the statistics are the batch's, and the moving averages become
    `momentum * moving + (1 - momentum) * batch`; with `training=False` the moving averages are used.
    Called through `stateless_call`, the new averages are outputs, and differentiable.

    Args:
      momentum: in [0, 1); 0 keeps the last batch's statistics alone.
      epsilon: added to the variance; > 0.
      center: whether there is an offset β.
      scale: whether there is a scale γ.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: {momentum}.")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0. Received: {epsilon}.")
        self.momentum = momentum
        self.epsilon = epsilon
        self.center, self.scale = center, scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> keras.Variable:
            return self.add_weight(name=name, shape=(input_shape[-1],), initializer=initializer, trainable=trainable)

        self.gamma = weight("gamma", "ones", True) if self.scale else None
        self.beta = weight("beta", "zeros", True) if self.center else None
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        if mask is not None:  # Keras's layer takes one, and calls of it are taken over
            raise ValueError(f"masks are not supported. Received: mask={mask!r}.")
        if training:
            mean, variance = batch_moments(x)
            self.keep(mean, variance)
        else:
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
        factor = tf.math.rsqrt(variance + self.epsilon)
        if self.scale:
            factor *= tf.convert_to_tensor(self.gamma)
        y = (x - mean) * factor
        return y + tf.convert_to_tensor(self.beta) if self.center else y

    def keep(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the averages towards a batch's statistics, [C] each."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = tf.convert_to_tensor(moving)
            moving.assign(self.momentum * old + (1 - self.momentum) * batch if self.momentum else batch)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        own = ("momentum", "epsilon", "center", "scale")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
