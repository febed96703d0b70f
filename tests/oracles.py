# SPDX-License-Identifier: Apache-2.0
"""Slow, independent derivations in float64 that the package's numerics are checked against."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def gci(gradients: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """GCI of each row: ‖g‖ - g·ḡ/‖ḡ‖, with a cosine of 0 where a norm is 0. [T, D], [D] -> [T]."""
    gradients, mean = gradients.astype(np.longdouble), mean.astype(np.longdouble)
    length = np.sqrt((mean * mean).sum())
    out = []
    for g in gradients:
        norm = np.sqrt((g * g).sum())
        cosine = (g @ mean) / (norm * length) if norm > 0 and length > 0 else 0
        out.append(norm * (1 - cosine))
    return np.maximum(np.array(out, np.float64), 0)


def lwdgh(gradients: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weights [T] and update [D] of one unit, from the definition."""
    index = gci(gradients, gradients.mean(0))
    scores = np.exp(-(index - index.min()) / temperature)
    weights = scores / scores.sum()
    return weights, sum(w * g for w, g in zip(weights, gradients))


def logits(params: list[tf.Tensor], images: tf.Tensor, epsilon: float = 1e-5) -> tf.Tensor:
    """Convnet4's forward pass from its definition, with batch statistics; any number of blocks.

    `params` is [kernel, bias, gamma, beta] a block, then the head's kernel and bias.
    """
    x = images
    for i in range(0, len(params) - 2, 4):
        kernel, bias, gamma, beta = params[i : i + 4]
        x = tf.nn.conv2d(x, kernel, 1, "SAME") + bias
        mean = tf.add_n(tf.unstack(tf.reshape(x, [-1, x.shape[-1]]))) / float(np.prod(x.shape[:3]))
        centred = x - mean
        variance = tf.reduce_mean(centred * centred, [0, 1, 2])
        x = gamma * centred / tf.sqrt(variance + epsilon) + beta
        x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID")
    return tf.reshape(x, [x.shape[0], -1]) @ params[-2] + params[-1]


def loss(params: list[tf.Tensor], images: tf.Tensor, labels: np.ndarray) -> tf.Tensor:
    """Mean cross-entropy from its definition."""
    scores = logits(params, images)
    rows = tf.range(labels.shape[0])
    chosen = tf.gather_nd(scores, tf.stack([rows, tf.cast(labels, tf.int32)], 1))
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(tf.exp(scores), 1)) - chosen)


@tf.function(autograph=False)
def _gradient(params, images, labels):
    with tf.GradientTape() as tape:
        tape.watch(params)
        value = loss(params, images, labels)
    return tape.gradient(value, params)


@tf.function(autograph=False)
def _hessian_vector(params, images, labels, vector):
    """∇²L v by forward-mode differentiation of the gradient."""
    with tf.autodiff.ForwardAccumulator(params, vector) as accumulator:
        gradient = _gradient(params, images, labels)
    return [accumulator.jvp(g) for g in gradient]


def maml_gradient(
    params,
    support,
    query,
    *,
    rates: list[float],
    steps: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    second_order: bool = True,
) -> list[np.ndarray]:
    """∂L_Q(θ_S)/∂θ by the reverse sweep over the steps, written out by hand.

    Step: v' = μ v + ∇L(θ) + λ θ, θ' = θ - α v'. With adjoints (a, w) of (θ', v'):
    w₊ = w - α a;  a ← a + λ w₊ + ∇²L w₊;  w ← μ w₊  (rates α act elementwise, 0 for what stays).
    """
    theta = [tf.constant(p, tf.float64) for p in params]
    velocity = [tf.zeros_like(p) for p in theta]
    trajectory = []
    for _ in range(steps):
        trajectory.append(theta)
        gradient = _gradient(theta, *support)
        velocity = [momentum * v + g + weight_decay * p for v, g, p in zip(velocity, gradient, theta)]
        theta = [p - a * v for p, a, v in zip(theta, rates, velocity)]
    adjoint = _gradient(theta, *query)
    velocity_adjoint = [tf.zeros_like(a) for a in adjoint]
    for theta in reversed(trajectory):
        pulled = [w - r * a for w, r, a in zip(velocity_adjoint, rates, adjoint)]
        adjoint = [a + weight_decay * w for a, w in zip(adjoint, pulled)]
        if second_order:
            curved = _hessian_vector(theta, *support, pulled)
            adjoint = [a + c for a, c in zip(adjoint, curved)]
        velocity_adjoint = [momentum * w for w in pulled]
    return [a.numpy() for a in adjoint]
