# SPDX-License-Identifier: Apache-2.0
"""BatchNorm: forward values, derivatives of first and second order, saving and loading."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.kernels.fused_block import bn_relu_pool
from tf_lwdgh.networks.kernels.moments import batch_moments
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.layers.batch_norm import batch_moments as plain_moments
from tf_lwdgh.networks.layers.conv_block import ConvBlock

EPSILON = 1e-3


def second_derivative_error(layer) -> float:
    """|autodiff - finite differences| of the slope of a first derivative, relative."""
    r = np.random.default_rng(0)
    x, direction, weight = (tf.constant(r.normal(size=(3, 4, 4, 2))) for _ in range(3))
    layer.build(x.shape)

    def first(at):
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = tf.reduce_sum(weight * layer(at, training=True) ** 3)
        return tape.gradient(value, at)

    with tf.GradientTape() as tape:
        tape.watch(x)
        slope = tf.reduce_sum(first(x) * direction)
    ours = tape.gradient(slope, x).numpy()
    other = r.normal(size=x.shape)
    h = 1e-5
    up, down = (tf.reduce_sum(first(x + s * h * other) * direction) for s in (1, -1))
    expected = float((up - down) / (2 * h))
    return abs((ours * other).sum() - expected) / abs(expected)


def test_second_derivative_is_right_where_that_of_keras_is_wrong():
    assert second_derivative_error(BatchNormalization(epsilon=EPSILON, dtype="float64")) < 1e-7
    theirs = keras.layers.BatchNormalization(epsilon=EPSILON, dtype="float64")
    assert second_derivative_error(theirs) > 1e-3


def plain_block(z, gamma, beta, epsilon=EPSILON):
    mean = tf.reduce_mean(z, [0, 1, 2])
    variance = tf.reduce_mean(tf.square(z - mean), [0, 1, 2])
    y = gamma * (z - mean) / tf.sqrt(variance + epsilon) + beta
    return tf.nn.max_pool2d(tf.nn.relu(y), 2, 2, "VALID")


def fused_block(z, gamma, beta):
    return bn_relu_pool(z, gamma, beta, epsilon=EPSILON)[0]


def three_orders(block, z, gamma, beta, weights):
    """The value, the first and the second derivatives (of a random functional) of a block."""
    inputs = [z, gamma, beta]
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            out = block(*inputs)
            value = tf.reduce_sum(weights[0] * tf.sin(out))
        first = inner.gradient(value, inputs)
        slope = tf.add_n([tf.reduce_sum(w * tf.sin(f)) for w, f in zip(weights[1:], first)])
    second = outer.gradient(slope, inputs)
    return [out, *first, *second]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=["even", "odd"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-8])
def test_fused_block_equals_plain_operations_to_second_order(scale, size, graph):
    r = np.random.default_rng(1)
    z = tf.constant(r.normal(size=(3, *size, 4)) * 2 + 1)
    gamma = tf.constant([scale, 0.5, -2.0, 1.5], tf.float64)
    beta = tf.constant(r.normal(size=4))
    pooled = (3, size[0] // 2, size[1] // 2, 4)
    weights = [tf.constant(r.normal(size=s)) for s in (pooled, z.shape, (4,), (4,))]
    wrap = tf.function(autograph=False) if graph else (lambda f: f)
    ours = wrap(lambda: three_orders(fused_block, z, gamma, beta, weights))()
    plain = wrap(lambda: three_orders(plain_block, z, gamma, beta, weights))()
    for a, b in zip(ours, plain):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_fused_block_is_finite_where_scale_or_variance_is_zero():
    z = tf.concat([tf.ones([2, 4, 4, 1]), tf.random.normal([2, 4, 4, 1])], -1)
    for gamma in ([0.0, 0.0], [1.0, 1.0]):
        weights = [tf.ones(s) for s in ((2, 2, 2, 2), z.shape, (2,), (2,))]
        for x in three_orders(fused_block, z, tf.constant(gamma), tf.constant([0.1, 0.2]), weights):
            assert np.isfinite(x).all()


def test_fused_block_sends_ties_to_the_first_maximum():
    z = tf.constant(np.tile([[1.0, 0.0], [0.0, 1.0]], (4, 4))[None, :, :, None])
    one, zero = tf.ones([1], tf.float64), tf.zeros([1], tf.float64)
    weights = [tf.random.normal(s, dtype=tf.float64) for s in ((1, 4, 4, 1), z.shape, (1,), (1,))]
    ours = three_orders(fused_block, z, one, zero, weights)
    for a, b in zip(ours, three_orders(plain_block, z, one, zero, weights)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_fused_block_in_float32_is_close_to_float64():
    r = np.random.default_rng(2)
    z, gamma, beta = r.normal(size=(4, 8, 8, 3)) + 5, r.normal(size=3), r.normal(size=3)
    low = fused_block(*(tf.constant(x, tf.float32) for x in (z, gamma, beta)))
    high = plain_block(*(tf.constant(x, tf.float64) for x in (z, gamma, beta)))
    np.testing.assert_allclose(low, high, atol=2e-5)


def test_training_false_uses_the_moving_averages():
    layer = BatchNormalization(momentum=0.9, epsilon=EPSILON, dtype="float64")
    x = tf.constant(np.random.default_rng(4).normal(size=(5, 3, 3, 2)) * 3 + 2)
    layer(x, training=True)
    mean, variance = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-12)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-12)
    expected = (x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + EPSILON)
    np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchNormalization(momentum=0.5, epsilon=1e-4),
        lambda: ConvBlock(3, suffix="7", epsilon=1e-4, on_images=True),
    ],
)
def test_layers_survive_saving_and_loading(make, tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 2)), make()])
    x = tf.random.normal([4, 6, 6, 2])
    model(x, training=True)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_array_equal(loaded(x), model(x))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\). Received: 1"):
        BatchNormalization(momentum=1.0)
    with pytest.raises(ValueError, match="epsilon must be > 0. Received: 0"):
        BatchNormalization(epsilon=0.0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_kernel_moments_equal_their_definition(dtype):
    z = tf.constant(np.random.default_rng(6).normal(size=(3, 4, 5, 2)) * 2 + 7, dtype)
    mean, variance, _ = batch_moments(z, EPSILON)
    tolerance = 1e-5 if dtype == tf.float32 else 1e-12
    np.testing.assert_allclose(mean, np.mean(z, (0, 1, 2)), rtol=tolerance)
    np.testing.assert_allclose(variance, np.var(z.numpy().astype(float), (0, 1, 2)), rtol=tolerance)


def test_derivatives_of_kernel_moments_equal_those_of_plain_sums():
    r = np.random.default_rng(8)
    z, weight = (tf.constant(r.normal(size=(3, 4, 5, 2))) for _ in range(2))

    def orders(moments):
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                mean, variance = moments(z)[:2]
                value = tf.reduce_sum(mean**3 * variance**2)
            first = inner.gradient(value, z)
            slope = tf.reduce_sum(weight * first)
        return first, outer.gradient(slope, z)

    kernel = lambda x: batch_moments(x, EPSILON)  # noqa: E731
    for ours, plain in zip(orders(kernel), orders(plain_moments)):
        np.testing.assert_allclose(ours, plain, rtol=1e-10, atol=1e-13)
