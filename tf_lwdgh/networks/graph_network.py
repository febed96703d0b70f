# SPDX-License-Identifier: Apache-2.0
"""The graph network of Garcia & Bruna (2018) as a Keras model: graphs [B, M, F] -> logits [B, N]."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_lwdgh.networks.backbones import NO_MEMORY
from tf_lwdgh.networks.layers.batch_norm import BatchNormalization
from tf_lwdgh.networks.layers.dropout import Dropout

_SLOPE, _ROUNDS = 0.01, 2


@keras.saving.register_keras_serializable("tf_lwdgh")
class Edges(keras.layers.Layer):
    """Softmax of scores over the other nodes: [B, M, M, 1] -> [B, M, M], rows of sum 1, 0 on the diagonal."""

    def call(self, scores: tf.Tensor) -> tf.Tensor:
        scores = scores[..., 0]
        itself = tf.eye(tf.shape(scores)[-1], dtype=scores.dtype)
        return tf.nn.softmax(scores - 1e8 * itself)

    def compute_output_shape(self, input_shape):
        return input_shape[:-1]


def graph_network(
    n_features: int,
    n_way: int,
    *,
    hidden: Sequence[int],
    growth: int,
    dropout: float = 0.0,
    epsilon: float = 1e-5,
    dtype: str = "float32",
) -> keras.Model:
    """Two rounds in which nodes learn of each other, then the logits of the last node.

    Args:
      n_features: F of a node.
      n_way: N.
      hidden: units of the network on |x_i − x_j|, layer by layer.
      growth: features that a node gains in a round.
      dropout: see `layers.dropout.Dropout`, of the last edges.
      epsilon: BatchNorm's.
      dtype: of all.
    """

    def norm(x, name: str):
        return BatchNormalization(NO_MEMORY, epsilon, name=name, dtype=dtype)(x)

    def leaky(x, name: str):
        return keras.layers.LeakyReLU(_SLOPE, name=name, dtype=dtype)(x)

    def dense(x, units: int, name: str):
        return keras.layers.Dense(units, name=name, dtype=dtype)(x)

    def edges(x, name: str, rate: float):
        apart = keras.ops.absolute(keras.ops.expand_dims(x, 2) - keras.ops.expand_dims(x, 1))
        for k, units in enumerate(hidden, 1):
            apart = norm(dense(apart, units, f"{name}_dense{k}"), f"{name}_norm{k}")
            apart = leaky(apart, f"{name}_relu{k}")
        if rate:
            apart = Dropout(rate, name=f"{name}_dropout", dtype=dtype)(apart)
        return Edges(name=f"{name}_softmax", dtype=dtype)(dense(apart, 1, f"{name}_score"))

    def gathered(x, name: str, rate: float = 0.0):
        return keras.ops.concatenate([x, keras.ops.matmul(edges(x, name, rate), x)], -1)

    graphs = x = keras.Input([None, n_features], dtype=dtype)
    for i in range(1, _ROUNDS + 1):
        new = norm(dense(gathered(x, f"edges{i}"), growth, f"round{i}"), f"round{i}_norm")
        x = keras.ops.concatenate([x, leaky(new, f"round{i}_relu")], -1)
    logits = dense(gathered(x, f"edges{_ROUNDS + 1}", dropout)[:, -1], n_way, "logits")
    return keras.Model(graphs, logits, name="graph_network")
