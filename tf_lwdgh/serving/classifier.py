# SPDX-License-Identifier: Apache-2.0
"""A learned classifier as a flat dict of named tensors, which can be kept, sent and handed back.

A learner's `adapt` may return any structure of tensors. Here each tensor gets a name from its place
in it: 'params_conv1_kernel' is the tensor of the variable conv1/kernel in the field `params`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lwdgh.networks.functional import FunctionalModel

N_WAY = "n_way"  # the task's ways, an int32 beside what the learner returned
_RESERVED = {N_WAY, "query_images"}
# NumPy has no bfloat16 of its own, and its files lose it; float32 holds all its values.
_KEPT_AS = {tf.bfloat16: tf.float32}


class ClassifierForm:
    """How a learner's adapted structure is written as a flat dict of named tensors.

    Attributes:
      specs: a TensorSpec a name; sizes that depend on the task are None.
      shapes: the sizes a name; 'n_way' stands for the task's ways, None for any other that depends
        on the task.

    Args:
      structure: what the learner returns for a task of any ways; of its tensors only dtype and
        shape count.
      sized: what it returns for a task of as many ways as the network has.
      model: the network, whose variables name the tensors of lists that are one a variable.

    Raises:
      ValueError: something in the structure is no tensor.
    """

    def __init__(self, structure: Any, sized: Any, model: FunctionalModel) -> None:
        self._structure = structure = tf.nest.map_structure(_spec, structure)
        leaves, paths = tf.nest.flatten(structure), list(_paths(structure, _lists(model)))
        for path, leaf in zip(paths, leaves, strict=True):
            if not isinstance(leaf, tf.TensorSpec):
                raise ValueError(
                    "Learner.adapt must return a structure of tensors, to be served. "
                    f"Received: {leaf!r} at {'/'.join(path) or 'its top'}."
                )
        self._names, self._dtypes = _names(paths), [leaf.dtype for leaf in leaves]
        self.specs, self.shapes = {N_WAY: tf.TensorSpec([], tf.int32, N_WAY)}, {N_WAY: []}
        for name, leaf, of_size in zip(self._names, leaves, tf.nest.flatten(sized), strict=True):
            dtype = _KEPT_AS.get(leaf.dtype, leaf.dtype)
            self.specs[name] = tf.TensorSpec(leaf.shape, dtype, name)
            self.shapes[name] = _sizes(leaf.shape, of_size.shape, model.n_way)

    def flatten(self, structure: Any, n_way: tf.Tensor) -> dict[str, tf.Tensor]:
        """The named tensors of an adapted structure of a task with so many ways."""
        leaves = tf.nest.flatten(structure)
        named = {n: tf.cast(x, self.specs[n].dtype) for n, x in zip(self._names, leaves)}
        return {N_WAY: tf.cast(n_way, tf.int32), **named}

    def pack(self, named: Mapping[str, tf.Tensor]) -> Any:
        """The adapted structure of named tensors, as the learner returned it."""
        leaves = [tf.cast(named[name], dtype) for name, dtype in zip(self._names, self._dtypes)]
        return tf.nest.pack_sequence_as(self._structure, leaves)

    def describe(self) -> dict[str, dict[str, object]]:
        """Dtype and shape of each name, as JSON values."""
        return {name: {"dtype": spec.dtype.name, "shape": self.shapes[name]} for name, spec in self.specs.items()}


def _spec(leaf: Any) -> Any:
    return tf.TensorSpec(leaf.shape, leaf.dtype) if tf.is_tensor(leaf) else leaf


def _sizes(shape: tf.TensorShape, sized: tf.TensorShape, n_way: int) -> list[int | str | None]:
    """A shape whose open sizes are called N_WAY where they are the ways."""
    return [N_WAY if size is None and of_size == n_way else size for size, of_size in zip(shape, sized)]


_Lists = list[tuple[list[str], list[tf.TensorShape]]]  # (names, shapes) of lists of variables


def _lists(model: FunctionalModel) -> _Lists:
    """What a list of one tensor a variable looks like: of the parameters, and of the state."""
    state = model.state_variables
    shapes = [tf.TensorShape(v.shape) for v in model.variables]
    # The head is as wide as the task has ways.
    shapes = [s[:-1].concatenate([None]) if h else s for s, h in zip(shapes, model.is_head)]
    return [
        (list(model.names), shapes),
        ([_layer_and_name(v) for v in state], [tf.TensorShape(v.shape) for v in state]),
    ]


def _layer_and_name(variable: keras.Variable) -> str:
    return "/".join(variable.path.split("/")[-2:])


def _paths(structure: Any, lists: _Lists) -> Iterator[tuple[str, ...]]:
    """Where each tensor of a structure is, in the order of tf.nest.flatten."""
    if not tf.nest.is_nested(structure):
        yield ()
        return
    for key, part in _parts(structure, lists):
        yield from ((key, *path) for path in _paths(part, lists))


def _parts(structure: Any, lists: _Lists) -> list[tuple[str, Any]]:
    if isinstance(structure, Mapping):
        return [(str(key), structure[key]) for key in sorted(structure)]
    if hasattr(structure, "_fields"):
        return list(zip(structure._fields, structure))
    if isinstance(structure, (list, tuple)):
        keys = _variables(structure, lists) or [str(i) for i in range(len(structure))]
        return list(zip(keys, structure))
    return [(str(i), leaf) for i, leaf in enumerate(tf.nest.flatten(structure))]


def _variables(parts: Sequence[Any], lists: _Lists) -> list[str] | None:
    """The variables' names, where a list has one tensor a variable."""
    for names, shapes in lists:
        if len(parts) == len(names) and all(
            isinstance(part, tf.TensorSpec) and part.shape.is_compatible_with(shape)
            for part, shape in zip(parts, shapes)
        ):
            return names
    return None


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """A name a path, each a Python identifier, as the arguments of a signature must be."""
    names: list[str] = []
    for path in paths:
        name = re.sub(r"\W", "_", "_".join(path), flags=re.ASCII).strip("_")
        if not name.isidentifier():
            name = f"adapted_{name}".rstrip("_")
        while name in _RESERVED or name in names or keyword.iskeyword(name):
            name += "_"
        names.append(name)
    return names
