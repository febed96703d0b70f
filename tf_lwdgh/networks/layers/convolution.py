# SPDX-License-Identifier: Apache-2.0
"""Keras's convolution through ours."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_lwdgh.networks.kernels.convolution import convolve


@keras.saving.register_keras_serializable("tf_lwdgh")
class Convolution(keras.layers.Conv2D):
    """Keras's Conv2D, SAME, through `convolve`.

    Args:
      product_dtype: of the products; None: the layer's own.
    """

    def __init__(self, filters: int, kernel_size: int, product_dtype: str | None = None, **kwargs) -> None:
        super().__init__(filters, kernel_size, **{"padding": "same"} | kwargs)
        self.product_dtype = product_dtype

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        z = convolve(inputs, tf.convert_to_tensor(kernel), self.product_dtype)
        return tf.cast(z, inputs.dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "product_dtype": self.product_dtype}
