"""The only bridge from a Keras model to pure functions of (parameters, state, images).

The head, the model's last Dense layer, is applied here and not by Keras, so that it may have any number
of ways; the rest of the model, the body, runs through `stateless_call`.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_lwdgh.backbones import HEAD
from tf_lwdgh.layers import BatchNormalization
from tf_lwdgh.types import Tensors


class FunctionalModel:
    """A Keras model seen as a function.

    Attributes:
      keras_model: the model.
      variables: its trainable variables; the head's kernel and bias come last.
      names: a readable name a variable, such as 'conv1/kernel'.
      layer_names: the name of each variable's layer.
      is_batch_norm: whether each variable is a BatchNorm's scale or offset.
      is_head: whether each variable is the head's.
      n_way: the width of the Keras model's head.
    """

    def __init__(self, keras_model: keras.Model) -> None:
        head = keras_model.layers[-1]
        if head.name != HEAD or not isinstance(head, keras.layers.Dense):
            raise ValueError(
                f"A backbone's last layer must be a Dense layer named {HEAD!r}. "
                f"Received: {type(head).__name__} named {head.name!r}."
            )
        self.keras_model = keras_model
        self.body = keras.Model(keras_model.inputs, head.input, name="body")
        self.variables = [*self.body.trainable_variables, head.kernel, head.bias]
        self.state_variables = list(self.body.non_trainable_variables)
        owner = {id(v): layer for layer in keras_model.layers for v in layer.variables}
        layers = [owner[id(v)] for v in self.variables]
        self.layer_names = [layer.name for layer in layers]
        self.names = [f"{layer.name}/{v.name}" for layer, v in zip(layers, self.variables)]
        self.is_batch_norm = [isinstance(layer, BatchNormalization) for layer in layers]
        self.is_head = [layer is head for layer in layers]
        self.n_way = head.units
        self.image_shape = tuple(keras_model.inputs[0].shape[1:])

    def values(self) -> Tensors:
        """The parameters' present values, one tensor a variable."""
        return [tf.convert_to_tensor(v) for v in self.variables]

    def state(self) -> Tensors:
        """The present BatchNorm averages: mean and variance of each layer in turn."""
        return [tf.convert_to_tensor(v) for v in self.state_variables]

    def apply(
        self, params: Tensors, state: Tensors, images: tf.Tensor, *, training: bool
    ) -> tuple[tf.Tensor, Tensors]:
        """The logits of some images.

        Args:
          params: one tensor a variable; the head's kernel [D, N] and bias [N] may have any N.
          state: BatchNorm's averages, used with training=False.
          images: [B, H, W, C].
          training: whether BatchNorm takes the batch's own statistics.

        Returns:
          logits [B, N], and the state; with training=True that is the batch's statistics.
        """
        features, new_state = self.body.stateless_call(params[:-2], state, images, training=training)
        return tf.matmul(features, params[-2]) + params[-1], new_state
