# SPDX-License-Identifier: Apache-2.0
"""Resnet12's layers: BatchNorm with LeakyReLU, and the end of a residual block."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_lwdgh.networks.kernels import leaky_pool, norm_block
from tf_lwdgh.networks.kernels.plain import plain_only
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization


@keras.saving.register_keras_serializable("tf_lwdgh")
class NormLeakyRelu(BatchNormalization):
    """BatchNorm and LeakyReLU.

    Args:
      slope: LeakyReLU's where its input is negative, in (0, 1]; 1 leaves it out.
      fused: use the hand-derived block with training=True; False differentiates the plain operations.
    """

    def __init__(self, slope: float = 1.0, fused: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self.slope, self.fused = _checked(slope), fused

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or not self.fused or plain_only():
            y = super().call(x, training=training)
            return y if self.slope == 1 else tf.nn.leaky_relu(y, self.slope)
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        y, mean, variance = norm_block.norm_leaky_relu(x, gamma, beta, epsilon=self.epsilon, slope=self.slope)
        self.keep(mean, variance)
        return y

    def get_config(self) -> dict:
        return {**super().get_config(), "slope": self.slope, "fused": self.fused}


@keras.saving.register_keras_serializable("tf_lwdgh")
class AddLeakyPool(keras.layers.Layer):
    """The sum of two branches, LeakyReLU and 2×2 max-pooling.

    Args:
      slope: LeakyReLU's where its input is negative, in (0, 1].
      fused: use the hand-derived block; False differentiates the plain operations.
    """

    def __init__(self, slope: float, fused: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self.slope, self.fused = _checked(slope), fused

    def call(self, branches: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        if training and self.fused and not plain_only():
            return leaky_pool.add_leaky_pool(*branches, slope=self.slope)
        y = tf.nn.leaky_relu(branches[0] + branches[1], self.slope)
        return tf.nn.max_pool2d(y, 2, 2, "VALID")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape[0]
        return (batch, height // 2, width // 2, channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "slope": self.slope, "fused": self.fused}


def _checked(slope: float) -> float:
    if not 0 < slope <= 1:
        raise ValueError(f"slope must be in (0, 1]. Received: {slope}.")
    return slope
