# SPDX-License-Identifier: Apache-2.0
"""Convnet4's block: on images and on features, hand-derived and plain, to second order."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.kernels import image_block
from tf_lwdgh.networks.kernels.image_block import conv_norm_relu_pool, patch_moments
from tf_lwdgh.networks.layers.conv_block import ConvBlock

EPSILON = 1e-3
FILTERS = 4


def plain_block(images, kernel, gamma, beta):
    z = tf.nn.conv2d(images, kernel, 1, "SAME")
    mean = tf.reduce_mean(z, [0, 1, 2])
    variance = tf.reduce_mean(tf.square(z - mean), [0, 1, 2])
    y = gamma * (z - mean) / tf.sqrt(variance + EPSILON) + beta
    return tf.nn.max_pool2d(tf.nn.relu(y), 2, 2, "VALID"), mean, variance


def hand_derived(images, kernel, gamma, beta):
    return conv_norm_relu_pool(images, patch_moments(images), kernel, gamma, beta, epsilon=EPSILON)


def orders(block, images, weights, seed=3):
    """Values, first derivatives, and second derivatives of a random functional of both."""
    r = np.random.default_rng(seed)
    random = lambda x: tf.constant(r.normal(size=x.shape))  # noqa: E731
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            values = block(images, *weights)
            total = tf.add_n([tf.reduce_sum(random(v) * tf.sin(v)) for v in values])
        first = inner.gradient(total, weights)
        slope = tf.add_n([tf.reduce_sum(random(f) * tf.sin(f)) for f in first])
    return [*values, *first, *outer.gradient(slope, weights)]


def inputs(size=(6, 8), scale=1.0, batch=5, shift=3.0):
    r = np.random.default_rng(1)
    images = tf.constant(r.normal(size=(batch, *size, 2)) + shift)
    kernel = tf.constant(r.normal(size=(3, 3, 2, FILTERS)))
    gamma = tf.constant([scale, 0.5, -2.0, 1.5], tf.float64)
    return images, [kernel, gamma, tf.constant(r.normal(size=FILTERS))]


@pytest.mark.parametrize("chunk_bytes", [2**30, 2000], ids=["whole", "chunks"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=["even", "odd"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-8, 0.0])
def test_block_on_images_equals_plain_operations_to_second_order(scale, size, chunk_bytes, monkeypatch):
    monkeypatch.setattr(image_block, "_CHUNK_BYTES", chunk_bytes)
    images, weights = inputs(size, scale)
    ours = tf.function(lambda: orders(hand_derived, images, weights), autograph=False)()
    for a, b in zip(ours, orders(plain_block, images, weights)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


def test_patch_moments_equal_their_definition():
    images = inputs(size=(5, 4))[0].numpy()
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    cuts = [padded[:, i : i + 5, j : j + 4] for i in range(3) for j in range(3)]
    rows = np.concatenate(cuts, -1).reshape(-1, 18)
    for dtype, tolerance in ((tf.float64, 1e-12), (tf.float32, 1e-5)):
        mean, covariance = patch_moments(tf.constant(images, dtype))
        np.testing.assert_allclose(mean, rows.mean(0), rtol=tolerance)
        np.testing.assert_allclose(covariance, np.cov(rows.T, ddof=0), rtol=0, atol=20 * tolerance)


def test_variance_keeps_its_digits_where_the_mean_is_large():
    images, (kernel, gamma, beta) = inputs(size=(28, 28), shift=0.0)
    bright = [tf.cast(x, tf.float32) for x in (images + 100.0, kernel, gamma, beta)]
    low = hand_derived(*bright).variance
    high = plain_block(*(tf.cast(x, tf.float64) for x in bright))[2]
    np.testing.assert_allclose(low, high, rtol=1e-3)


def test_constant_images_give_finite_derivatives():
    images, weights = tf.ones([2, 4, 4, 2], tf.float64), inputs()[1]
    for x in orders(hand_derived, images, weights):
        assert np.isfinite(x).all()


def test_chunks_are_made_one_after_the_other(monkeypatch):
    monkeypatch.setattr(image_block, "_CHUNK_BYTES", 1000)
    images, weights = inputs()
    graph = tf.function(lambda: conv_norm_relu_pool(
        images, patch_moments(images), *weights, epsilon=EPSILON
    )).get_concrete_function().graph  # fmt: skip
    convolutions = [op for op in graph.get_operations() if op.type == "Conv2D"]
    chained = [op for op in graph.get_operations() if op.type == "Identity" and op.control_inputs]
    assert len(convolutions) == 10 and len(chained) == 8  # 5 chunks, of the moments and of the block


def layer(on_images, fused=True):
    block = ConvBlock(3, suffix="1", fused=fused, on_images=on_images, dtype="float64")
    block.build((None, 6, 6, 2))
    r = np.random.default_rng(9)
    for v in block.trainable_variables:
        v.assign(r.normal(size=v.shape))
    return block


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("on_images", [True, False])
def test_layer_equals_its_plain_self(on_images, training):
    x = inputs(size=(6, 6))[0]
    fused, plain = layer(on_images), layer(on_images, fused=False)
    for block in (fused, plain):
        block(x, training=True)
    np.testing.assert_allclose(fused(x, training=training), plain(x, training=training), rtol=1e-9)
    for ours, theirs in zip(fused.non_trainable_variables, plain.non_trainable_variables):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_fused_layer_on_images_gives_them_no_gradient_and_the_plain_one_does():
    x = inputs(size=(6, 6))[0]
    for fused, expected in ((True, True), (False, False)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(True, fused)(x, training=True)
        assert (tape.gradient(y, x) is None) == expected
