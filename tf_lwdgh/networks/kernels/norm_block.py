# SPDX-License-Identifier: Apache-2.0
"""BatchNorm and LeakyReLU as one operation with hand-derived first and second derivatives.

z [B, H, W, C], M = B·H·W, m and v its batch moments, r = 1/√(v + ε), x̂ = (z - m) r, y = leaky(g x̂ + b);
a is the activation's slope, 1 where y > 0. With q = a dy:

First derivative, TensorFlow's own kernel in float32:
  db = Σ q,  dg = Σ q x̂,  dz = g E  with  E = r (q - db/M - x̂ dg/M).

Second derivative, for cotangents (u, u_g, u_b) of (dz, dg, db), with S = Σ u, S' = Σ u x̂ and
D = r (u - S/M - x̂ S'/M):
  ḡ = Σ u E = r (Σ q u - S db/M - S' dg/M)
  z̄ = -(g r dg/M) D + (u_g - g r S'/M) E - (g ḡ r/M) x̂
  dȳ = a (g D + u_g x̂ + u_b),   b̄ = 0.

Nothing of z's size but z and y, which the neighbours need anyway, is kept for the backward pass.
"""

from __future__ import annotations

import tensorflow as tf

from tf_lwdgh.networks.kernels.moments import Moments, batch_moments
from tf_lwdgh.networks.kernels.pooling import channel_dot, channel_sum


def norm_leaky_relu(
    z: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, epsilon: float, slope: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """leaky_relu(batch_norm(z)) with batch statistics; differentiable twice.

    Args:
      z: [B, H, W, C] float32 or float64.
      gamma: [C].
      beta: [C].
      epsilon: added to the variance.
      slope: LeakyReLU's, in (0, 1]; 1 leaves it out.

    Returns:
      y [B, H, W, C], and z's batch mean and variance [C].
    """
    moments = batch_moments(z, epsilon)
    block = _Block(tf.nest.map_structure(tf.stop_gradient, moments), epsilon, slope)

    @tf.custom_gradient
    def forward(z, gamma, beta):
        y = tf.stop_gradient(_forward(z, block.moments.mean, block.r, gamma, beta, slope))
        return y, lambda dy: block.first(dy, z, gamma, y)

    return forward(z, gamma, beta), moments.mean, moments.variance


class _Block:
    """The derivatives at one z, whose moments are constants to any outer tape."""

    def __init__(self, moments: Moments, epsilon: float, slope: float) -> None:
        self.moments, self.epsilon, self.slope = moments, epsilon, slope
        self.r = tf.math.rsqrt(moments.variance + epsilon)

    def first(self, dy, z, gamma, y):
        """(dz, dg, db), as an operation of its own so that it can be differentiated once more."""

        @tf.custom_gradient
        def gradient(dy, z, gamma):
            fixed = [tf.stop_gradient(x) for x in (dy, z, gamma)]
            dz, dg, db = self._norm_gradient(_masked(fixed[0], y, self.slope), *fixed[1:])

            def backward(u, ug, ub):
                return self._second((u, ug, ub), fixed, y, (db, dg))

            return (dz, dg, db), backward

        return gradient(dy, z, gamma)

    def _norm_gradient(self, q, z, gamma):
        if z.dtype == tf.float32:
            return tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=q,
                x=z,
                scale=gamma,
                reserve_space_1=self.moments.reserved[0],
                reserve_space_2=self.moments.reserved[1],
                reserve_space_3=self.moments.reserved[2],
                epsilon=self.epsilon,
                is_training=True,
            )[:3]
        x_hat = (z - self.moments.mean) * self.r
        db, dg = channel_sum(q), channel_sum(q * x_hat)
        count = _count(z)
        return gamma * self.r * (q - db / count - x_hat * (dg / count)), dg, db

    def _second(self, cotangents, fixed, y, sums):
        (u, ug, ub), (dy, z, gamma), (db, dg) = cotangents, fixed, sums
        m, r, mean = _count(z), self.r, self.moments.mean
        total = channel_sum(u)
        along = r * (channel_dot(u, z) - mean * total)
        q_dot = channel_dot(u, _masked(dy, y, self.slope))
        gamma_bar = r * (q_dot - total * db / m - along * dg / m)
        coefficients = (-gamma * r * dg / m, ug - gamma * r * along / m, gamma * gamma_bar * r / m)
        means = (total / m, along / m, db / m, dg / m)
        vectors = (mean, r, gamma, ug, ub, means, coefficients)
        dy_bar, z_bar = _combine(z, y, dy, u, vectors, self.slope)
        return dy_bar, z_bar, gamma_bar


def _count(z: tf.Tensor) -> tf.Tensor:
    """M as a scalar of z's dtype."""
    return tf.cast(tf.size(z) // z.shape[-1], z.dtype)


# The passes over whole arrays; XLA fuses each into one loop.


def _slopes(x, y, slope: float):
    return tf.where(y > 0, x, slope * x)


@tf.function(jit_compile=True, autograph=False)
def _forward(z, mean, r, gamma, beta, slope: float):
    y = (z - mean) * (r * gamma) + beta
    return _slopes(y, y, slope)


@tf.function(jit_compile=True, autograph=False)
def _masked(dy, y, slope: float):
    return _slopes(dy, y, slope)


@tf.function(jit_compile=True, autograph=False)
def _combine(z, y, dy, u, vectors, slope: float):
    mean, r, gamma, ug, ub, means, c = vectors
    x_hat = (z - mean) * r
    d = r * (u - means[0] - x_hat * means[1])
    e = r * (_slopes(dy, y, slope) - means[2] - x_hat * means[3])
    return _slopes(gamma * d + ug * x_hat + ub, y, slope), c[0] * d + c[1] * e - c[2] * x_hat
