# SPDX-License-Identifier: Apache-2.0
"""Convolution, BatchNorm, ReLU and pooling over images, which no derivative reaches: a network's first block.

With p the 3×3 patches of the images (rows of 9C values, M of them), s their mean and Σ their covariance,
the convolution z = p k has, for each filter k, batch mean m = s·k and variance v = kᵀ Σ k. Both need the
images once a task, whatever the parameters do. BatchNorm then is a change of filter,
  y = g (z - m) / √(v + ε) + b = p w + c,   w = g k / √(v + ε),   c = b - s·w,
whose derivatives to any order are those of arrays of 9C × F numbers. What is left over whole images is
h = maxpool(relu(p w + c)), with q = dh·[h > 0] routed to the maxima:
  dw = pᵀ route(q),  dc = Σ q;   for cotangents (u, e) of (dw, dc):  q̄ = gather(p u) + e.
Both are linear in q: no second derivative but that. No array of z's size outlives its chunk of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lwdgh.networks.kernels.convolution import convolve, filter_gradient
from tf_lwdgh.networks.kernels.pooling import DEAD, channel_sum, first_maximum, gather, route

_CHUNK_BYTES = 2**24  # of z at a time: it stays in the cache, and a large query set costs little memory
_LANES = 16  # patches are padded to a multiple of it, which matrix products want


class Patches(NamedTuple):
    """The 3×3 patches' moments over a batch of images."""

    mean: tf.Tensor  # [9C]
    covariance: tf.Tensor  # [9C, 9C]


class Output(NamedTuple):
    """What the block gives."""

    pooled: tf.Tensor  # [B, H//2, W//2, F]
    mean: tf.Tensor  # [F]: of the convolution, without a bias
    variance: tf.Tensor  # [F]


def patch_moments(images: tf.Tensor) -> Patches:
    """Moments of the 3×3 patches, zeros around the images; constants to every gradient.

    Args:
      images: [B, H, W, C] float32 or float64.
    """
    images = tf.stop_gradient(images)
    size = 9 * images.shape[-1]
    lanes = -(-(size + 1) // _LANES) * _LANES
    cut = np.eye(size, lanes, dtype=images.dtype.as_numpy_dtype)
    # Moments about a point near the mean lose no digits; one lane more of ones counts and sums.
    centre = tf.tile(tf.reduce_mean(images, [0, 1, 2]), [9])
    offset = tf.concat([-centre, tf.ones([1], images.dtype), tf.zeros([lanes - size - 1], images.dtype)], 0)
    cut = tf.constant(cut.reshape(3, 3, images.shape[-1], lanes))

    def product(chunk: tf.Tensor) -> tf.Tensor:
        rows = tf.reshape(tf.nn.bias_add(convolve(chunk, cut), offset), [-1, lanes])
        return tf.matmul(rows, rows, transpose_a=True)

    total = tf.add_n(_by_chunks(product, lanes, images))
    moments = total / total[size, size]
    mean = moments[size, :size]
    return Patches(mean + centre, moments[:size, :size] - mean[:, None] * mean)


def conv_norm_relu_pool(
    images: tf.Tensor,
    patches: Patches,
    kernel: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    epsilon: float,
    dtype: str | None = None,
) -> Output:
    """The block; differentiable to any order in the moments, twice in all but the images.

    The gradient with respect to the images is None.

    Args:
      images: [B, H, W, C] float32 or float64.
      patches: `patch_moments(images)`.
      kernel: [3, 3, C, F].
      gamma: [F].
      beta: [F].
      epsilon: added to the variance.
      dtype: of the convolution's products; None: the images'.
    """
    flat = tf.reshape(kernel, [-1, kernel.shape[-1]])
    mean = tf.linalg.matvec(flat, patches.mean, transpose_a=True)
    variance = tf.reduce_sum(flat * tf.matmul(patches.covariance, flat), 0)
    variance = tf.maximum(variance, 0)  # Rounding can take it below.
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    pooled = conv_relu_pool(images, kernel * scale, beta - mean * scale, dtype)
    return Output(pooled, mean, variance)


def conv_relu_pool(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, dtype: str | None = None) -> tf.Tensor:
    """maxpool₂ₓ₂(relu(images ∗ kernel + bias)); differentiable twice in kernel and bias.

    Args:
      images: [B, H, W, C]; a constant.
      kernel: [3, 3, C, F].
      bias: [F].
      dtype: of the convolution's products; None: the images'.

    Returns:
      [B, H//2, W//2, F].
    """
    images = tf.stop_gradient(images)

    @tf.custom_gradient
    def forward(kernel, bias):
        fixed = tf.stop_gradient(kernel), tf.stop_gradient(bias)
        filters = kernel.shape[-1]
        parts = _by_chunks(lambda x: _pool(convolve(x, fixed[0], dtype), fixed[1]), filters, images)
        pooled, index = (tf.stop_gradient(tf.concat(x, 0)) for x in zip(*parts))
        return pooled, lambda dp: _first(dp, images, index, filters, dtype)

    return forward(kernel, bias)


def _first(dp: tf.Tensor, images: tf.Tensor, index: tf.Tensor, filters: int, dtype: str | None):
    """(dw, dc), as an operation of its own so that it can be differentiated once more."""

    def sums(x, q, i):
        dz, alive = _route(q, i, *x.shape[1:3], dtype or x.dtype)
        return filter_gradient(x, dz, 3, dtype), channel_sum(alive)

    @tf.custom_gradient
    def gradient(dp):
        parts = _by_chunks(sums, filters, images, tf.stop_gradient(dp), index)

        def backward(u, e):
            def part(x, i):
                return _gather(convolve(x, u, dtype), e, i)

            return tf.concat(_by_chunks(part, filters, images, index), 0)

        return tuple(tf.add_n(x) for x in zip(*parts)), backward

    return gradient(dp)


def _by_chunks(run: Callable, filters: int, images: tf.Tensor, *others: tf.Tensor) -> list:
    """`run` on one chunk of images after the other, never on two at once."""
    batch, height, width, _ = images.shape
    count = 1
    if batch is not None:
        size = batch * height * width * filters * images.dtype.size
        count = min(batch, -(-size // _CHUNK_BYTES))
    if count == 1:
        return [run(images, *others)]
    sizes = [(i + 1) * batch // count - i * batch // count for i in range(count)]
    results, before = [], []
    for part in zip(*(tf.split(x, sizes) for x in (images, *others))):
        with tf.control_dependencies(before):
            results.append(run(*(tf.identity(x) for x in part)))
        before = tf.nest.flatten(results[-1])
    return results


@tf.function(jit_compile=True, autograph=False)
def _pool(z: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    top, index = first_maximum(tf.cast(z, bias.dtype))
    pooled = tf.nn.relu(top + bias)
    return pooled, tf.cast(tf.where(pooled > 0, index, DEAD), tf.int8)


@tf.function(jit_compile=True, autograph=False)
def _route(q, index, height: int, width: int, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    """q at the maxima of a whole array, and q where ReLU is on."""
    return tf.cast(route(q, index, height, width), dtype), _alive(q, index)


@tf.function(jit_compile=True, autograph=False)
def _gather(z: tf.Tensor, bias: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return _alive(gather(tf.cast(z, bias.dtype), index) + bias, index)


def _alive(q: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return tf.where(index == DEAD, tf.zeros([], q.dtype), q)
