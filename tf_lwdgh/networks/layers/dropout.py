# SPDX-License-Identifier: Apache-2.0
"""Dropout whose draws depend on a key given from outside, and on nothing else."""

from __future__ import annotations

import contextlib
import contextvars
import zlib

import keras
import tensorflow as tf

from tf_lwdgh.networks.layers.scoped import told

_KEY: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("dropout", default=None)


def dropping(key: tf.Tensor | None) -> contextlib.AbstractContextManager[None]:
    """Within it, what is traced drops units by this key, [2] int64; by none, all units stay."""
    return told(_KEY, key)


@keras.saving.register_keras_serializable("tf_lwdgh")
class Dropout(keras.layers.Layer):
    """Sets a share of the units to 0 and scales the others by 1/(1 − rate), within `dropping`.

    Two layers of one name draw alike, and so does a layer that is called twice within one `dropping`.

    Args:
      rate: the share, in [0, 1).
      maps: drop whole channels of [B, H, W, C] maps.
    """

    def __init__(self, rate: float, maps: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1). Received: {rate}.")
        self.rate, self.maps = rate, maps

    def call(self, x: tf.Tensor) -> tf.Tensor:
        key = _KEY.get()
        if key is None or not self.rate:
            return x
        mine = tf.random.fold_in(key, zlib.crc32(self.name.encode()), alg="philox")
        size = tf.shape(x)
        shape = [size[0], 1, 1, size[3]] if self.maps else size
        drawn = tf.random.stateless_uniform(shape, mine, dtype=x.dtype, alg="philox")
        return tf.where(drawn >= self.rate, x / (1 - self.rate), tf.zeros([], x.dtype))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "maps": self.maps}
