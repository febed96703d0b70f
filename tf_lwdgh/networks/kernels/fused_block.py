# SPDX-License-Identifier: Apache-2.0
"""BatchNorm, ReLU and 2×2 max-pooling as one operation with hand-derived first and second derivatives.

z [B, H, W, C] is the convolution's output, M = B·H·W, m and v its batch moments, r = 1/√(v + ε),
x̂ = (z - m) r, y = g x̂ + b, p = maxpool(relu(y)). A window passes its gradient to its first maximum,
where p > 0. With q = dp·[p > 0], dy = q at the maxima and 0 elsewhere, X = x̂ at the maxima:

First derivative:
  db = Σ q,  dg = Σ q X,  dz = g E  with  E = r (dy - db/M - x̂ dg/M).

Second derivative, for cotangents (u, u_g, u_b) of (dz, dg, db), with S = Σ u, S' = Σ u x̂, U = u at the
maxima and D = r (u - S/M - x̂ S'/M):
  ḡ = Σ u E = r (Σ q U - S db/M - S' dg/M)
  z̄ = -(g r dg/M) D + (u_g - g r S'/M) E - (g ḡ r/M) x̂
  q̄ = g r (U - S/M - X S'/M) + u_g X + u_b,   b̄ = 0.

No step divides by g, so nothing happens at g = 0. All sums with `dy` run over the pooled maxima, a quarter
of the elements; nothing of the full size but z is kept for the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.networks.kernels.moments import Moments, batch_moments
from tf_lwdgh.networks.kernels.pooling import (
    DEAD,
    channel_dot,
    channel_sum,
    first_maximum,
    gather,
    route,
)


class _Saved(NamedTuple):
    """What the derivatives need beside z and g; constants to any outer tape."""

    mean: tf.Tensor  # [C]
    r: tf.Tensor  # [C]
    index: tf.Tensor  # [B, H//2, W//2, C] int8: the maximum's place in its window, or DEAD
    top: tf.Tensor  # [B, H//2, W//2, C]: X


def bn_relu_pool(
    z: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """maxpool₂ₓ₂(relu(batch_norm(z))), with batch statistics; differentiable twice.

    Args:
      z: [B, H, W, C] float; where its precision is lower than gamma's, z and dz alone have it.
      gamma: [C].
      beta: [C].
      epsilon: added to the variance.

    Returns:
      [B, H//2, W//2, C], and z's batch mean and variance [C].
    """
    moments = batch_moments(z, epsilon)
    known = _constant(moments)

    @tf.custom_gradient
    def forward(z, gamma, beta):
        pooled, saved = _forward(*_constant((z, gamma, beta)), known, epsilon)

        def backward(dp):
            dz, dgamma, dbeta = _first(dp, z, gamma, saved)
            return dz, dgamma, dbeta

        return pooled, backward

    return forward(z, gamma, beta), moments.mean, moments.variance


def _constant(tensors):
    return tf.nest.map_structure(tf.stop_gradient, tensors)


def _forward(z, gamma, beta, moments: Moments, epsilon: float) -> tuple[tf.Tensor, _Saved]:
    r = tf.math.rsqrt(moments.variance + epsilon)
    pooled, index, top = _pool(z, moments.mean, r, gamma, beta)
    return pooled, _Saved(*_constant((moments.mean, r, index, top)))


def _first(dp, z, gamma, saved: _Saved):
    """The first derivative as an operation of its own, so that it can be differentiated once more."""

    @tf.custom_gradient
    def gradient(dp, z, gamma):
        fixed = _constant((dp, z, gamma))
        q, q_top = _masked(fixed[0], saved.index, saved.top)
        db, dg = channel_sum(q), channel_sum(q_top)
        sums = (db, dg)
        dz = _spread(fixed[1], q, fixed[2], saved, sums)

        def backward(u, ug, ub):
            return _second(_constant((u, ug, ub)), fixed[1], fixed[2], q, saved, sums)

        return (dz, dg, db), backward

    return gradient(dp, z, gamma)


def _second(cotangents, z, gamma, q, saved: _Saved, sums):
    (u, ug, ub), (db, dg) = cotangents, sums
    m, r, top = _count(z, q.dtype), saved.r, saved.top
    u = tf.cast(u, q.dtype)
    total = channel_sum(u)
    along = r * (channel_dot(u, tf.cast(z, q.dtype)) - saved.mean * total)
    at_top, product = _at_top(u, saved.index, q)
    gamma_bar = r * (channel_sum(product) - total * db / m - along * dg / m)
    # q̄ is linear in U and X.
    scale = gamma * r
    linear = (scale, ug - scale * along / m, ub - scale * total / m)
    q_bar = _q_bar(at_top, saved.index, top, linear)
    coefficients = (-gamma * r * dg / m, ug - gamma * r * along / m, gamma * gamma_bar * r / m)
    z_bar = _combine(z, u, q, saved, (total / m, along / m), (db / m, dg / m), coefficients)
    return q_bar, z_bar, gamma_bar


def _count(z: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """M as a scalar."""
    shape = tf.shape(z)
    return tf.cast(shape[0] * shape[1] * shape[2], dtype)


# The passes over whole arrays; XLA fuses each into one loop.


@tf.function(jit_compile=True, autograph=False)
def _pool(z, mean, r, gamma, beta):
    sign = tf.cast(tf.where(gamma < 0, -1, 1), gamma.dtype)
    top, index = first_maximum(tf.cast(z, gamma.dtype) * sign)
    x_hat = (top * sign - mean) * r
    pooled = tf.nn.relu(gamma * x_hat + beta)
    index = tf.where(pooled > 0, index, DEAD)
    return pooled, tf.cast(index, tf.int8), x_hat


@tf.function(jit_compile=True, autograph=False)
def _masked(dp, index, top):
    """q and q X."""
    q = tf.where(index == DEAD, tf.zeros([], dp.dtype), dp)
    return q, q * top


@tf.function(jit_compile=True, autograph=False)
def _at_top(u, index, q):
    """U and q U."""
    at_top = gather(u, index)
    return at_top, q * at_top


@tf.function(jit_compile=True, autograph=False)
def _q_bar(at_top, index, top, linear):
    q_bar = linear[0] * at_top + linear[1] * top + linear[2]
    return tf.where(index == DEAD, tf.zeros([], top.dtype), q_bar)


@tf.function(jit_compile=True, autograph=False)
def _spread(z, q, gamma, saved, sums):
    """dz = g E."""
    mean, r, index, _ = saved
    count, (db, dg) = _count(z, q.dtype), sums
    scale = gamma * r
    x_hat_part = (tf.cast(z, q.dtype) - mean) * (r * scale * dg / count)
    dz = route(q, index, *z.shape[1:3]) * scale - x_hat_part - scale * db / count
    return tf.cast(dz, z.dtype)


@tf.function(jit_compile=True, autograph=False)
def _combine(z, u, q, saved, u_means, dy_means, coefficients):
    """z̄ = c₀ D + c₁ E - c₂ x̂."""
    mean, r, index, _ = saved
    x_hat = (tf.cast(z, q.dtype) - mean) * r
    d = r * (u - u_means[0] - x_hat * u_means[1])
    e = r * (route(q, index, *z.shape[1:3]) - dy_means[0] - x_hat * dy_means[1])
    z_bar = coefficients[0] * d + coefficients[1] * e - coefficients[2] * x_hat
    return tf.cast(z_bar, z.dtype)
