# SPDX-License-Identifier: Apache-2.0
"""Products of low-precision numbers whose sums are float32, on any device.

Accelerators, and CPUs with instructions for it, multiply bfloat16 numbers and sum in float32.
Elsewhere TensorFlow's kernels sum in bfloat16 or float16 itself: a filter gradient over 40,000 pixels
is wrong by 3 %, and takes 10 times as long as in float32. There the numbers are rounded just the same,
and the float32 kernels take their products, which are exact in float32.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from tf_lwdgh.networks.kernels.plain import plain_only

# Half the distance of neighbouring numbers, relative: what rounding a result to the dtype may cost.
_ROUNDING = {tf.bfloat16: 2.0**-8, tf.float16: 2.0**-11}


def rounded(x: tf.Tensor, dtype: str | tf.DType | None) -> tf.Tensor:
    """x rounded to a dtype, ready for products: of that dtype where sums are float32, else float32.

    Args:
      x: float.
      dtype: None: x's own.
    """
    low = tf.cast(x, dtype or x.dtype)
    return tf.cast(low, product_dtype(low.dtype))


def product_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype in which products of numbers of a dtype are formed by the operations traced now."""
    if dtype not in _ROUNDING:
        return dtype
    if plain_only():
        return tf.float32
    if _device_type() != "CPU":
        return dtype
    # On CPUs float16 is no faster even where the sums are right.
    native = dtype == tf.bfloat16 and cpu_sums_in_float32(dtype.name)
    return dtype if native else tf.float32


def _device_type() -> str:
    """Where the next operation will be: the device that is asked for, else the process's own."""
    asked = tf.DeviceSpec.from_string(tf.zeros([]).device).device_type
    if asked is None:
        with tf.init_scope():
            asked = tf.DeviceSpec.from_string(tf.zeros([]).device).device_type
    return asked or "CPU"


@functools.cache
def cpu_sums_in_float32(dtype: str) -> bool:
    """Whether this CPU's kernels sum products of a low-precision dtype in float32; found by trying.

    Args:
      dtype: 'bfloat16' or 'float16'.
    """
    bound = _ROUNDING[tf.as_dtype(dtype)]
    with tf.init_scope(), tf.device("/CPU:0"):
        x, kernel, dz = (
            tf.cast(tf.random.stateless_normal(shape, [0, i], alg="philox"), dtype)
            for i, shape in enumerate(((2, 12, 12, 8), (3, 3, 8, 16), (2, 12, 12, 16)))
        )
        low = _products(x, kernel, dz)
        exact = _products(*(tf.cast(a, tf.float32) for a in (x, kernel, dz)))
        ours = [tf.cast(a, tf.float32) for a in low]
        return all(bool(tf.reduce_all(tf.abs(a - b) <= 1.01 * bound * tf.abs(b) + 1e-4)) for a, b in zip(ours, exact))


def _products(x: tf.Tensor, kernel: tf.Tensor, dz: tf.Tensor) -> list[tf.Tensor]:
    """One of each kind that a convolution and its derivatives use."""
    same = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    rows = [tf.reshape(a, [-1, a.shape[-1]]) for a in (x, dz)]
    return [
        tf.nn.conv2d(x, kernel, 1, "SAME"),
        tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=dz, **same),
        tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=dz, **same),
        tf.matmul(*rows, transpose_a=True),
    ]
