# SPDX-License-Identifier: Apache-2.0
"""What a Keras model must be like to become a backbone."""

from __future__ import annotations

from collections.abc import Iterator

import keras
from keras.src.models.functional import Functional

from tf_lwdgh.networks.backbones import HEAD
from tf_lwdgh.networks.variables import leaves

_NOISE = (
    keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise,
    keras.layers.AlphaDropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)  # fmt: skip
_DTYPES = ("float32", "float64")


def is_noise(layer: keras.layers.Layer) -> bool:
    """Whether a layer is dropout or other noise, which can be left out."""
    return isinstance(layer, _NOISE) or type(layer).__name__ == "StochasticDepth"


def is_norm(layer: keras.layers.Layer) -> bool:
    """Whether a layer is Keras's BatchNormalization."""
    return isinstance(layer, keras.layers.BatchNormalization)


def check(model: keras.Model, *, drop_noise: bool) -> None:
    """Makes sure that a model can become a backbone.

    Args:
      model: any.
      drop_noise: whether noise will be left out.

    Raises:
      ValueError: it can't; the message names the layer and the rule.
    """
    _check_model(model)
    for _, layer in leaves(model):
        _check_kind(layer, drop_noise)
        if is_norm(layer):
            _check_norm(layer)
        _check_variables(layer)
        if len(layer._inbound_nodes) > 1:
            _refuse(
                "every layer must be used once, since BatchNorm's statistics belong to one place",
                f"{layer.name!r}, used {len(layer._inbound_nodes)} times",
            )


def _check_model(model: keras.Model) -> None:
    if not isinstance(model, (keras.Sequential, Functional)) or not model.built:
        _refuse(
            "a backbone must be a functional or built sequential Keras model",
            f"{type(model).__name__} named {getattr(model, 'name', '?')!r}",
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        _refuse(
            "a backbone must have one input and one output",
            f"{len(model.inputs)} and {len(model.outputs)} of {model.name!r}",
        )
    ends = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(ends[0]) != 4 or len(ends[1]) not in (2, 4):
        _refuse(
            "a backbone must map images [B, H, W, C] to features [B, D] or a map [B, H, W, D]",
            f"{ends[0]} to {ends[1]}",
        )
    if HEAD in [layer.name for layer in model.layers]:
        _refuse(
            f"no layer may be named {HEAD!r}, which the new last layer is. Give the model up to "
            "its features, without a classifier of its own",
            f"such a layer in {model.name!r}",
        )
    if model.losses:
        _refuse(
            "a task's loss has no other terms, so that regularizers would be without effect. Take "
            "the outer optimizer's or InnerLoop.weight_decay",
            f"{len(model.losses)} of them in {model.name!r}",
        )


def _check_kind(layer: keras.layers.Layer, drop_noise: bool) -> None:
    if is_noise(layer) and not drop_noise:
        _refuse(
            "noise would make the support loss random; pass drop_noise=True to leave it out "
            "(keras_application.drop_noise)",
            _kind(layer),
        )
    if isinstance(layer, keras.layers.Lambda):
        _refuse(
            "a Lambda layer can't be copied; take keras.ops, or a layer of your own with a config",
            f"Lambda named {layer.name!r}",
        )
    for inner in _inside(layer):
        if is_norm(inner) or (is_noise(inner) and _strength(inner) > 0):
            _refuse(
                "BatchNormalization and noise can be replaced in a model and in models within it, "
                "and not in a layer of several",
                f"{_kind(inner)} in {_kind(layer)}",
            )


def _check_norm(layer: keras.layers.BatchNormalization) -> None:
    rank = len(layer.input.shape)
    if layer.axis not in (-1, rank - 1) or rank not in (2, 4):
        _refuse(
            "BatchNormalization must be over the last axis of [B, D] or [B, H, W, C]",
            f"axis {layer.axis} of {tuple(layer.input.shape)} in {layer.name!r}",
        )


def _check_variables(layer: keras.layers.Layer) -> None:
    kind = _kind(layer)
    if not layer.trainable and layer.weights:
        _refuse(
            "every layer must be trainable, since the learner says what it moves (InnerLoop.inner_lr by layer)",
            f"{kind} with trainable=False",
        )
    if layer.weights and not layer.compute_dtype == layer.variable_dtype in _DTYPES:
        _refuse(
            "the layers must compute in float32 or float64; lower precision is for convnet4 and resnet12",
            f"{kind} in {layer.dtype_policy.name}",
        )
    replaced = is_norm(layer) or is_noise(layer) or isinstance(layer, keras.layers.Normalization)
    if layer.non_trainable_variables and not replaced:
        names = ", ".join(v.path for v in layer.non_trainable_variables)
        _refuse(
            "a layer may have no state but BatchNormalization's averages: random seeds and the "
            "like change from call to call",
            f"{kind} with {names}",
        )
    if isinstance(layer, keras.layers.Normalization) and (
        layer.invert or layer.axis not in ((-1,), (len(layer.input.shape) - 1,))
    ):
        _refuse(
            "Normalization must be over the last axis, and not inverted",
            f"axis {layer.axis}, invert={layer.invert} in {layer.name!r}",
        )


def _inside(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers that a layer is made of."""
    return layer._flatten_layers(include_self=False)


def _strength(layer: keras.layers.Layer) -> float:
    """Of noise: 0 for a layer that lets all through."""
    names = ("rate", "stddev", "drop_path_rate")
    return max(float(getattr(layer, name, 0.0)) for name in names)


def _kind(layer: keras.layers.Layer) -> str:
    return f"{type(layer).__name__} named {layer.name!r}"


def _refuse(rule: str, received: str) -> None:
    raise ValueError(f"adopt: {rule}. Received: {received}.")
