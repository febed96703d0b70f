# SPDX-License-Identifier: Apache-2.0
"""Normalisation by the squares of the neighbouring channels (Krizhevsky et al. 2012)."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tf_lwdgh")
class LocalResponseNormalization(keras.layers.Layer):
    """y_c = x_c / (bias + α Σ x_d²)^β, d from c − radius to c + radius: [..., C] -> [..., C].

    As tf.nn.local_response_normalization, by operations that have float64 and can run as one batch
    of tasks.

    Args:
      radius: channels to either side, at least 0.
      bias: > 0.
      alpha: α >= 0.
      beta: β.
    """

    def __init__(self, radius: int = 5, bias: float = 1.0, alpha: float = 1.0, beta: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, x: tf.Tensor) -> tf.Tensor:
        channels = x.shape[-1]
        reach = min(self.radius, channels - 1)
        near = tf.linalg.band_part(tf.ones([channels, channels], x.dtype), reach, reach)
        squares = tf.tensordot(tf.square(x), near, 1)
        return x * tf.pow(self.bias + self.alpha * squares, -self.beta)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        own = ("radius", "bias", "alpha", "beta")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
