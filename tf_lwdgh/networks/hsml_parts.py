# SPDX-License-Identifier: Apache-2.0
"""The networks that HSML has beside the one that it adapts, as Keras models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tf_lwdgh.networks.layers.convolution import Convolution
from tf_lwdgh.networks.layers.local_response import LocalResponseNormalization

_MIDDLE = 96  # units of the mean autoencoder's first layer


def image_embedding(image_shape: Sequence[int], sizes: tuple[int, int, int], dtype: str) -> keras.Model:
    """Images [B, H, W, C] -> [B, D].

    Args:
      image_shape: (H, W, C).
      sizes: filters of both convolutions, units of the dense layer between, D.
      dtype: of all.
    """
    filters, hidden, features = sizes

    def named(name: str, **more) -> dict:
        narrow = keras.initializers.TruncatedNormal(stddev=0.04)
        return {"name": name, "dtype": dtype, "kernel_initializer": narrow, **more}

    def dense(units: int, name: str) -> keras.layers.Dense:
        bias = keras.initializers.Constant(0.1)
        return keras.layers.Dense(units, "relu", bias_initializer=bias, **named(name))

    def pooled(x):
        return keras.layers.MaxPooling2D(3, 2, padding="same", dtype=dtype)(x)

    def normalised(x):
        return LocalResponseNormalization(4, 1.0, 0.001 / 9, 0.75, dtype=dtype)(x)

    images = keras.Input(image_shape, dtype=dtype)
    plain = {"activation": "relu", "use_bias": False}
    x = normalised(pooled(Convolution(filters, 5, **named("conv1", **plain))(images)))
    x = pooled(normalised(Convolution(filters, 5, **named("conv2", **plain))(x)))
    x = dense(features, "dense2")(dense(hidden, "dense1")(keras.layers.Flatten(dtype=dtype)(x)))
    return keras.Model(images, x)


def gru_cell(width: int, units: int, dtype: str) -> keras.Model:
    """(x [B, width], h [B, units]) -> the next h, the reset gate before the product."""
    x = keras.Input([width], dtype=dtype)
    h = keras.Input([units], dtype=dtype)
    join = keras.layers.Concatenate(dtype=dtype)
    open_gates = {"bias_initializer": "ones", "name": "gates", "dtype": dtype}
    gates = keras.layers.Dense(2 * units, "sigmoid", **open_gates)(join([x, h]))
    reset, update = gates[:, :units], gates[:, units:]
    candidate = keras.layers.Dense(units, "tanh", name="candidate", dtype=dtype)
    return keras.Model([x, h], update * h + (1 - update) * candidate(join([x, reset * h])))


def linear_output(units: int, width: int, dtype: str) -> keras.Model:
    """h [B, units] -> [B, width]: what the decoder says of an image."""
    h = keras.Input([units], dtype=dtype)
    start = {
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=1.0),
        "bias_initializer": keras.initializers.Constant(0.1),
    }
    return keras.Model(h, keras.layers.Dense(width, name="dense", dtype=dtype, **start)(h))


def dense_layers(width: int, sizes: Sequence[int], dtype: str, *, last: str | None = "relu") -> keras.Model:
    """[B, width] -> [B, sizes[-1]], with ReLU between."""
    x = rows = keras.Input([width], dtype=dtype)
    for i, size in enumerate(sizes, 1):
        activation = last if i == len(sizes) else "relu"
        x = keras.layers.Dense(size, activation, name=f"dense{i}", dtype=dtype)(x)
    return keras.Model(rows, x)


def mean_autoencoder(width: int, units: int, dtype: str) -> dict[str, keras.Model]:
    """Encoder and decoder of single images, and what the mean of them goes through."""
    return {
        "encoder": dense_layers(width, [_MIDDLE, units], dtype),
        "pooled": dense_layers(units, [units], dtype),
        "decoder": dense_layers(units, [_MIDDLE, width], dtype, last=None),
    }


def recurrent_autoencoder(width: int, units: int, dtype: str) -> dict[str, keras.Model]:
    """The cells of encoder and decoder, and what the decoder says at a step."""
    return {
        "encoder": gru_cell(width, units, dtype),
        "decoder": gru_cell(width, units, dtype),
        "output": linear_output(units, width, dtype),
    }


def gates(width: int, sizes: Mapping[str, int], dtype: str) -> keras.Model:
    """[1, width] -> for each name a gate [1, size] in (0, 1)."""
    task = keras.Input([width], dtype=dtype)
    layers = [
        keras.layers.Dense(size, "sigmoid", name=name.replace("/", "_"), dtype=dtype) for name, size in sizes.items()
    ]
    return keras.Model(task, [layer(task) for layer in layers])


class _Level(keras.layers.Layer):
    """A level of the tree: J nodes, each with a dense layer tanh of its own."""

    def __init__(self, nodes: int, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.nodes, self.units = nodes, units

    def weight(self, name: str, *shape: int) -> keras.Variable:
        """One [*shape] a node, drawn by Glorot's rule for that shape."""
        fans = shape if len(shape) == 2 else (1, *shape)
        bound = (6 / (fans[0] + fans[1])) ** 0.5
        uniform = keras.initializers.RandomUniform(-bound, bound)
        return self.add_weight(name=name, shape=(self.nodes, *shape), initializer=uniform)

    def build(self, input_shape) -> None:
        self.kernel = self.weight("kernel", input_shape[-1], self.units)
        self.bias = self.weight("bias", self.units)
        self.gate_weights(input_shape[-1])
        self.built = True

    def candidates(self, x: tf.Tensor) -> tf.Tensor:
        """tanh(W_j x_k + b_j): [K, D] -> [K, J, units]."""
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        return tf.tanh(tf.einsum("kd,jdu->kju", x, kernel) + bias)


