# SPDX-License-Identifier: Apache-2.0
"""Few-shot learning with a graph network (Garcia & Bruna 2018): labels pass along learned edges.

A graph a query: its nodes are the support images and the query, x_i = [φ(x_i), label], the query's label
empty. Edges Ã are a softmax over the other nodes of what a small network makes of |x_i − x_j|; then
x ← [x, LeakyReLU(BN([x, Ãx] W + b))], twice, each time with new edges, and once more for the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner, noise
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.networks.graph_network import graph_network
from tf_lwdgh.types import Meta, Published, Tensors

_PART = "graph"
UNKNOWN = ("zero", "uniform")


class Nodes(NamedTuple):
    """A task as learned."""

    features: tf.Tensor  # [S, D + N_max]: the support images' nodes
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class GNN(EmbeddingLearner):
    """The learner. Tasks have at most as many ways as the network's head, any shots.

    Attributes:
      hidden: units of the network on |x_i − x_j|, layer by layer.
      growth: features that a node gains in each of the two rounds.
      unknown: the query's label: 'zero', as in the authors' code, or 'uniform', as in the paper.
      dropout: share of the last round's edges' features that is dropped in training.
    """

    hidden: tuple[int, ...] = (192, 192, 96, 96)
    growth: int = 48
    unknown: str = "zero"
    dropout: float = 0.0

    reference: ClassVar[str] = "Garcia, Bruna: Few-Shot Learning with Graph Neural Networks, ICLR 2018"
    equation: ClassVar[str] = "Ã = softmax_{j≠i} MLP(|x_i − x_j|); x ← [x, ρ(BN([x, Ãx] W + b))]"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, its own encoder", "50.33 ± 0.36", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, its own encoder", "66.41 ± 0.63", "the paper"),
    )
    traps: ClassVar[str] = (
        "Every query has a graph of its own, so that no query moves another but through BatchNorm. "
        "Others who ran the authors' code report far less than the paper."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        least = min(self.hidden, default=0)
        self.require("hidden", least >= 1, "must hold units of at least 1")
        self.require("growth", self.growth >= 1, "must be at least 1")
        self.require("unknown", self.unknown in UNKNOWN, f"must be one of {', '.join(UNKNOWN)}")
        self.require("dropout", 0 <= self.dropout < 1, "must be in [0, 1)")

    @property
    def any_way(self) -> bool:
        return False

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        network = graph_network(
            model.n_features + model.n_way,
            model.n_way,
            hidden=self.hidden,
            growth=self.growth,
            dropout=self.dropout,
            dtype=model.variables[0].dtype,
        )
        return {_PART: network}

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Nodes:
        features, state = self.embed_support(context, meta, images)
        known = tf.one_hot(labels, context.model.n_way, dtype=features.dtype)
        nodes = tf.concat([features, known], -1)
        if state:  # the graph's statistics are those of each support image asked of the others
            count = tf.shape(features)[0]
            others = tf.range(count - 1) + tf.zeros([count, 1], tf.int32)
            others += tf.cast(others >= tf.range(count)[:, None], tf.int32)
            graphs = tf.concat([tf.gather(nodes, others), self._asked(context, features)[:, None]], 1)
            _, state = self._graph(context, meta, state, graphs, True)
        return Nodes(nodes, state)

    def predict(self, context: Context, meta: Meta, adapted: Nodes, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        asked = self._asked(context, features)
        support = tf.tile(adapted.features[None], [tf.shape(asked)[0], 1, 1])
        graphs = tf.concat([support, asked[:, None]], 1)
        batch = self.queries_take_batch(context)
        logits, state = self._graph(context, meta, state, graphs, batch)
        return logits[:, : context.ways], state

    def _asked(self, context: Context, features: tf.Tensor) -> tf.Tensor:
        """The nodes [B, D + N_max] of images whose labels are not known."""
        n_way = context.model.n_way
        label = 1 / n_way if self.unknown == "uniform" else 0.0
        unknown = tf.fill([tf.shape(features)[0], n_way], tf.cast(label, features.dtype))
        return tf.concat([features, unknown], -1)

    @staticmethod
    def _graph(
        context: Context, meta: Meta, state: Tensors, graphs: tf.Tensor, batch: bool
    ) -> tuple[tf.Tensor, Tensors]:
        """Logits [B, N_max] of the last node of each graph, [B, S + 1, D + N_max]."""
        return context.model.parts[_PART](meta.own, state, graphs, training=batch, noise=noise(context, _PART))
