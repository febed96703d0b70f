# SPDX-License-Identifier: Apache-2.0
"""Low-precision products: float32 sums on any device, decided where the operation will be."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.networks.kernels import low_precision
from tf_lwdgh.networks.kernels.convolution import as_products, convolve, filter_gradient
from tf_lwdgh.networks.kernels.low_precision import cpu_sums_in_float32, product_dtype
from tf_lwdgh.networks.kernels.plain import plain_operations

ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
LOW = pytest.mark.parametrize("dtype", ROUNDING)
B, H, C, F = 8, 30, 3, 4  # 7,200 pixels: sums in bfloat16 are off by per cents, in float16 by 0.2 %


def arrays():
    r = np.random.default_rng(0)
    shapes = (B, H, H, C), (3, 3, C, F), (B, H, H, F)
    return [tf.constant(r.normal(size=s), tf.float32) for s in shapes]


def exact(x, kernel, dz):
    """The convolution and its two gradients in float64, of sums over shifted images."""
    x, kernel, dz = (np.asarray(tf.cast(a, tf.float64)) for a in (x, kernel, dz))
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    z, dx, dk = np.zeros_like(dz), np.zeros_like(padded), np.zeros_like(kernel)
    for i in range(3):
        for j in range(3):
            cut = padded[:, i : i + H, j : j + H]
            z += cut @ kernel[i, j]
            dx[:, i : i + H, j : j + H] += dz @ kernel[i, j].T
            dk[i, j] = np.einsum("bhwc,bhwf->cf", cut, dz)
    return z, dx[:, 1:-1, 1:-1], dk


@LOW
@pytest.mark.parametrize("products", [False, True], ids=["convolution", "products"])
def test_sums_over_thousands_of_pixels_are_as_exact_as_rounding_allows(dtype, products):
    rounded = [tf.cast(tf.cast(a, dtype), tf.float32) for a in arrays()]
    x, kernel, dz = rounded

    def run():
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            z = convolve(x, kernel, dtype)
        return z, *tape.gradient(z, (x, kernel), tf.cast(dz, dtype)), filter_gradient(x, dz, 3, dtype)

    if products:
        with as_products():
            ours = run()
    else:
        ours = run()
    z, dx, dk = exact(x, kernel, dz)
    # With as_products an image's gradient is a sum of nine rounded ones.
    slack = {1: 9 if products else 1}
    for i, (a, b) in enumerate(zip(ours, (z, dx, dk, dk), strict=True)):
        bound = slack.get(i, 1) * ROUNDING[dtype] * np.maximum(np.abs(b), 9 * products) + 2e-4
        assert (np.abs(tf.cast(a, tf.float64) - b) <= bound).all(), i


def conv_dtypes(graph: tf.Graph) -> set[str]:
    """Of all convolutions and matrix products, those within loops too."""
    names = ("Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2")
    nodes = list(graph.as_graph_def().node)
    nodes += [n for f in graph.as_graph_def().library.function for n in f.node_def]
    return {tf.as_dtype(n.attr["T"].type).name for n in nodes if n.op in names}


def traced(dtype, scope=None, loop=False):
    """The dtypes of the products of a traced convolution and its gradients."""
    x, kernel, dz = arrays()

    def run(k):
        with tf.GradientTape() as tape:
            tape.watch(k)
            z = convolve(x, k, dtype)
        return tape.gradient(z, k, tf.cast(dz, z.dtype)) + filter_gradient(x, dz, 3, dtype)

    @tf.function(autograph=False)
    def whole():
        with tf.device(scope):
            return tf.map_fn(run, kernel[None]) if loop else run(kernel)

    return conv_dtypes(whole.get_concrete_function().graph)


@LOW
@pytest.mark.parametrize("loop", [False, True], ids=["alone", "in_a_loop"])
def test_the_device_that_is_asked_for_decides(dtype, loop):
    assert traced(dtype, "/GPU:0", loop) == {dtype}  # its kernels sum in float32
    native = dtype == "bfloat16" and cpu_sums_in_float32(dtype)
    assert traced(dtype, "/CPU:0", loop) == {dtype if native else "float32"}


def test_without_a_device_in_the_graph_that_of_the_caller_decides():
    default = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    assert traced("float16") == {"float32" if default == "CPU" else "float16"}
    with tf.device("/CPU:0"):
        assert traced("float16") == {"float32"}


@LOW
def test_graphs_that_leave_the_process_sum_in_float32_wherever_they_go(dtype, tmp_path):
    x, kernel, dz = arrays()
    module = tf.Module()

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(kernel.shape)])
    def served(k):
        with plain_operations(), tf.device("/GPU:0"):
            return tf.cast(convolve(x, k, dtype), tf.float32), filter_gradient(x, dz, 3, dtype)

    module.served = served
    assert conv_dtypes(served.get_concrete_function().graph) == {"float32"}
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path)).served(kernel)
    z, _, dk = exact(*(tf.cast(a, dtype) for a in (x, kernel, dz)))
    for a, b in zip(loaded, (z, dk), strict=True):
        assert (np.abs(a - b) <= ROUNDING[dtype] * np.abs(b) + 2e-4).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_full_precision_is_left_alone(dtype):
    assert product_dtype(tf.as_dtype(dtype)) == dtype
    assert traced(None) == {"float32"}


def test_a_cpu_is_taken_at_its_word_only_where_its_sums_are_right(monkeypatch):
    kernels = low_precision._products

    def wide(*args):
        """Sums in float32, whatever the dtype."""
        return [tf.cast(a, args[0].dtype) for a in kernels(*(tf.cast(a, tf.float32) for a in args))]

    def narrow(x, kernel, dz):
        """The same but for the last product, which is summed in the numbers' own dtype."""
        total = tf.zeros([x.shape[-1], dz.shape[-1]], x.dtype)
        for a, b in zip(tf.reshape(x, [-1, x.shape[-1], 1]), tf.reshape(dz, [-1, 1, dz.shape[-1]])):
            total += a * b
        return [*wide(x, kernel, dz)[:3], total]

    for instead, right in ((wide, True), (narrow, False)):
        monkeypatch.setattr(low_precision, "_products", instead)
        assert cpu_sums_in_float32.__wrapped__("bfloat16") is right


def test_each_replica_of_a_mirrored_strategy_asks_its_own_device():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    seen = []

    @tf.function(autograph=False)
    def step():
        return strategy.run(lambda: seen.append(product_dtype(tf.float16)) or tf.zeros([]))

    with tf.device("/GPU:0"):  # of the caller; the replica's counts
        step()
    assert seen == [tf.float32]