class Leaves(_Level):
    """z [1, D] -> h_k = p_k tanh(U_k z + b_k) [K, units], p = softmax(−‖z − c_k‖²/(2·variance)).

    Args:
      variance: of the clusters.
    """

    def __init__(self, nodes: int, units: int, variance: float, **kwargs) -> None:
        super().__init__(nodes, units, **kwargs)
        self.variance = variance

    def gate_weights(self, width: int) -> None:
        self.centres = self.weight("centres", width)

    def shares(self, z: tf.Tensor) -> tf.Tensor:
        """p: [K, 1]."""
        apart = tf.reduce_sum(tf.square(z - tf.convert_to_tensor(self.centres)), -1)
        return tf.nn.softmax(-apart / (2 * self.variance))[:, None]

    def call(self, z: tf.Tensor) -> tf.Tensor:
        return self.shares(z) * self.candidates(z)[0]


class Branches(_Level):
    """h_k [K, D] -> h_j = Σ_k q_kj tanh(V_j h_k + b_j) [J, units], Σ_j q_kj = 1.

    Args:
      distance: whether q is by −(‖h_k − a_j‖² + b_j)/2 and not by a_j·h_k + b_j.
    """

    def __init__(self, nodes: int, units: int, distance: bool, **kwargs) -> None:
        super().__init__(nodes, units, **kwargs)
        self.distance = distance

    def gate_weights(self, width: int) -> None:
        self.gate_kernel = self.weight("gate_kernel", width)
        self.gate_bias = self.weight("gate_bias", 1)

    def shares(self, h: tf.Tensor) -> tf.Tensor:
        """q: [K, J]."""
        a, b = tf.convert_to_tensor(self.gate_kernel), tf.convert_to_tensor(self.gate_bias)[:, 0]
        if self.distance:
            apart = tf.reduce_sum(tf.square(h[:, None] - a), -1)
            return tf.nn.softmax(-(apart + b) / 2)
        return tf.nn.softmax(tf.matmul(h, a, transpose_b=True) + b)

    def call(self, h: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.shares(h)[..., None] * self.candidates(h), 0)


def tree(units: int, clusters: Sequence[int], dtype: str, *, variance: float, distance: bool) -> keras.Model:
    """z [1, units] -> h [1, units], through the levels of `clusters` and the root Σ_j tanh(W h_j + b)."""
    z = keras.Input(batch_shape=[1, units], dtype=dtype)
    x = Leaves(clusters[0], units, variance, name="level1", dtype=dtype)(z)
    for i, nodes in enumerate(clusters[1:], 2):
        x = Branches(nodes, units, distance, name=f"level{i}", dtype=dtype)(x)
    root = keras.layers.Dense(units, "tanh", name="root", dtype=dtype)
    return keras.Model(z, keras.ops.sum(root(x), axis=0, keepdims=True))
