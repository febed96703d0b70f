# SPDX-License-Identifier: Apache-2.0
"""Convolutions and filter gradients against NumPy, in both forms and in lower precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.kernels import convolution
from tf_lwdgh.networks.kernels.convolution import as_products, convolve, filter_gradient
from tf_lwdgh.networks.layers.convolution import Convolution

B, H, W, C, F = 2, 5, 4, 3, 6
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # half the distance of neighbours, relative
FORMS = pytest.mark.parametrize("products", [False, True], ids=["convolution", "products"])
KERNELS = pytest.mark.parametrize("size", [1, 3])


def cuts(x, size):
    """Every place of the kernel with the images shifted under it."""
    edge = size // 2
    padded = np.pad(x, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
    for i in range(size):
        for j in range(size):
            yield i, j, padded[:, i : i + x.shape[1], j : j + x.shape[2]]


def numpy_convolution(x, kernel):
    return sum(cut @ kernel[i, j] for i, j, cut in cuts(x, kernel.shape[0]))


def numpy_filter_gradient(x, dz, size):
    gradient = np.zeros((size, size, x.shape[-1], dz.shape[-1]))
    for i, j, cut in cuts(x, size):
        gradient[i, j] = np.einsum("bhwc,bhwf->cf", cut, dz)
    return gradient


def arrays(size=3):
    r = np.random.default_rng(0)
    return [r.normal(size=s) for s in ((B, H, W, C), (size, size, C, F), (B, H, W, F))]


def call(operation, *args, products):
    if not products:
        return operation(*args)
    with as_products():
        return operation(*args)


@KERNELS
@FORMS
def test_convolution_equals_numpys(products, size):
    x, kernel, _ = arrays(size)
    ours = call(convolve, tf.constant(x), tf.constant(kernel), products=products)
    assert ours.dtype == tf.float64
    np.testing.assert_allclose(ours, numpy_convolution(x, kernel), rtol=0, atol=1e-12)


@KERNELS
@FORMS
def test_filter_gradient_equals_numpys(products, size):
    x, _, dz = arrays(size)
    ours = call(filter_gradient, tf.constant(x), tf.constant(dz), size, products=products)
    assert ours.dtype == tf.float64
    np.testing.assert_allclose(ours, numpy_filter_gradient(x, dz, size), rtol=0, atol=1e-12)


def orders(operation, inputs):
    """The value, first derivatives of a functional of it, and second ones of one of those."""
    r = np.random.default_rng(3)
    total = lambda xs: tf.add_n(  # noqa: E731
        [tf.reduce_sum(tf.constant(r.normal(size=x.shape)) * tf.sin(x)) for x in xs]
    )
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            values = [operation(*inputs)]
            value = total(values)
        first = inner.gradient(value, inputs)
        slope = total(first)
    return [*values, *first, *outer.gradient(slope, inputs)]


@KERNELS
def test_products_equal_the_convolution_to_second_order(size):
    x, kernel, _ = map(tf.constant, arrays(size))
    plain = orders(lambda a, k: tf.nn.conv2d(a, k, 1, "SAME"), [x, kernel])
    run = lambda: call(orders, convolve, [x, kernel], products=True)  # noqa: E731
    ours = tf.function(run, autograph=False)()
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_products_run_with_one_filter_a_task_side_by_side():
    x, kernel, _ = arrays()
    kernels = tf.constant(np.stack([kernel, -2 * kernel, kernel[::-1]]))
    with as_products():
        run = tf.function(
            lambda: tf.vectorized_map(lambda k: convolve(tf.constant(x), k), kernels, fallback_to_while_loop=False)
        )
        ours = run()
    for z, k in zip(ours, kernels.numpy(), strict=True):
        np.testing.assert_allclose(z, numpy_convolution(x, k), rtol=0, atol=1e-12)


def test_products_end_with_their_context_even_after_an_error():
    with pytest.raises(KeyError), as_products():
        with as_products():
            assert convolution._as_products
        assert convolution._as_products
        raise KeyError
    assert not convolution._as_products


@FORMS
@pytest.mark.parametrize("dtype", ROUNDING)
def test_lower_precision_rounds_inputs_and_result_and_nothing_else(dtype, products):
    x, kernel, dz = arrays()
    low = [tf.constant(a, tf.float32) for a in (x, kernel, dz)]
    rounded = [tf.cast(tf.cast(a, dtype), tf.float64).numpy() for a in low]
    z = call(convolve, *low[:2], dtype, products=products)
    gradient = call(filter_gradient, low[0], low[2], 3, dtype, products=products)
    assert z.dtype == dtype and gradient.dtype == tf.float32
    exact = numpy_convolution(*rounded[:2]), numpy_filter_gradient(rounded[0], rounded[2], 3)
    for ours, expected in zip((z, gradient), exact, strict=True):
        bound = ROUNDING[dtype] * np.abs(expected) + 1e-5
        assert (np.abs(tf.cast(ours, tf.float64) - expected) <= bound).all()
    whole = numpy_convolution(x, kernel)
    error = np.linalg.norm(tf.cast(z, tf.float64) - whole) / np.linalg.norm(whole)
    assert 0.05 * ROUNDING[dtype] < error < 2 * ROUNDING[dtype]


def test_filter_gradient_takes_a_gradient_of_the_products_dtype():
    x, _, dz = arrays()
    x, dz = tf.constant(x, tf.float32), tf.constant(dz, tf.float32)
    whole = filter_gradient(x, dz, 3, "bfloat16")
    np.testing.assert_array_equal(filter_gradient(x, tf.cast(dz, "bfloat16"), 3, "bfloat16"), whole)


@pytest.mark.parametrize("size", [1, 3])
def test_layer_equals_that_of_keras_in_full_precision(size):
    images = tf.constant(arrays()[0])
    ours = Convolution(F, size, dtype="float64", bias_initializer="normal")
    theirs = keras.layers.Conv2D(F, size, padding="same", dtype="float64")
    for layer in (ours, theirs):
        layer.build(images.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(images), theirs(images), rtol=0, atol=1e-12)


def test_layer_keeps_its_products_dtype_when_saved_and_loaded(tmp_path):
    layer = Convolution(F, 3, "bfloat16", use_bias=False)
    model = keras.Sequential([keras.Input((H, W, C)), layer])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert loaded.layers[-1].product_dtype == "bfloat16"
    x = tf.constant(arrays()[0], tf.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_layer_in_lower_precision_has_its_own_dtype_outside():
    layer = Convolution(F, 3, "bfloat16")
    x = tf.constant(arrays()[0], tf.float32)
    with tf.GradientTape() as tape:
        y = layer(x)
        total = tf.reduce_sum(y)
    assert y.dtype == tf.float32
    assert all(g.dtype == tf.float32 for g in tape.gradient(total, layer.trainable_variables))
    kernel = layer.get_weights()[0].astype(float)
    error = np.abs(y - numpy_convolution(x.numpy(), kernel)).max()
    assert 1e-4 < error < 0.05
