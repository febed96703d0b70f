# SPDX-License-Identifier: Apache-2.0
"""Any functional Keras model as a backbone: its BatchNorm replaced by ours, a head put on it.

Keras's own BatchNormalization stops a gradient in the variance, so that a gradient's gradient, which
the outer loop is, comes out wrong (see layers/batch_norm.py).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lwdgh import config
from tf_lwdgh.networks import adoptable
from tf_lwdgh.networks.adoptable import is_noise, is_norm
from tf_lwdgh.networks.backbones import HEAD, NO_MEMORY
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization

DTYPES = ("float32", "float64")
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)


def adopt(
    keras_model: keras.Model,
    n_way: int,
    *,
    drop_noise: bool = False,
    drop_scaling: bool = False,
    name: str | None = None,
) -> keras.Model:
    """A copy of a model that can be a backbone; its weights are kept.

    Args:
      keras_model: functional or sequential, of one input [B, H, W, C] and one output: features
        [B, D], or a map [B, H, W, D], which is averaged over its places. Models within it are copied
        too.
      n_way: the width of the new head, a Dense layer on the features.
      drop_noise: leave out dropout and other noise, which would make the support loss random.
      drop_scaling: leave out Rescaling and Normalization, since the images come normalised.
      name: of the copy; None: the model's.

    Raises:
      ValueError: the model can't be a backbone; the message names the layer and the rule.
    """
    if n_way < 1:
        raise ValueError(f"adopt: n_way must be at least 1. Received: {n_way}.")
    adoptable.check(keras_model, drop_noise=drop_noise)
    copier = _Copier(drop_scaling)
    copy = keras.models.clone_model(keras_model, clone_function=copier, recursive=True)
    for original, layer in copier.pairs:
        layer.set_weights(original.get_weights())
    features = copy.outputs[0]
    if len(features.shape) == 4:
        pool = keras.layers.GlobalAveragePooling2D(name="features", dtype=features.dtype)
        features = pool(features)
    head = keras.layers.Dense(n_way, name=HEAD, dtype=features.dtype)
    return keras.Model(copy.inputs[0], head(features), name=name or keras_model.name)


@config.configurable
def keras_application(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    name: str = "MobileNetV2",
    weights: str | None = None,
    drop_noise: bool = True,
    drop_scaling: bool = True,
    dtype: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A network of keras.applications as a backbone, without its own classifier.

    Args:
      image_size: height and width in pixels; most of them need 32 at least.
      channels: of the images.
      n_way: width of the head.
      name: of the maker in keras.applications, such as 'MobileNetV2' or 'ResNet50V2'.
      weights: None, or a file of weights for the network without its classifier.
      drop_noise: leave out dropout and other noise; False refuses networks that have some.
      drop_scaling: leave out the network's own scaling of pixels, since the images come normalised.
      dtype: 'float32', or 'float64' for checks.
      options: what else the maker takes, such as {'alpha': 0.35}.

    Raises:
      ValueError: there is no such network, or it can't be a backbone.
    """
    known = [n for n in dir(keras.applications) if n[0].isupper()]
    _require("name", name in known, f"must be one of {', '.join(known)}", name)
    _require("dtype", dtype in DTYPES, f"must be one of {', '.join(DTYPES)}", dtype)
    maker, options = getattr(keras.applications, name), dict(options or {})
    given = {
        "include_top": False,
        "weights": weights,
        "input_shape": (image_size, image_size, channels),
    }
    free = [n for n in inspect.signature(maker).parameters if n not in given]
    rule = f"may hold {', '.join(free)} for {name}"
    _require("options", set(options) <= set(free), rule, options)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = maker(**given, **options)
    finally:
        keras.config.set_dtype_policy(before)
    return adopt(model, n_way, drop_noise=drop_noise, drop_scaling=drop_scaling)


def _require(argument: str, holds: bool, rule: str, value: object) -> None:
    if not holds:
        binding = f"keras_application.{argument}"
        raise ValueError(f"{binding} {rule}. Received: {binding} = {value!r}.")


@dataclasses.dataclass
class _Copier:
    """Makes a layer's copy, or what takes its place.

    Attributes:
      drop_scaling: see `adopt`.
      pairs: layers whose weights are to be copied, with their copies.
    """

    drop_scaling: bool
    pairs: list = dataclasses.field(default_factory=list)

    def __call__(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        if is_noise(layer) or (self.drop_scaling and isinstance(layer, _SCALING)):
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        if isinstance(layer, keras.layers.Normalization):
            return _fixed(layer)
        copy = _norm(layer) if is_norm(layer) else _same(layer)
        if isinstance(copy, keras.layers.Layer):  # and not an operation of keras.ops
            self.pairs.append((layer, copy))
        return copy


def _norm(layer: keras.layers.BatchNormalization) -> BatchNormalization:
    return BatchNormalization(
        momentum=NO_MEMORY, epsilon=layer.epsilon, center=layer.center, scale=layer.scale,
        name=layer.name, dtype=layer.dtype_policy,
    )  # fmt: skip


def _fixed(layer: keras.layers.Normalization) -> keras.layers.Rescaling:
    """With the present mean and variance as constants, which no outer loop moves."""
    mean = np.ravel(keras.ops.convert_to_numpy(layer.mean))
    deviation = np.sqrt(np.ravel(keras.ops.convert_to_numpy(layer.variance)))
    factor = 1 / np.maximum(deviation, keras.config.epsilon())  # as Keras has it
    return keras.layers.Rescaling(factor.tolist(), (-mean * factor).tolist(), name=layer.name, dtype=layer.dtype_policy)


def _same(layer: keras.layers.Layer) -> keras.layers.Layer:
    try:
        return type(layer).from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "adopt: every layer must be one that its own get_config and from_config can copy. "
            f"Received: {type(layer).__name__} named {layer.name!r}: {error}"
        ) from error
