# SPDX-License-Identifier: Apache-2.0
"""Stride-1 SAME convolution and its filter gradient, in the precision and form that are asked for.

In a lower precision only the products are: inputs are rounded to it, sums are float32 on every
device, results are rounded to it; who uses them goes on in float32. `as_products` makes every
convolution a matrix product over patches, which, unlike a convolution, can run with one filter a task
side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tf_lwdgh.networks.kernels.low_precision import rounded

_as_products = False


@contextlib.contextmanager
def as_products() -> Iterator[None]:
    """Within it convolutions are traced as matrix products. Not thread-safe."""
    global _as_products
    before, _as_products = _as_products, True
    try:
        yield
    finally:
        _as_products = before


def convolve(x: tf.Tensor, kernel: tf.Tensor, dtype: str | None = None) -> tf.Tensor:
    """The convolution; differentiable to any order.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, F], k odd.
      dtype: of the products; None: x's.

    Returns:
      [B, H, W, F] of the products' dtype.
    """
    dtype = dtype or x.dtype
    low_x, low_kernel = rounded(x, dtype), rounded(kernel, dtype)
    if _as_products:
        rows = _patches(low_x, kernel.shape[0])
        z = tf.matmul(rows, tf.reshape(low_kernel, [-1, kernel.shape[-1]]))
        z = tf.reshape(z, [-1, *x.shape[1:3], kernel.shape[-1]])
    else:
        z = tf.nn.conv2d(low_x, low_kernel, 1, "SAME")
    return tf.cast(z, dtype)


def filter_gradient(x: tf.Tensor, dz: tf.Tensor, size: int, dtype: str | None = None) -> tf.Tensor:
    """The kernel's gradient [size, size, C, F], of x's dtype.

    Args:
      x: [B, H, W, C].
      dz: [B, H, W, F], of x's or the products' dtype.
      size: the kernel's.
      dtype: of the products; None: x's.
    """
    dtype = dtype or x.dtype
    low_x, low_dz = rounded(x, dtype), rounded(dz, dtype)
    shape = [size, size, x.shape[-1], dz.shape[-1]]
    if _as_products:
        rows = tf.reshape(low_dz, [-1, dz.shape[-1]])
        gradient = tf.reshape(tf.matmul(_patches(low_x, size), rows, transpose_a=True), shape)
    else:
        same = {"strides": [1, 1, 1, 1], "padding": "SAME"}
        gradient = tf.raw_ops.Conv2DBackpropFilter(input=low_x, filter_sizes=shape, out_backprop=low_dz, **same)
    return tf.cast(tf.cast(gradient, dtype), x.dtype)


def _patches(x: tf.Tensor, size: int) -> tf.Tensor:
    """[B, H, W, C] -> [B·H·W, size² C], zeros around the images."""
    if size > 1:
        x = _cut(x, size)
    return tf.reshape(x, [-1, x.shape[-1]])


def _cut(x: tf.Tensor, size: int) -> tf.Tensor:
    """Each pixel's neighbourhood: [B, H, W, C] -> [B, H, W, size² C], exact in any precision; `_put` transposed."""

    @tf.custom_gradient
    def cut(x):
        wide = tf.pad(x, _around(size // 2, size // 2, size // 2, size // 2))
        places = [(i, j) for i in range(size) for j in range(size)]
        parts = [tf.slice(wide, [0, i, j, 0], [-1, *x.shape[1:3], -1]) for i, j in places]
        return tf.concat(parts, -1), lambda dy: _put(dy, size)

    return cut(x)


def _put(y: tf.Tensor, size: int) -> tf.Tensor:
    """Neighbourhoods added up where they came from: [B, H, W, size² C] -> [B, H, W, C]; `_cut` transposed."""

    @tf.custom_gradient
    def put(y):
        last, half = size - 1, size // 2
        parts = enumerate(tf.split(y, size * size, -1))
        wide = [tf.pad(p, _around(k // size, last - k // size, k % size, last - k % size)) for k, p in parts]
        x = tf.slice(tf.add_n(wide), [0, half, half, 0], [-1, *y.shape[1:3], -1])
        return x, lambda dx: _cut(dx, size)

    return put(y)


def _around(top: int, bottom: int, left: int, right: int) -> list[list[int]]:
    return [[0, 0], [top, bottom], [left, right], [0, 0]]
