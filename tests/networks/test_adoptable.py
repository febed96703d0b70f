# SPDX-License-Identifier: Apache-2.0
"""Keras models that can't be a backbone are refused, and the message says which layer and why."""

from __future__ import annotations

import keras
import pytest

from tf_lwdgh.networks.keras_models import adopt, keras_application

layers = keras.layers


def ending_in(*parts, **settings) -> keras.Model:
    """A model of some layers, one after the other."""
    images = x = keras.Input((8, 8, 2), **settings)
    for part in parts:
        x = part(x)
    return keras.Model(images, x, name="mine")


class Several(keras.layers.Layer):
    """A layer of several."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x, training=False):
        return self.inner(x, training=training)


class Uncopied(keras.layers.Layer):
    """A layer whose config says too little."""

    def __init__(self, needed, **kwargs):
        super().__init__(**kwargs)

    def call(self, x):
        return x

    def get_config(self):
        return {"name": self.name}


class Subclassed(keras.Model):
    """A model that is not functional."""

    def call(self, x):
        return x


def test_noise_is_refused_unless_it_is_to_be_left_out():
    noisy = ending_in(layers.Dropout(0.5, name="drop"), layers.GaussianNoise(0.1, name="noise"))
    with pytest.raises(ValueError, match="drop_noise=True .* Received: Dropout named 'drop'"):
        adopt(noisy, 5)
    kept = adopt(noisy, 5, drop_noise=True)
    assert all(isinstance(kept.get_layer(n), layers.Identity) for n in ("drop", "noise"))


def frozen():
    layer = layers.Conv2D(2, 3, name="frozen")
    model = ending_in(layer)
    layer.trainable = False
    return model


def twice():
    shared = layers.Dense(2, name="shared")
    return ending_in(shared, shared)


def two_outputs():
    images = keras.Input((8, 8, 1))
    return keras.Model(images, [images, layers.Flatten()(images)])


CASES = {
    "axis": (
        lambda: ending_in(layers.BatchNormalization(axis=1, name="rows")),
        r"over the last axis .* Received: axis 1 of \(None, 8, 8, 2\) in 'rows'",
    ),
    "rank": (
        lambda: ending_in(
            layers.Reshape((64, 2)), layers.BatchNormalization(name="rows"), layers.Flatten()
        ),
        r"of \[B, D\] or \[B, H, W, C\]. Received: axis -1 of \(None, 64, 2\) in 'rows'",
    ),
    "shared": (twice, "used once.* Received: 'shared', used 2 times"),
    "outputs": (two_outputs, "one input and one output. Received: 1 and 2"),
    "shape": (
        lambda: ending_in(layers.Reshape((16, 8))),
        r"to features .* Received: .* to \(None, 16, 8\)",
    ),
    "images": (
        lambda: keras.Model(*[keras.Input((7,))] * 2),
        r"must map images .* Received: \(None, 7\) to",
    ),
    "subclassed": (lambda: Subclassed(name="mine"), "functional or .* Subclassed named 'mine'"),
    "unbuilt": (lambda: keras.Sequential([layers.Dense(2)]), "built sequential .*Sequential named"),
    "no model": (lambda: layers.Dense(2, name="alone"), "Received: Dense named 'alone'"),
    "frozen": (frozen, "every layer must be trainable.*Conv2D named 'frozen' with trainable=False"),
    "lambda": (
        lambda: ending_in(layers.Lambda(lambda x: 2 * x, name="double")),
        "a Lambda layer can't be copied.*Received: Lambda named 'double'",
    ),
    "random": (
        lambda: ending_in(layers.RandomFlip(name="flip")),
        "no state but .* Received: RandomFlip named 'flip' with .*seed",
    ),
    "own state": (
        lambda: ending_in(layers.SpectralNormalization(layers.Conv2D(2, 3), name="spectral")),
        "no state but .* Received: SpectralNormalization named 'spectral' with .*vector_u",
    ),
    "norm within a layer": (
        lambda: ending_in(layers.TimeDistributed(layers.BatchNormalization(name="in"), name="out")),
        "Received: BatchNormalization named 'in' in TimeDistributed named 'out'",
    ),
    "noise within a layer": (
        lambda: ending_in(Several(layers.Dropout(0.1, name="in"), name="out")),
        "Received: Dropout named 'in' in Several named 'out'",
    ),
    "no copy": (
        lambda: ending_in(Uncopied(1, name="odd")),
        "get_config and from_config can copy. Received: Uncopied named 'odd': ",
    ),
    "head": (
        lambda: ending_in(layers.Dense(2, name="head")),
        "no layer may be named 'head'.*Received: such a layer in 'mine'",
    ),
    "regularizer": (
        lambda: ending_in(layers.Conv2D(2, 3, kernel_regularizer="l2")),
        "regularizers would be without effect.*weight_decay. Received: 1 of them in 'mine'",
    ),
    "precision": (
        lambda: ending_in(layers.Conv2D(2, 3, dtype="mixed_bfloat16", name="low")),
        "float32 or float64.*Received: Conv2D named 'low' in mixed_bfloat16",
    ),
    "inverted": (
        lambda: ending_in(layers.Normalization(invert=True, name="back")),
        "not inverted. Received: axis .* invert=True in 'back'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("build, message", CASES.values(), ids=CASES)
def test_what_cannot_be_a_backbone_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        adopt(build(), 5)


def test_what_lies_in_a_model_within_the_model_is_checked_too():
    inner = ending_in(layers.Dropout(0.5, name="drop"))
    with pytest.raises(ValueError, match="Received: Dropout named 'drop'"):
        adopt(ending_in(inner), 5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "NoNet"}, "keras_application.name must be one of .*MobileNetV2.*'NoNet'"),
        ({"name": "mobilenet"}, "keras_application.name must be one of "),  # a module's name
        ({"options": {"width": 2}}, "options may hold alpha, .* for MobileNetV2. .*'width'"),
        ({"options": {"include_top": True}}, "keras_application.options may hold"),
        ({"dtype": "mixed_float16"}, "keras_application.dtype must be one of float32, float64"),
        ({"name": "EfficientNetB0", "drop_noise": False}, "keras_application.drop_noise"),
    ],
)  # fmt: skip
def test_applications_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        keras_application(**settings)


def test_the_head_has_a_way_at_least():
    with pytest.raises(ValueError, match="n_way must be at least 1. Received: 0"):
        adopt(ending_in(layers.Flatten()), 0)
