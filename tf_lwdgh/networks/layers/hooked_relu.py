# SPDX-License-Identifier: Apache-2.0
"""A ReLU that a learner may look into and change: what goes in, and what comes out."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_lwdgh.networks.layers.scoped import told

Hook = Callable[[str, tf.Tensor], tf.Tensor]  # a layer's name, what goes in -> what comes out
_HOOK: contextvars.ContextVar[Hook | None] = contextvars.ContextVar("hook", default=None)


def hooking(hook: Hook | None) -> contextlib.AbstractContextManager[None]:
    """Within it, every HookedRelu that is traced gives what the hook makes of its input."""
    return told(_HOOK, hook)


@keras.saving.register_keras_serializable("tf_lwdgh")
class HookedRelu(keras.layers.Layer):
    """max(x, slope · x), or what a hook makes of x.

    Args:
      slope: for x < 0, in [0, 1).
    """

    def __init__(self, slope: float = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= slope < 1:
            raise ValueError(f"slope must be in [0, 1). Received: {slope}.")
        self.slope = slope

    def activation(self, x: tf.Tensor) -> tf.Tensor:
        """The activation alone."""
        return tf.nn.leaky_relu(x, self.slope) if self.slope else tf.nn.relu(x)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        hook = _HOOK.get()
        return self.activation(x) if hook is None else hook(self.name, x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "slope": self.slope}
