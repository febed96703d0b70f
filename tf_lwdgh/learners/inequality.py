# SPDX-License-Identifier: Apache-2.0
"""How unequal some losses are: five measures from economics, 0 where all are equal.

With ℓ [M] the losses, ℓ̄ their mean and r = ℓ/ℓ̄, each is a function of r alone, so that no measure
changes where all losses are multiplied by one factor, and Σ_i ℓ_i ∂I/∂ℓ_i = 0. (Cowell: Measuring
Inequality.)
"""

from __future__ import annotations

import tensorflow as tf

MEASURES = ("theil", "generalised_entropy", "atkinson", "gini", "variance_of_logs")
_LEAST = 1e-6  # losses count as at least so much of their mean, so that logarithms are finite


def theil(losses: tf.Tensor) -> tf.Tensor:
    """(1/M) Σ r ln r: [M] > 0 -> scalar."""
    r = _relative(losses)
    return tf.reduce_mean(r * tf.math.log(r))


def generalised_entropy(losses: tf.Tensor, exponent: float) -> tf.Tensor:
    """(1/(M a(a−1))) Σ (rᵃ − 1), a the exponent; −(1/M) Σ ln r at 0 and Theil's at 1."""
    if exponent == 1:
        return theil(losses)
    r = _relative(losses)
    if exponent == 0:
        return -tf.reduce_mean(tf.math.log(r))
    return tf.reduce_mean(r**exponent - 1) / (exponent * (exponent - 1))


def atkinson(losses: tf.Tensor, aversion: float) -> tf.Tensor:
    """1 − (mean r^(1−ε))^(1/(1−ε)), ε >= 0 the aversion to inequality; 1 − exp(mean ln r) at 1."""
    r = _relative(losses)
    if aversion == 1:
        return 1 - tf.exp(tf.reduce_mean(tf.math.log(r)))
    power = 1 - aversion
    return 1 - tf.reduce_mean(r**power) ** (1 / power)


def gini(losses: tf.Tensor) -> tf.Tensor:
    """Σ_ij |r_i − r_j|/(2M²)."""
    r = _relative(losses)
    return tf.reduce_mean(tf.abs(r[:, None] - r)) / 2


def variance_of_logs(losses: tf.Tensor) -> tf.Tensor:
    """(1/M) Σ (ln r_i − mean ln r)²."""
    logs = tf.math.log(_relative(losses))
    return tf.reduce_mean(tf.square(logs - tf.reduce_mean(logs)))


def measure(name: str, losses: tf.Tensor, *, exponent: float, aversion: float) -> tf.Tensor:
    """One of MEASURES by its name: [M] -> scalar."""
    if name == "generalised_entropy":
        return generalised_entropy(losses, exponent)
    if name == "atkinson":
        return atkinson(losses, aversion)
    return {"theil": theil, "gini": gini, "variance_of_logs": variance_of_logs}[name](losses)


def gradient(name: str, losses: tf.Tensor, *, exponent: float, aversion: float) -> tf.Tensor:
    """∂I/∂ℓ: [M] -> [M]; 0 where all losses are 0, and finite wherever they are."""
    losses = tf.identity(losses)
    with tf.GradientTape() as tape:
        tape.watch(losses)
        value = measure(name, losses, exponent=exponent, aversion=aversion)
    return tape.gradient(value, losses, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _relative(losses: tf.Tensor) -> tf.Tensor:
    """r, with no loss below _LEAST of the mean; ones where all losses are 0."""
    total = tf.reduce_mean(losses)
    floored = tf.maximum(losses, _LEAST * total)
    floored = tf.where(total > 0, floored, tf.ones_like(losses))
    return floored / tf.reduce_mean(floored)
