"""The only bridge from a Keras model to pure functions of (parameters, state, images).

Two layers are applied here and not by Keras: the head, the model's last Dense layer, so that it may have
any number of ways; and a first ConvBlock, the stem, so that what it needs of the images is computed once
however often the parameters change. The rest of the model, the body, runs through `stateless_call`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh.networks.backbones import HEAD
from tf_lwdgh.networks.kernels.image_block import Patches
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.layers.conv_block import ConvBlock
from tf_lwdgh.types import Tensors


class Prepared(NamedTuple):
    """Images with what a model needs of them alone."""

    images: tf.Tensor  # [B, H, W, C]
    patches: Patches | None


class FunctionalModel:
    """A Keras model seen as a function.

    Attributes:
      keras_model: the model.
      variables: its trainable variables; the head's kernel and bias come last.
      names: a readable name a variable, such as 'conv1/kernel'.
      layer_names: the name of each variable's layer.
      is_batch_norm: whether each variable is a BatchNorm's scale or offset.
      is_head: whether each variable is the head's.
      is_idle: whether batch statistics cancel each variable, so that its gradient is always 0.
      n_way: the width of the Keras model's head.
      n_features: the width of what the head takes.
    """

    def __init__(self, keras_model: keras.Model) -> None:
        head = keras_model.layers[-1]
        if head.name != HEAD or not isinstance(head, keras.layers.Dense):
            raise ValueError(
                f"A backbone's last layer must be a Dense layer named {HEAD!r}. "
                f"Received: {type(head).__name__} named {head.name!r}."
            )
        self.keras_model = keras_model
        self.stem, body_inputs = _stem(keras_model)
        self.body = keras.Model(body_inputs, head.input, name="body")
        parts = [self.body] if self.stem is None else [self.stem, self.body]
        self.variables = [v for part in parts for v in part.trainable_variables]
        self.variables += [head.kernel, head.bias]
        self.state_variables = [v for part in parts for v in part.non_trainable_variables]
        owner = {id(v): layer for layer in _leaves(keras_model.layers) for v in layer.variables}
        layers = [owner[id(v)] for v in self.variables]
        self.layer_names = [layer.name for layer in layers]
        self.names = [f"{layer.name}/{v.name}" for layer, v in zip(layers, self.variables)]
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(
                "A backbone's layers must have different names, within models of the model too. "
                f"Received twice: {', '.join(twice)}."
            )
        self.is_batch_norm = [isinstance(layer, BatchNormalization) for layer in layers]
        self.is_head = [layer is head for layer in layers]
        idle = {id(v) for layer in keras_model.layers for v in getattr(layer, "idle_variables", ())}
        self.is_idle = [id(v) in idle for v in self.variables]
        self.n_way = head.units
        self.n_features = int(head.kernel.shape[0])
        self.image_shape = tuple(keras_model.inputs[0].shape[1:])

    def values(self) -> Tensors:
        """The parameters' present values, one tensor a variable."""
        return [tf.convert_to_tensor(v) for v in self.variables]

    def state(self) -> Tensors:
        """The present BatchNorm averages: mean and variance of each layer in turn."""
        return [tf.convert_to_tensor(v) for v in self.state_variables]

    def prepare(self, images: tf.Tensor) -> Prepared:
        """What `apply` needs of some images, where it is called on them more than once."""
        return Prepared(images, None if self.stem is None else self.stem.patches(images))

    def apply(
        self, params: Tensors, state: Tensors, images: tf.Tensor | Prepared, *, training: bool
    ) -> tuple[tf.Tensor, Tensors]:
        """The logits of some images.

        Args:
          params: one tensor a variable; the head's kernel [D, N] and bias [N] may have any N.
          state: BatchNorm's averages, used with training=False.
          images: [B, H, W, C], or what `prepare` made of them.
          training: whether BatchNorm takes the batch's own statistics.

        Returns:
          logits [B, N], and the state; with training=True that is the batch's statistics.
        """
        features, state = self.features(params, state, images, training=training)
        return self.head(params, features), state

    def features(
        self, params: Tensors, state: Tensors, images: tf.Tensor | Prepared, *, training: bool
    ) -> tuple[tf.Tensor, Tensors]:
        """What the head takes of some images: [B, D], and the state, as `apply` gives it."""
        prepared = images if isinstance(images, Prepared) else Prepared(images, None)
        x, params, state, stem_state = prepared.images, list(params), list(state), []
        if self.stem is not None:
            count, kept = len(self.stem.trainable_variables), len(self.stem.non_trainable_variables)
            x, stem_state = self.stem.stateless_call(
                params[:count], state[:kept], x, training=training, patches=prepared.patches
            )
            params, state = params[count:], state[kept:]
        features, body_state = self.body.stateless_call(params[:-2], state, x, training=training)
        return features, [*stem_state, *body_state]

    @staticmethod
    def head(params: Tensors, features: tf.Tensor) -> tf.Tensor:
        """Logits [B, N] of features [B, D]; `params` ends with the head's kernel [D, N] and bias [N]."""
        return tf.matmul(features, params[-2]) + params[-1]


def _stem(keras_model: keras.Model) -> tuple[ConvBlock | None, list]:
    """The model's first layer, where it is a ConvBlock on images, and the inputs of the rest."""
    first = next(x for x in keras_model.layers if not isinstance(x, keras.layers.InputLayer))
    if isinstance(first, ConvBlock) and first.on_images:
        return first, [first.output]
    return None, keras_model.inputs


def _leaves(layers: list[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    """The layers that hold variables themselves, those of models within the model among them."""
    for layer in layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer.layers)
        else:
            yield from getattr(layer, "sublayers", (layer,))
