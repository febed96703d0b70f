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

from tf_lwdgh.pooling import DEAD, channel_dot, channel_sum, first_maximum, gather, route

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
    moments: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """maxpool₂ₓ₂(relu(batch_norm(z))), with batch statistics; differentiable twice.

    Args:
      z: [B, H, W, C] float32 or float64.
      gamma: [C].
      beta: [C].
      epsilon: added to the variance.
      moments: z's batch moments, where they are known already; by default `batch_moments(z)`.

    Returns:
      [B, H//2, W//2, C].
    """

    known = _constant(batch_moments(z) if moments is None else moments)

    @tf.custom_gradient
    def forward(z, gamma, beta):
        pooled, saved = _forward(*_constant((z, gamma, beta)), known, epsilon)

        def backward(dp):
            dz, dgamma, dbeta = _first(dp, z, gamma, saved)
            return dz, dgamma, dbeta

        return pooled, backward

    return forward(z, gamma, beta)


def _constant(tensors):
    return tf.nest.map_structure(tf.stop_gradient, tensors)


def _forward(z, gamma, beta, moments, epsilon: float) -> tuple[tf.Tensor, _Saved]:
    mean, variance = moments
    r = tf.math.rsqrt(variance + epsilon)
    pooled, index, top = _pool(z, mean, r, gamma, beta)
    return pooled, _Saved(*_constant((mean, r, index, top)))


def batch_moments(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance [C] of [B, H, W, C]; differentiable to any order.

    Forwards by the fused kernel in float32, three times as fast as sums; dz = (dm + 2 (z - m) dv) / M.
    """

    @tf.custom_gradient
    def forward(z):
        def backward(dmean, dvariance):
            centred = z - tf.reduce_mean(z, [0, 1, 2])
            return (dmean + 2 * dvariance * centred) / _count(z)

        return _moments(_constant(z)), backward

    return forward(z)


def _moments(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if z.dtype != tf.float32:
        mean = tf.reduce_mean(z, [0, 1, 2])
        return mean, tf.reduce_mean(tf.square(z - mean), [0, 1, 2])
    ones, none = tf.ones_like(z[0, 0, 0]), tf.zeros([0])
    out = tf.raw_ops.FusedBatchNormV3(
        x=z, scale=ones, offset=0 * ones, mean=none, variance=none, is_training=True
    )
    count = _count(z)  # The kernel's variance is the unbiased one.
    return out.batch_mean, out.batch_variance * (tf.maximum(count - 1, 1) / count)


def _first(dp, z, gamma, saved: _Saved):
    """The first derivative as an operation of its own, so that it can be differentiated once more."""

    @tf.custom_gradient
    def gradient(dp, z, gamma):
        fixed = _constant((dp, z, gamma))
        q = tf.where(saved.index == DEAD, tf.zeros([], dp.dtype), fixed[0])
        db, dg = channel_sum(q), channel_sum(q * saved.top)
        sums = (db, dg)
        dz = _spread(fixed[1], q, fixed[2], saved, sums)

        def backward(u, ug, ub):
            return _second(_constant((u, ug, ub)), fixed[1], fixed[2], q, saved, sums)

        return (dz, dg, db), backward

    return gradient(dp, z, gamma)


def _second(cotangents, z, gamma, q, saved: _Saved, sums):
    u, ug, ub = cotangents
    db, dg = sums
    m, r, top = _count(z), saved.r, saved.top
    total = channel_sum(u)
    along = r * (channel_dot(u, z) - saved.mean * total)
    at_top = gather(u, saved.index)
    gamma_bar = r * (channel_sum(q * at_top) - total * db / m - along * dg / m)
    q_bar = gamma * r * (at_top - total / m - top * along / m) + ug * top + ub
    q_bar = tf.where(saved.index == DEAD, tf.zeros([], q.dtype), q_bar)
    coefficients = (-gamma * r * dg / m, ug - gamma * r * along / m, gamma * gamma_bar * r / m)
    z_bar = _combine(z, u, q, saved, (total / m, along / m), (db / m, dg / m), coefficients)
    return q_bar, z_bar, gamma_bar


def _count(z: tf.Tensor) -> tf.Tensor:
    """M as a scalar of z's dtype."""
    shape = tf.shape(z)
    return tf.cast(shape[0] * shape[1] * shape[2], z.dtype)


# The passes over whole arrays; XLA fuses each into one loop.


@tf.function(jit_compile=True, autograph=False)
def _pool(z, mean, r, gamma, beta):
    sign = tf.cast(tf.where(gamma < 0, -1, 1), z.dtype)
    top, index = first_maximum(z * sign)
    x_hat = (top * sign - mean) * r
    pooled = tf.nn.relu(gamma * x_hat + beta)
    index = tf.where(pooled > 0, index, DEAD)
    return pooled, tf.cast(index, tf.int8), x_hat


@tf.function(jit_compile=True, autograph=False)
def _spread(z, q, gamma, saved, sums):
    """dz = g E."""
    mean, r, index, _ = saved
    count, (db, dg) = _count(z), sums
    scale = gamma * r
    x_hat_part = (z - mean) * (r * scale * dg / count)
    return route(q, index, *z.shape[1:3]) * scale - x_hat_part - scale * db / count


@tf.function(jit_compile=True, autograph=False)
def _combine(z, u, q, saved, u_means, dy_means, coefficients):
    """z̄ = c₀ D + c₁ E - c₂ x̂."""
    mean, r, index, _ = saved
    x_hat = (z - mean) * r
    d = r * (u - u_means[0] - x_hat * u_means[1])
    e = r * (route(q, index, *z.shape[1:3]) - dy_means[0] - x_hat * dy_means[1])
    return coefficients[0] * d + coefficients[1] * e - coefficients[2] * x_hat
