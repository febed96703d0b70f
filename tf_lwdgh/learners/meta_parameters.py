# SPDX-License-Identifier: Apache-2.0
"""The variables behind a learner on a network: the network's, and the learner's own."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from tf_lwdgh.aggregators import trees
from tf_lwdgh.learners.base import Learner
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Tensors


class MetaParameters(tf.Module):
    """What a learner's tasks share, as variables; made within a strategy's scope, it is mirrored.

    Attributes:
      model: the network's functional view.
      learner: the learner.
      own: the learner's own meta-parameters by name, those of its parts too.
      own_trained: the names of those that the optimizer trains.
      variables_trained: what the outer loop trains: first the network's, then the learner's own.
      names: a readable name for each of them, such as 'conv1/kernel'.

    Args:
      keras_model: a backbone.
      learner: the learner.

    Raises:
      ValueError: the learner can't work on this network, or names two of its parameters alike.
    """

    def __init__(self, keras_model: keras.Model, learner: Learner) -> None:
        super().__init__(name="meta_parameters")
        self._make(keras_model, learner)

    def change_learner(self, learner: Learner) -> None:
        """Puts another learner on the network, whose values stay; the learner's own parameters are made anew.

        Raises:
          ValueError: as where it is made.
        """
        self._make(self.model.keras_model, learner)

    def _make(self, keras_model: keras.Model, learner: Learner) -> None:
        self.model, self.learner = FunctionalModel(keras_model), learner
        learner.check(self.model)
        own = learner.own(self.model)
        declared = {p.name: p for p in own}
        if len(declared) < len(own):
            raise ValueError(f"{type(learner).__name__} names two of its own parameters alike.")
        # Keras allows no '/' in a name.
        self.own = {
            name: keras.Variable(
                p.initial,
                name=name.replace("/", "."),
                dtype=p.initial.dtype.name,
                trainable=p.trained,
                aggregation="only_first_replica",  # which `assign` sets: all replicas compute the same
            )
            for name, p in declared.items()
        }
        declared = {name: p for name, p in declared.items() if p.trained}
        self.own_trained = list(declared)
        own_layers = [p.layer or name.rpartition("/")[0] or name for name, p in declared.items()]
        in_units = [p.harmonized for p in declared.values()]
        for name, network in learner.parts(self.model).items():
            part = self.model.attach(name, network)
            self.own |= zip(part.names, part.variables)
            self.own_trained += part.names
            own_layers += part.layer_names
            in_units += [not idle for idle in part.is_idle]
        self._trained = [i for i, yes in enumerate(learner.trained(self.model)) if yes]
        self.variables_trained = [self.model.variables[i] for i in self._trained]
        self.variables_trained += [self.own[name] for name in self.own_trained]
        self.names = [self.model.names[i] for i in self._trained] + self.own_trained
        self._layers = [self.model.layer_names[i] for i in self._trained]
        self._layers += own_layers
        self._in_units = [not self.model.is_idle[i] for i in self._trained] + in_units

    def units(self, kind: str) -> trees.Units:
        """The partition of the trained variables whose conflict is measured together.

        Those that are idle, or that the learner keeps out, are in no unit.

        Args:
          kind: 'variable', 'layer' or 'model'.
        """
        return trees.make_units(kind, self.names, self._layers, self._in_units)

    def values(self) -> Meta:
        """The present values."""
        own = {name: tf.convert_to_tensor(v) for name, v in self.own.items()}
        return Meta(self.model.values(), own, self.model.state())

    def flatten(self, meta: Meta) -> Tensors:
        """The part of a structure that belongs to the trained variables, in their order; 0 for None."""
        network = [
            tf.zeros(v.shape, v.dtype) if meta.network[i] is None else meta.network[i]
            for i, v in zip(self._trained, self.variables_trained)
        ]
        return network + [meta.own[name] for name in self.own_trained]

    def replaced(self, meta: Meta, values: Tensors) -> Meta:
        """A structure with other values for the trained variables."""
        network, count = list(meta.network), len(self._trained)
        for i, value in zip(self._trained, values):
            network[i] = value
        own = meta.own | dict(zip(self.own_trained, values[count:]))
        return meta._replace(network=network, own=own)

    def assign_own(self, values: Mapping[str, tf.Tensor]) -> None:
        """Sets some of the learner's own, by name; on every replica to the same."""
        for name, value in values.items():
            self.own[name].assign(value)
