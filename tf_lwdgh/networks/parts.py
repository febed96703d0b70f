# SPDX-License-Identifier: Apache-2.0
"""A Keras model of a learner's own, beside the backbone, as a function of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lwdgh.networks.layers.batch_norm import BatchNormalization, refuse_norms_of_keras
from tf_lwdgh.networks.layers.dropout import dropping
from tf_lwdgh.networks.variables import describe
from tf_lwdgh.types import Tensors


class Part:
    """A Keras model whose parameters are meta-parameters of a learner, such as a relation module.

    Attributes:
      names: a name a trainable variable, beginning with the part's, such as 'relation/conv1/kernel'.
      layer_names: the name of each variable's layer, 'relation/conv1'.
      is_idle: whether batch statistics cancel each variable, so that its gradient is always 0.
      variables: the trainable variables.
      state_variables: BatchNorm's averages.
      state_names: their names.

    Args:
      name: the part's.
      keras_model: of any inputs and outputs; its BatchNorm must be layers.batch_norm's.
      offset: where its averages begin in the state of all.
    """

    def __init__(self, name: str, keras_model: keras.Model, offset: int) -> None:
        refuse_norms_of_keras(keras_model, f"The part {name!r}")
        self.variables = list(keras_model.trainable_variables)
        fixed = keras_model.non_trainable_variables
        self._is_average = [v.dtype.startswith("float") for v in fixed]
        # Recurrent layers have seeds there too, of a dropout that they don't have: values, since a graph
        # that reads their variables could not be exported without them.
        self._seeds = [None if yes else v.numpy() for v, yes in zip(fixed, self._is_average)]
        self.state_variables = [v for v, yes in zip(fixed, self._is_average) if yes]
        described = describe(keras_model, self.variables)
        self.names = [f"{name}/{d.name}" for d in described]
        self.layer_names = [f"{name}/{d.layer_name}" for d in described]
        self.is_idle = [d.is_idle for d in described]
        averages = describe(keras_model, self.state_variables)
        self.state_names = [f"{name}/{d.name}" for d in averages]
        self._keras_model, self._offset = keras_model, offset

    def averages(self, state: Sequence[tf.Tensor]) -> Tensors:
        """This part's averages, of all that there are (Meta.state)."""
        return list(state[self._offset : self._offset + len(self.state_variables)])

    def __call__(
        self,
        own: Mapping[str, tf.Tensor],
        state: Sequence[tf.Tensor],
        inputs: Any,
        *,
        training: bool,
        noise: tf.Tensor | None = None,
    ) -> tuple[Any, Tensors]:
        """What the part makes of its inputs.

        Args:
          own: the learner's own meta-parameters, these among them (Meta.own).
          state: BatchNorm's averages of the network and of all parts (Meta.state).
          inputs: as the Keras model takes them.
          training: whether BatchNorm takes the batch's own statistics.
          noise: [2] int64, the key that Dropout draws by; None: nothing is dropped.

        Returns:
          The outputs, and the state, in which this part's averages are the batch's with training=True.
        """
        end = self._offset + len(self.state_variables)
        params, averages = [own[name] for name in self.names], iter(self.averages(state))
        fixed = [next(averages) if seed is None else tf.constant(seed) for seed in self._seeds]
        with dropping(noise):
            outputs, fixed = self._keras_model.stateless_call(params, fixed, inputs, training=training)
        mine = [v for v, yes in zip(fixed, self._is_average) if yes]
        return outputs, [*state[: self._offset], *mine, *state[end:]]


def averaging(width: int, dtype: str) -> keras.Model:
    """A network without parameters, for a part whose averages are of its inputs [B, width] themselves."""
    inputs = keras.Input([width], dtype=dtype)
    norm = BatchNormalization(0.0, center=False, scale=False, name="norm", dtype=dtype)
    return keras.Model(inputs, norm(inputs), name="averaging")
