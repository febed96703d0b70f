# SPDX-License-Identifier: Apache-2.0
"""Gradients of any size as inputs of a network: Andrychowicz et al. 2016, appendix A."""

from __future__ import annotations

import tensorflow as tf


def log_and_sign(x: tf.Tensor, p: float) -> tf.Tensor:
    """A number as two of moderate size: (log|x|/p, sign x), or (−1, eᵖ x) where |x| < e⁻ᵖ.

    Args:
      x: [...] float.
      p: > 0.

    Returns:
      [..., 2].
    """
    least = tf.exp(tf.constant(-p, x.dtype))
    size = tf.math.log(tf.maximum(tf.abs(x), least)) / p
    return tf.stack([size, tf.clip_by_value(x / least, -1.0, 1.0)], -1)
