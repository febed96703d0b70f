# SPDX-License-Identifier: Apache-2.0
"""SNAIL (Mishra et al. 2018): a task as a sequence, read by causal convolutions and attention.

The items of the sequence are the support images, x_t = [φ(x), label], then a query with an empty label,
whose last step gives the logits. Since all is causal, the support items are read once for all queries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.base import OwnParameter
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.embedding_learner import EmbeddingLearner
from tf_lwdgh.learners.shuffles import permutation
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Meta, Published, Tensors


class Attention(NamedTuple):
    """x ← [x, softmax(q kᵀ/√keys) v], of an item to itself and those before it."""

    name: str
    width: int  # of x
    keys: int
    values: int

    @property
    def output_width(self) -> int:
        return self.width + self.values

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its kernels and biases."""
        sizes = {"query": self.keys, "key": self.keys, "value": self.values}
        return {
            f"{self.name}/{part}/{kind}": shape
            for part, size in sizes.items()
            for kind, shape in (("kernel", (self.width, size)), ("bias", (size,)))
        }


class Temporal(NamedTuple):
    """x_t ← [x_t, tanh(a) σ(b)], (a, b) = W [x_{t−dilation}, x_t] + bias."""

    name: str
    width: int  # of x
    dilation: int
    filters: int

    @property
    def output_width(self) -> int:
        return self.width + self.filters

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its kernel, of the earlier item and the present one, and bias; first a, then b."""
        return {
            f"{self.name}/kernel": (2, self.width, 2 * self.filters),
            f"{self.name}/bias": (2 * self.filters,),
        }


class Read(NamedTuple):
    """A task as learned."""

    memory: list[tuple[tf.Tensor, ...]]  # of each block: [S, …] of the support items
    state: Tensors  # BatchNorm's statistics for the queries; empty: those of the meta-parameters


@config.configurable
@dataclasses.dataclass(frozen=True)
class SNAIL(EmbeddingLearner):
    """The learner. Tasks have at most as many ways as the network's head.

    Attributes:
      most_items: support images of the largest task; the convolutions reach that far back.
      filters: of a temporal convolution.
      attention: keys and values of each of the three attention blocks.
    """

    most_items: int = 25
    filters: int = 128
    attention: tuple[tuple[int, int], ...] = ((64, 32), (256, 128), (512, 256))

    reference: ClassVar[str] = "Mishra et al.: A Simple Neural Attentive Meta-Learner, ICLR 2018"
    equation: ClassVar[str] = "x_t ← [x_t, tanh(a) σ(b)]; x ← [x, softmax(q kᵀ/√K) v], causal"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, its own residual network", "55.71 ± 0.99", "the paper"),
        Published("mini-ImageNet 5-way 5-shot, its own residual network", "68.88 ± 0.92", "the paper"),
    )
    traps: ClassVar[str] = (
        "The order of the support set counts: it is drawn anew for every task, by a fixed draw after "
        "training. No public reproduction of the published figures was found."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("most_items", "filters"):
            self.require(name, getattr(self, name) >= 1, "must be at least 1")
        sizes = [size for pair in self.attention for size in pair]
        pairs = all(len(pair) == 2 for pair in self.attention)
        rule = "must hold pairs (keys, values) of at least 1"
        self.require("attention", bool(sizes) and pairs and min(sizes) >= 1, rule)

    @property
    def any_way(self) -> bool:
        return False

    def blocks(self, model: FunctionalModel) -> list[Attention | Temporal]:
        """An attention block, then a stack of convolutions before each further one."""
        width = model.n_features + model.n_way
        blocks: list[Attention | Temporal] = []
        reach = math.ceil(math.log2(self.most_items + 1))
        for n, (keys, values) in enumerate(self.attention, 1):
            for i in range(1, reach + 1) if n > 1 else ():
                blocks.append(Temporal(f"temporal{n - 1}_{i}", width, 2**i, self.filters))
                width = blocks[-1].output_width
            blocks.append(Attention(f"attention{n}", width, keys, values))
            width = blocks[-1].output_width
        return blocks

    def own(self, model: FunctionalModel) -> list[OwnParameter]:
        blocks = self.blocks(model)
        shapes = {name: shape for block in blocks for name, shape in block.shapes().items()}
        shapes |= {
            "logits/kernel": (blocks[-1].output_width, model.n_way),
            "logits/bias": (model.n_way,),
        }
        dtype = model.variables[0].dtype
        glorot, zeros = keras.initializers.GlorotUniform, keras.initializers.Zeros
        # An initializer each: one draws the same for every kernel of a shape.
        start = {name: zeros() if name.endswith("bias") else glorot() for name in shapes}
        return [OwnParameter(name, start[name](shape, dtype)) for name, shape in shapes.items()]

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Read:
        features, state = self.embed_support(context, meta, images)
        known = tf.one_hot(labels, context.model.n_way, dtype=features.dtype)
        order = permutation(tf.shape(labels)[0], context.task_key)
        x, memory = tf.gather(tf.concat([features, known], -1), order), []
        for block in self.blocks(context.model):
            read: Callable = _attend if isinstance(block, Attention) else _convolve
            x, kept = read(block, meta.own, x)
            memory.append(kept)
        return Read(memory, state)

    def predict(self, context: Context, meta: Meta, adapted: Read, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        features, state = self.embed_queries(context, meta, adapted.state, images)
        empty = tf.zeros([tf.shape(features)[0], context.model.n_way], features.dtype)
        x, own = tf.concat([features, empty], -1), meta.own
        for block, kept in zip(self.blocks(context.model), adapted.memory):
            ask: Callable = _attend_next if isinstance(block, Attention) else _convolve_next
            x = ask(block, own, x, kept)
        logits = tf.matmul(x, own["logits/kernel"]) + own["logits/bias"]
        return logits[:, : context.ways], state


_Own = dict[str, tf.Tensor]


def _dense(own: _Own, name: str, x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, own[f"{name}/kernel"]) + own[f"{name}/bias"]


def _triple(block: Attention, own: _Own, x: tf.Tensor) -> list[tf.Tensor]:
    """Queries, divided by √keys, keys and values of items [T, C]."""
    q, k, v = (_dense(own, f"{block.name}/{part}", x) for part in ("query", "key", "value"))
    return [q / math.sqrt(block.keys), k, v]


def _attend(block: Attention, own: _Own, x: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """The block over a sequence [S, C], and what later items need of it: keys and values."""
    q, k, v = _triple(block, own, x)
    scores = tf.matmul(q, k, transpose_b=True)
    past = tf.linalg.band_part(tf.ones_like(scores), -1, 0) > 0
    weights = tf.nn.softmax(tf.where(past, scores, tf.constant(-math.inf, scores.dtype)))
    return tf.concat([x, tf.matmul(weights, v)], -1), (k, v)


def _attend_next(block: Attention, own: _Own, x: tf.Tensor, kept: Sequence[tf.Tensor]) -> tf.Tensor:
    """The block at the next step, for each of several items [B, C] that might come."""
    keys, values = kept
    q, k, v = _triple(block, own, x)
    itself = tf.reduce_sum(q * k, -1, keepdims=True)
    weights = tf.nn.softmax(tf.concat([tf.matmul(q, keys, transpose_b=True), itself], -1))
    seen = tf.matmul(weights[:, :-1], values) + weights[:, -1:] * v
    return tf.concat([x, seen], -1)


def _convolve(block: Temporal, own: _Own, x: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """The block over a sequence [S, C], and what later items need of it: the items that went in."""
    before = tf.pad(x, [[block.dilation, 0], [0, 0]])[: tf.shape(x)[0]]
    return _gated(block, own, before, x), (x,)


def _convolve_next(block: Temporal, own: _Own, x: tf.Tensor, kept: Sequence[tf.Tensor]) -> tf.Tensor:
    """The block at the next step, for each of several items [B, C] that might come."""
    (items,) = kept
    before = tf.pad(items, [[block.dilation, 0], [0, 0]])[tf.shape(items)[0]]
    return _gated(block, own, before[None], x)


def _gated(block: Temporal, own: _Own, before: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
    # Its slices' gradients would be kernels of zeros to add up.
    earlier, present = tf.unstack(own[f"{block.name}/kernel"])
    both = tf.matmul(before, earlier) + tf.matmul(now, present) + own[f"{block.name}/bias"]
    a, b = tf.split(both, 2, -1)
    return tf.concat([now, tf.tanh(a) * tf.sigmoid(b)], -1)
