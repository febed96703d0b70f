# SPDX-License-Identifier: Apache-2.0
"""The end of a residual block as one operation: the sum of two branches, LeakyReLU, 2×2 max-pooling.

h = maxpool(leaky(a + b)), and since leaky is increasing the maximum may come first. Both branches get the
same gradient, dh times the slope at each window's first maximum; it is linear in dh.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.networks.kernels.pooling import first_maximum, gather, route

_OFF = 4  # added to a window's index where the activation's slope is not 1


def add_leaky_pool(a: tf.Tensor, b: tf.Tensor, *, slope: float) -> tf.Tensor:
    """maxpool₂ₓ₂(leaky_relu(a + b)); differentiable to any order.

    Args:
      a: [B, H, W, C].
      b: [B, H, W, C].
      slope: LeakyReLU's.

    Returns:
      [B, H//2, W//2, C].
    """
    size = tuple(a.shape[1:3])

    @tf.custom_gradient
    def forward(a, b):
        pooled, index = (tf.stop_gradient(x) for x in _forward(a, b, slope))

        def backward(dh):
            both = _back(dh, index, size, slope)
            return both, both

        return pooled, backward

    return forward(a, b)


def _back(dh: tf.Tensor, index: tf.Tensor, size: tuple[int, int], slope: float) -> tf.Tensor:
    """The gradient of either branch, and of it its transpose."""

    @tf.custom_gradient
    def spread(dh):
        return _route(dh, index, *size, slope), pick

    @tf.custom_gradient
    def pick(u):
        return _gather(u, index, slope), spread

    return spread(dh)


def _sloped(x, index, slope: float):
    return tf.where(index < _OFF, x, slope * x)


@tf.function(jit_compile=True, autograph=False)
def _forward(a, b, slope: float):
    top, index = first_maximum(a + b)
    index = tf.where(top > 0, index, index + _OFF)
    return tf.where(top > 0, top, slope * top), tf.cast(index, tf.int8)


@tf.function(jit_compile=True, autograph=False)
def _route(dh, index, height: int, width: int, slope: float):
    return route(_sloped(dh, index, slope), index % _OFF, height, width)


@tf.function(jit_compile=True, autograph=False)
def _gather(u, index, slope: float):
    return _sloped(gather(u, index % _OFF), index, slope)
