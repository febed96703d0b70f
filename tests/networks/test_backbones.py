# SPDX-License-Identifier: Apache-2.0
"""Backbones: published sizes, shapes, saving, and the functional view."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.backbones import convnet4, resnet12
from tf_lwdgh.networks.encoders import adacnn, gnn_encoder, metanet_encoder, relation_encoder, snail_resnet
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.kernels.plain import plain_operations
from tf_lwdgh.networks.resnet18 import resnet18


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


def test_resnet18_has_the_published_size_and_maps():
    model = resnet18()
    assert size(model) == 11_176_512 + 512 * 5 + 5
    maps = {layer.name: layer.output.shape[1] for layer in model.layers if layer.name.endswith("2_norm")}
    assert [maps[f"stage{i}_block2_2_norm"] for i in (1, 2, 3, 4)] == [56, 28, 14, 7]
    assert model.get_layer("features").output.shape == (None, 512)


def test_resnet18_is_the_network_of_its_equations():
    """One stage of stride 1 and one of stride 2, against plain sums over windows in NumPy."""
    model = resnet18(image_size=6, channels=2, n_way=3, widths=(3, 4), stem="small", dtype="float64")
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.dtype == "float64":
            v.assign(rng.uniform(0.5, 1.5, v.shape) * (1 if "norm" in v.path else rng.choice([-1, 1], v.shape)))
    images = rng.normal(size=(2, 6, 6, 2))

    def conv_norm(x, name, stride=1):
        kernel = model.get_layer(f"{name}_conv").kernel.numpy()
        p = len(kernel) // 2
        x = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        x = np.einsum("bhwcij,ijcf->bhwf", windows[:, ::stride, ::stride], kernel)
        norm = model.get_layer(f"{name}_norm")
        gamma, beta, mean, variance = (w.numpy() for w in norm.weights)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    x = np.maximum(conv_norm(images, "stem"), 0)
    for block, stride in (("stage1_block1", 1), ("stage1_block2", 1), ("stage2_block1", 2), ("stage2_block2", 1)):
        y = np.maximum(conv_norm(x, f"{block}_1", stride), 0)
        shortcut = conv_norm(x, f"{block}_shortcut", stride) if stride == 2 else x
        x = np.maximum(conv_norm(y, f"{block}_2") + shortcut, 0)
    kernel, bias = (w.numpy() for w in model.get_layer("head").weights)
    np.testing.assert_allclose(model(images), x.mean((1, 2)) @ kernel + bias, rtol=1e-10)


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
    _, state = model.apply(model.values(), model.state(), tf.random.normal([4, 20, 20, 3]) + 5, training=True)
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
        (resnet18, {"image_size": 31}, "at least 32 × 32 pixels. Received: image_size=31 .*ImageConfig"),
        (resnet18, {"stem": "large"}, "resnet18.stem must be one of imagenet, small. Received: stem='large'"),
        (resnet18, {"widths": ()}, "resnet18.widths must be from 1 to 8192"),
        (convnet4, {"image_size": 15}, "at least 16 × 16 pixels. Received: image_size=15 .*ImageConfig"),
        (resnet12, {"n_way": 0}, "n_way must be at least 1. Received: 0"),
        (convnet4, {"filters": 0}, "convnet4.filters must be from 1 to 8192. Received: 0"),
        (convnet4, {"filters": 10**9}, "convnet4.filters must be from 1 to 8192. Received: 1000000000"),
        (convnet4, {"blocks": -1}, "convnet4: blocks must be at least 1. Received: -1"),
        (convnet4, {"blocks": 10**9}, r"1000000000 poolings need images of at least 2\*\*1000000000 "),
        (resnet12, {"widths": (8, 0)}, r"resnet12.widths must be from 1 to 8192. Received: \(8, 0\)"),
        (resnet12, {"widths": ()}, r"resnet12.widths must be from 1 to 8192. Received: \(\)"),
        (snail_resnet, {"n_features": 10**9}, "snail_resnet.n_features must be from 1 to 8192"),
        (relation_encoder, {"filters": 0}, "relation_encoder.filters must be from 1 to 8192"),
        (metanet_encoder, {"filters": 0}, "metanet_encoder.filters must be from 1 to 8192"),
        (gnn_encoder, {"n_features": 10**9}, "gnn_encoder.n_features must be from 1 to 8192"),
        (gnn_encoder, {"n_features": 1.5}, "gnn_encoder.n_features must be an integer"),
        (gnn_encoder, {"dropout": (0.4, 1.0)}, r"gnn_encoder.dropout must be in \[0, 1\). Received: 0.4, 1.0"),
        (snail_resnet, {"dropout": -1}, r"snail_resnet.dropout must be in \[0, 1\). Received: -1"),
        (snail_resnet, {"dropout": "x"}, "snail_resnet.dropout must be a number. Received: .* = 'x'"),
    ],
)
def test_impossible_sizes_are_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_model_without_a_head_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="logits")])
    with pytest.raises(ValueError, match="last layer must be a Dense layer named 'head'. Received: Dense"):
        FunctionalModel(model)


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (adacnn, {"filters": 3}),
        (gnn_encoder, {"n_features": 3}),
        (metanet_encoder, {"filters": 3}),
        (relation_encoder, {"filters": 3}),
        (resnet18, {"stem": "small", "widths": (3, 4)}),
        (snail_resnet, {"widths": (3, 4), "n_features": 3}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_network_by_its_kernels_is_that_by_plain_operations(build, settings):
    """Its logits in training, and the gradients of a loss."""
    keras.utils.set_random_seed(0)
    model = build(image_size=32, n_way=3, dtype="float64", **settings)
    images = tf.constant(np.random.default_rng(0).normal(size=(4, 32, 32, 3)))

    def results():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_sum(tf.sin(logits))
        return [logits, *tape.gradient(loss, model.trainable_variables)]

    ours = results()
    with plain_operations():
        theirs = results()
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
