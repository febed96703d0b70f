# SPDX-License-Identifier: Apache-2.0
"""What is known of a Keras model's variables: readable names, whose they are, which do nothing."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras

from tf_lwdgh.networks.layers.batch_norm import BatchNormalization

_LINEAR = (
    keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D, keras.layers.Dense,
)  # fmt: skip


class Described(NamedTuple):
    """A variable."""

    name: str  # such as 'conv1/kernel', unique within the model
    layer_name: str  # such as 'conv1'; the same for all variables of a layer and of no other
    layer: keras.layers.Layer
    is_idle: bool  # batch statistics cancel it, so that its gradient is always 0


class Leaf(NamedTuple):
    """A layer that holds variables itself."""

    path: tuple[str, ...]  # its name, after those of the models it lies in
    layer: keras.layers.Layer


def describe(keras_model: keras.Model, variables: Sequence[keras.Variable]) -> list[Described]:
    """The facts of each of some variables of a model.

    A layer in a model within the model goes by its own name where that is unique, else by the inner
    model's too, 'block2/conv'; a variable in a layer of several likewise, 'attention/query/kernel'.
    """
    found = list(leaves(keras_model))
    names = _layer_names(found)
    owner = {id(v): i for i, leaf in enumerate(found) for v in leaf.layer.variables}
    own_names = {id(v): name for leaf in found for v, name in _variable_names(leaf.layer)}
    idle = {id(v) for v in _idle(keras_model)}
    return [
        Described(
            f"{names[owner[id(v)]]}/{own_names[id(v)]}",
            names[owner[id(v)]],
            found[owner[id(v)]].layer,
            id(v) in idle,
        )
        for v in variables
    ]


def leaves(keras_model: keras.Model, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The layers of a model that hold variables themselves, those of models within it too."""
    for layer in keras_model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer, (*path, layer.name))
        else:
            for part in getattr(layer, "sublayers", (layer,)):
                yield Leaf((*path, part.name), part)


def _layer_names(found: Sequence[Leaf]) -> list[str]:
    """A name a leaf: as little of the end of its path as tells it from the others."""
    counts = collections.Counter(leaf.path[-n:] for leaf in found for n in range(1, len(leaf.path) + 1))
    names = []
    for leaf in found:
        lengths = range(1, len(leaf.path) + 1)
        least = next((n for n in lengths if counts[leaf.path[-n:]] == 1), len(leaf.path))
        names.append("/".join(leaf.path[-least:]))
    return names


def _variable_names(layer: keras.layers.Layer) -> Iterator[tuple[keras.Variable, str]]:
    """A name a variable of a layer; those of several alike are taken from Keras's paths."""
    counts = collections.Counter(v.name for v in layer.variables)
    for variable in layer.variables:
        if counts[variable.name] == 1:
            yield variable, variable.name
        else:
            yield variable, variable.path.rpartition(f"{layer.name}/")[2]


def _idle(keras_model: keras.Model) -> Iterator[keras.Variable]:
    for layer in keras_model.layers:
        yield from getattr(layer, "idle_variables", ())
    for _, layer in leaves(keras_model):
        if isinstance(layer, BatchNormalization):
            yield from _cancelled(layer)


def _cancelled(norm: BatchNormalization) -> Iterator[keras.Variable]:
    """The bias of a layer that nothing but a BatchNorm follows: it moves the mean alone."""
    if not norm._inbound_nodes:
        return
    before = norm.input._keras_history.operation
    if len(before._outbound_nodes) > 1 or not isinstance(before, _LINEAR):
        return
    if before.use_bias and before.activation is keras.activations.linear:
        yield before.bias
