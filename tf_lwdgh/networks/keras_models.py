"""Any functional Keras model as a backbone: its BatchNorm replaced by ours on the way in, a head put on it.

Keras's own BatchNormalization stops a gradient in the variance, so that a gradient's gradient, which the
outer loop is, comes out wrong (see layers/batch_norm.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tf_lwdgh import config
from tf_lwdgh.networks.backbones import HEAD, NO_MEMORY
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization

_NOISE = (
    keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise,
    keras.layers.AlphaDropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)  # fmt: skip
_NORMS = (keras.layers.BatchNormalization,)


def adopt(
    keras_model: keras.Model, n_way: int, *, drop_noise: bool = False, name: str | None = None
) -> keras.Model:
    """A copy of a model that can be a backbone; its weights are kept.

    Args:
      keras_model: functional or sequential, of one input [B, H, W, C] and one output: features [B, D], or
        a map [B, H, W, D], which is averaged over its places.
      n_way: the width of the new head, a Dense layer on the features.
      drop_noise: leave out dropout and other noise, which would make the support loss random.
      name: of the copy; None: the model's.

    Raises:
      ValueError: the model can't be a backbone; the message names the layer and the rule.
    """
    _check_model(keras_model)
    for layer in leaves(keras_model):
        _check_layer(layer, drop_noise)
    copy = keras.models.clone_model(keras_model, clone_function=_clone, recursive=True)
    copy.set_weights(keras_model.get_weights())
    features = copy.outputs[0]
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    head = keras.layers.Dense(n_way, name=HEAD, dtype=features.dtype)
    return keras.Model(copy.inputs, head(features), name=name or keras_model.name)


@config.configurable
def keras_application(
    *,
    image_size: int = 84,
    channels: int = 3,
    n_way: int = 5,
    name: str = "MobileNetV2",
    weights: str | None = None,
    drop_noise: bool = True,
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
      options: what else the maker takes, such as {'alpha': 0.35}.

    Raises:
      ValueError: there is no such network, or it can't be a backbone.
    """
    maker = getattr(keras.applications, str(name), None)
    if maker is None or not callable(maker):
        known = [n for n in dir(keras.applications) if n[0].isupper()]
        raise ValueError(
            f"keras_application.name must be one of {', '.join(known)}. "
            f"Received: keras_application.name = {name!r}."
        )
    shape = (image_size, image_size, channels)
    given = {"include_top": False, "weights": weights, "input_shape": shape}
    return adopt(maker(**given, **(options or {})), n_way, drop_noise=drop_noise)


def leaves(keras_model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models within it."""
    for layer in keras_model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def _check_model(model: keras.Model) -> None:
    functional = isinstance(model, (keras.Sequential, keras.src.models.functional.Functional))
    if not functional or not model.built:
        raise ValueError(
            "adopt: a backbone must be a functional or built sequential Keras model. "
            f"Received: {type(model).__name__} named {model.name!r}."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "adopt: a backbone must have one input and one output. "
            f"Received: {len(model.inputs)} and {len(model.outputs)} of {model.name!r}."
        )
    ranks = len(model.inputs[0].shape), len(model.outputs[0].shape)
    if ranks[0] != 4 or ranks[1] not in (2, 4):
        raise ValueError(
            "adopt: a backbone must map images [B, H, W, C] to features [B, D] or a map [B, H, W, D]. "
            f"Received: {tuple(model.inputs[0].shape)} to {tuple(model.outputs[0].shape)}."
        )


def _check_layer(layer: keras.layers.Layer, drop_noise: bool) -> None:
    if isinstance(layer, _NOISE) and not drop_noise:
        raise ValueError(
            "adopt: noise would make the support loss random; pass drop_noise=True to leave it out "
            f"(keras_application.drop_noise). Received: {type(layer).__name__} named {layer.name!r}."
        )
    if isinstance(layer, _NORMS):
        last = layer.axis in (-1, len(layer.input.shape) - 1)
        if not last or len(layer.input.shape) not in (2, 4):
            raise ValueError(
                "adopt: BatchNormalization must be over the last axis of [B, D] or [B, H, W, C]. "
                f"Received: axis {layer.axis} of {tuple(layer.input.shape)} in {layer.name!r}."
            )
    if len(layer._inbound_nodes) > 1:
        raise ValueError(
            "adopt: every layer must be used once, since BatchNorm's statistics belong to one place. "
            f"Received: {layer.name!r}, used {len(layer._inbound_nodes)} times."
        )


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, _NOISE):
        return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
    if isinstance(layer, _NORMS):
        return BatchNormalization(
            momentum=NO_MEMORY, epsilon=layer.epsilon, center=layer.center, scale=layer.scale,
            name=layer.name, dtype=layer.dtype_policy,
        )  # fmt: skip
    return type(layer).from_config(layer.get_config())
