# SPDX-License-Identifier: Apache-2.0
"""Resnet12's fused operations against written-out ones, to second order, and their layers."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.learners import test_outer_gradient as outer_gradient
from tf_lwdgh.learners import MAML
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import resnet12
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.kernels.leaky_pool import add_leaky_pool
from tf_lwdgh.networks.kernels.norm_block import norm_leaky_relu
from tf_lwdgh.networks.kernels.plain import plain_operations
from tf_lwdgh.networks.layers.residual_layers import AddLeakyPool, NormLeakyRelu

EPSILON = 1e-3
SIZES = pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=["even", "odd"])
GRAPH = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])


def leaky(x, slope):
    return tf.where(x > 0, x, slope * x)


def plain_norm(slope):
    def run(z, gamma, beta):
        mean = tf.reduce_mean(z, [0, 1, 2])
        variance = tf.reduce_mean(tf.square(z - mean), [0, 1, 2])
        y = gamma * (z - mean) / tf.sqrt(variance + EPSILON) + beta
        return leaky(y, slope), mean, variance

    return run


def fused_norm(slope):
    return lambda *x: norm_leaky_relu(*x, epsilon=EPSILON, slope=slope)


def plain_end(slope):
    return lambda a, b: (tf.nn.max_pool2d(leaky(a + b, slope), 2, 2, "VALID"),)


def fused_end(slope):
    return lambda a, b: (add_leaky_pool(a, b, slope=slope),)


def orders(operation, inputs, seed=3):
    """Values, first derivatives of a random functional of them, and second ones of one of those."""
    r = np.random.default_rng(seed)
    total = lambda xs: tf.add_n(  # noqa: E731
        [tf.reduce_sum(tf.constant(r.normal(size=x.shape), x.dtype) * tf.sin(x)) for x in xs]
    )
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            values = operation(*inputs)
            value = total(values)
        first = inner.gradient(value, inputs)
        slope = total(first)
    second = outer.gradient(slope, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [*values, *first, *second]


def norm_inputs(size=(5, 6), scale=1.0, seed=1):
    r = np.random.default_rng(seed)
    gamma = tf.constant([scale, 0.5, -2.0, 1.5], tf.float64)
    return [tf.constant(r.normal(size=(3, *size, 4)) * 2 + 1), gamma, tf.constant(r.normal(size=4))]


def branches(size=(5, 6)):
    r = np.random.default_rng(2)
    return [tf.constant(r.normal(size=(3, *size, 4))) for _ in range(2)]


def assert_same(ours, plain, tolerance=1e-9):
    for a, b in zip(ours, plain, strict=True):
        assert np.linalg.norm(np.subtract(a, b)) <= tolerance * max(1e-3, np.linalg.norm(b))


@GRAPH
@SIZES
@pytest.mark.parametrize("slope", [0.1, 1.0])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-8, 0.0])
def test_norm_equals_plain_operations_to_second_order(scale, slope, size, graph):
    inputs = norm_inputs(size, scale)
    run = lambda: orders(fused_norm(slope), inputs)  # noqa: E731
    ours = tf.function(run, autograph=False)() if graph else run()
    assert_same(ours, orders(plain_norm(slope), inputs))


@pytest.mark.parametrize("part", [1, 2], ids=["mean", "variance"])
def test_derivatives_of_the_statistics_alone_equal_those_of_plain_operations(part):
    inputs = norm_inputs()
    ours, plain = (
        orders(lambda z, op=op: [op(0.1)(z, *inputs[1:])[part] ** 2], inputs[:1]) for op in (fused_norm, plain_norm)
    )
    assert_same(ours, plain)


@GRAPH
@SIZES
@pytest.mark.parametrize("slope", [0.1, 1.0])
def test_end_of_a_block_equals_plain_operations_to_second_order(slope, size, graph):
    run = lambda: orders(fused_end(slope), branches(size))  # noqa: E731
    ours = tf.function(run, autograph=False)() if graph else run()
    assert_same(ours, orders(plain_end(slope), branches(size)))


def test_end_of_a_block_sends_ties_to_the_first_maximum():
    a = tf.constant(np.tile([[1.0, -2.0], [-2.0, 1.0]], (4, 2))[None, :, :, None])
    for at in (a, -a, a - 5):  # -a has its first maximum elsewhere, and a - 5 is below 0 throughout
        assert_same(orders(fused_end(0.1), [at, 0 * at]), orders(plain_end(0.1), [at, 0 * at]))


@pytest.mark.parametrize(
    "fused, plain, inputs",
    [(fused_norm, plain_norm, norm_inputs((8, 9))), (fused_end, plain_end, branches((8, 9)))],
    ids=["norm", "end"],
)
def test_float32_is_close_to_float64(fused, plain, inputs):
    kinks = plain_norm(1.0)(*inputs)[0] if fused is fused_norm else inputs[0] + inputs[1]
    assert np.abs(kinks).min() > 1e-5  # else float32 may take the other slope
    low = orders(fused(0.1), [tf.cast(x, tf.float32) for x in inputs])
    assert all(x.dtype == tf.float32 for x in low)
    assert_same(low, orders(plain(0.1), inputs), 1e-3)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_norm_is_finite_where_the_variance_or_the_scale_is_zero(dtype):
    varying = tf.random.stateless_normal([2, 4, 4, 1], [1, 2], dtype=dtype)
    z = tf.concat([tf.cast(tf.fill([2, 4, 4, 1], 3), dtype), varying], -1)
    for gamma in ([0.0, 0.0], [1.0, 1.0]):
        inputs = [z, tf.constant(gamma, dtype), tf.constant([0.1, 0.0], dtype)]
        for x in orders(fused_norm(0.1), inputs):
            assert np.isfinite(x).all()


def filled(layer, shape):
    """The layer with parameters away from ones and zeros."""
    layer.build(shape)
    r = np.random.default_rng(9)
    for v in layer.trainable_variables:
        v.assign(r.normal(size=v.shape))
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("slope", [0.1, 1.0])
def test_norm_layer_equals_its_plain_self(slope, momentum, training):
    z = norm_inputs()[0]
    fused, plain = (
        filled(NormLeakyRelu(slope, fused, momentum=momentum, dtype="float64"), z.shape) for fused in (True, False)
    )
    for layer in (fused, plain):
        layer(z, training=True)
    assert_same([fused(z, training=training)], [plain(z, training=training)])
    assert_same(fused.non_trainable_variables, plain.non_trainable_variables)
    with plain_operations():
        assert_same([fused(z, training=True)], [plain(z, training=True)])


@pytest.mark.parametrize("training", [True, False])
def test_end_layer_equals_its_plain_self(training):
    fused, plain = (AddLeakyPool(0.1, fused, dtype="float64") for fused in (True, False))
    assert_same([fused(branches(), training=training)], [plain(branches(), training=training)])
    assert fused.compute_output_shape([(3, 5, 6, 4)] * 2) == (3, 2, 3, 4)


def test_layers_survive_saving_and_loading(tmp_path):
    images = keras.Input((6, 6, 2))
    norm = NormLeakyRelu(0.3, False, momentum=0.5, epsilon=1e-4)
    model = keras.Model(images, AddLeakyPool(0.2, False)([norm(images), images]))
    x = tf.random.normal([4, 6, 6, 2])
    model(x, training=True)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for ours, theirs in zip(loaded.layers[1:], model.layers[1:], strict=True):
        assert ours.get_config() == theirs.get_config()
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("layer", [NormLeakyRelu, AddLeakyPool])
@pytest.mark.parametrize("slope", [0.0, -0.1, 1.5])
def test_a_slope_that_orders_nothing_is_refused(layer, slope):
    with pytest.raises(ValueError, match=rf"slope must be in \(0, 1\]. Received: {slope}"):
        layer(slope)


def small_resnet(fused=True):
    keras.utils.set_random_seed(7)
    return FunctionalModel(
        resnet12(
            image_size=21, channels=2, n_way=outer_gradient.N_WAY, widths=(3, 4, 5, 6),
            fused=fused, dtype="float64",
        )
    )  # fmt: skip


@functools.cache
def resnet_gradients(fused, memory):
    loop = InnerLoop(steps=3, inner_lr=0.1, adapt_batch_norm=True, memory=memory)
    parameters = MetaParameters(small_resnet(fused).keras_model, MAML(inner_loop=loop))
    return outer_gradient.gradients_of(
        parameters,
        outer_gradient.random_episodes(size=21),
        outer_gradient.perturbed_values(parameters.model),
    )


@pytest.mark.parametrize("memory", ["store", pytest.param("recompute", marks=pytest.mark.slow)])
def test_outer_gradient_of_resnet12_equals_that_of_plain_operations(memory):
    fused, plain = resnet_gradients(True, memory), resnet_gradients(False, "store")
    whole = np.linalg.norm(np.concatenate([np.ravel(g) for g in plain]))
    assert whole > 0.1
    for a, b in zip(fused, plain, strict=True):
        assert np.linalg.norm(a - b) <= 1e-7 * whole
