# SPDX-License-Identifier: Apache-2.0
"""The only bridge from a Keras model to pure functions of (parameters, state, images).

Two layers are applied here and not by Keras: the head, the model's last Dense layer, so that it may have
any number of ways; and a first ConvBlock, the stem, so that what it needs of the images is computed once
however often the parameters change. The rest of the model, the body, runs through `stateless_call`.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh.networks.backbones import HEAD
from tf_lwdgh.networks.kernels.image_block import Patches
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization, refuse_norms_of_keras
from tf_lwdgh.networks.layers.conv_block import ConvBlock
from tf_lwdgh.networks.layers.dropout import dropping
from tf_lwdgh.networks.layers.hooked_relu import Hook, HookedRelu, hooking
from tf_lwdgh.networks.parts import Part
from tf_lwdgh.networks.variables import describe
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
      map_shape: (H, W, C) of the map that the features are, laid out flat; None where they are none.
      state_variables: BatchNorm's averages, first the network's, then those of the parts.
      state_names: a readable name each, such as 'norm1/moving_mean'.
      hooked: the activations that `features` lets a hook replace, by name, in their order.
      parts: the learner's own networks by name, see `attach`.
    """

    def __init__(self, keras_model: keras.Model) -> None:
        head = keras_model.layers[-1]
        if head.name != HEAD or not isinstance(head, keras.layers.Dense):
            raise ValueError(
                f"A backbone's last layer must be a Dense layer named {HEAD!r}. "
                f"Received: {type(head).__name__} named {head.name!r}."
            )
        refuse_norms_of_keras(keras_model, "A backbone")
        self.keras_model = keras_model
        self.stem, body_inputs = _stem(keras_model)
        self.body = keras.Model(body_inputs, head.input, name="body")
        parts = [self.body] if self.stem is None else [self.stem, self.body]
        self.variables = [v for part in parts for v in part.trainable_variables]
        self.variables += [head.kernel, head.bias]
        self.state_variables = [v for part in parts for v in part.non_trainable_variables]
        described = describe(keras_model, self.variables)
        self.names = [d.name for d in described]
        self.layer_names = [d.layer_name for d in described]
        self.is_batch_norm = [isinstance(d.layer, BatchNormalization) for d in described]
        self.is_head = [d.layer is head for d in described]
        self.is_idle = [d.is_idle for d in described]
        self.state_names = [d.name for d in describe(keras_model, self.state_variables)]
        self.n_way = head.units
        self.n_features = int(head.kernel.shape[0])
        self.image_shape = tuple(keras_model.inputs[0].shape[1:])
        self.map_shape = _map_shape(head)
        self.hooked = {x.name: x for x in self.body.layers if isinstance(x, HookedRelu)}
        self.parts: dict[str, Part] = {}
        self._n_state = len(self.state_variables)  # without the parts'

    def attach(self, name: str, keras_model: keras.Model) -> Part:
        """Takes a learner's own network in, whose averages then go with the state of all."""
        part = Part(name, keras_model, len(self.state_variables))
        self.state_variables += part.state_variables
        self.state_names += part.state_names
        self.parts[name] = part
        return part

    def as_maps(self, features: tf.Tensor) -> tf.Tensor:
        """Features [B, D] that are a map laid out flat, as that map: [B, H, W, C]."""
        return tf.reshape(features, [-1, *self.map_shape])

    def another(self) -> keras.Model:
        """A Keras model of the same form with weights of its own: images -> features [B, D]."""
        copy = keras.models.clone_model(self.keras_model)
        return keras.Model(copy.input, copy.layers[-1].input)

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
          logits [B, N], and the state; with training=True the network's is the batch's statistics.
        """
        features, state = self.features(params, state, images, training=training)
        return self.head(params, features), state

    def features(
        self,
        params: Tensors,
        state: Tensors,
        images: tf.Tensor | Prepared,
        *,
        training: bool,
        noise: tf.Tensor | None = None,
        hook: Hook | None = None,
    ) -> tuple[tf.Tensor, Tensors]:
        """What the head takes of some images: [B, D], and the state, as `apply` gives it.

        Args:
          params: see `apply`; likewise state, images and training.
          noise: [2] int64, the key that Dropout draws by; None: nothing is dropped.
          hook: takes the place of each activation in `hooked`, given its name and input.
        """
        prepared = images if isinstance(images, Prepared) else Prepared(images, None)
        x, params, stem_state = prepared.images, list(params), []
        state, of_parts = list(state[: self._n_state]), list(state[self._n_state :])
        if self.stem is not None:
            count, kept = len(self.stem.trainable_variables), len(self.stem.non_trainable_variables)
            x, stem_state = self.stem.stateless_call(
                params[:count], state[:kept], x, training=training, patches=prepared.patches
            )
            params, state = params[count:], state[kept:]
        with dropping(noise), hooking(hook):
            features, body_state = self.body.stateless_call(params[:-2], state, x, training=training)
        return features, [*stem_state, *body_state, *of_parts]

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


def _map_shape(head: keras.layers.Dense) -> tuple[int, int, int] | None:
    """The shape of the map before the layer that lays it out flat for the head."""
    before = head.input._keras_history.operation
    if isinstance(before, keras.layers.Flatten) and len(before.input.shape) == 4:
        return tuple(before.input.shape[1:])
    return None
