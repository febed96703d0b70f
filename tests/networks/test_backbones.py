"""Backbones: published sizes, shapes, saving, and the functional view."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.backbones import convnet4, resnet12
from tf_lwdgh.networks.functional import FunctionalModel


def size(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_convnet4_has_the_published_size():
    assert size(convnet4()) == 32_901
    assert size(convnet4(filters=64)) == 121_093


def test_resnet12_has_the_published_size():
    # 3×3 and 1×1 convolutions, scale and offset of four norms a block, and the head.
    widths = (3, 64, 128, 256, 512)
    blocks = sum(9 * (a * b + 2 * b * b) + a * b + 8 * b for a, b in zip(widths, widths[1:]))
    assert size(resnet12()) == blocks + 512 * 5 + 5
    assert 7.9e6 < size(resnet12()) < 8.1e6
    assert 12.3e6 < size(resnet12(widths=(64, 160, 320, 640))) < 12.6e6


@pytest.mark.parametrize("image_size, channels, n_way", [(28, 1, 20), (84, 3, 5), (17, 4, 2)])
@pytest.mark.parametrize("build", [convnet4, resnet12])
def test_any_image_size_and_way(build, image_size, channels, n_way):
    narrow = {"filters": 3} if build is convnet4 else {"widths": (2, 3, 4, 5)}
    model = build(image_size=image_size, channels=channels, n_way=n_way, **narrow)
    assert model(tf.zeros([2, image_size, image_size, channels])).shape == (2, n_way)


@pytest.mark.parametrize("build", [convnet4, resnet12])
def test_functional_view_equals_the_keras_model(build):
    narrow = {"filters": 3} if build is convnet4 else {"widths": (2, 3, 4, 5)}
    keras_model = build(image_size=20, **narrow)
    model = FunctionalModel(keras_model)
    images = tf.random.normal([4, 20, 20, 3])
    for training in (False, True):
        ours, _ = model.apply(model.values(), model.state(), images, training=training)
        np.testing.assert_allclose(ours, keras_model(images, training=training), atol=1e-6)


def test_functional_view_changes_no_variable_and_returns_the_batch_statistics():
    model = FunctionalModel(convnet4(image_size=20, filters=3))
    before = [np.array(v) for v in model.keras_model.get_weights()]
    _, state = model.apply(
        model.values(), model.state(), tf.random.normal([4, 20, 20, 3]) + 5, training=True
    )
    assert any(np.abs(a - b).max() > 0.1 for a, b in zip(state, model.state()))
    for a, b in zip(before, model.keras_model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_names_and_roles_of_variables():
    model = FunctionalModel(convnet4(image_size=20, filters=3, blocks=1))
    assert model.names == [
        "conv1/kernel", "conv1/bias", "norm1/gamma", "norm1/beta", "head/kernel", "head/bias",
    ]  # fmt: skip
    assert model.layer_names == ["conv1", "conv1", "norm1", "norm1", "head", "head"]
    assert model.is_batch_norm == [False, False, True, True, False, False]
    assert model.is_head == [False] * 4 + [True] * 2


def test_backbones_survive_saving_and_loading(tmp_path):
    model = convnet4(image_size=20, filters=3)
    model.save(tmp_path / "m.keras")
    x = tf.random.normal([2, 20, 20, 3])
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), model(x))


@pytest.mark.parametrize(
    "build, settings, message",
    [
        (convnet4, {"image_size": 15}, "at least 16 × 16 pixels. Received: image_size=15 .*ImageConfig"),
        (resnet12, {"n_way": 0}, "n_way must be at least 1. Received: 0"),
        (convnet4, {"filters": 0}, "every width must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_model_without_a_head_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="logits")])
    with pytest.raises(ValueError, match="last layer must be a Dense layer named 'head'. Received: Dense"):
        FunctionalModel(model)
