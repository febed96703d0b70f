# SPDX-License-Identifier: Apache-2.0
"""Hierarchically structured meta-learning (Yao et al. 2019): MAML from an initialisation made for the task.

A support image becomes u = e(x) ⊕ its label, e a network of its own. An autoencoder of all u gives the
task's representation z and an error L_r of reconstruction; z goes down a tree of soft clusters,
  p_k = softmax_k(−‖z − c_k‖²/(2σ²)),           h_k = p_k tanh(U_k z + b_k),
  q_kj = softmax_j(a_j·h_k + b_j),              h_j = Σ_k q_kj tanh(V_j h_k + b_j),
  h = Σ_j tanh(W h_j + b),
and every variable θ_i of the network starts from θ_i∘o_i, o_i = σ(W_i [z; h] + b_i). From there it is
MAML, with the outer loss L_Q + ξ L_r.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.gradient_learner import AdaptedNetwork, GradientLearner
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.learners.shuffles import rounds
from tf_lwdgh.networks import hsml_parts
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

AGGREGATIONS = ("recurrent", "mean")
ASSIGNMENTS = ("linear", "distance")


class Represented(NamedTuple):
    """A support set as one vector."""

    z: tf.Tensor  # [1, width]
    error: tf.Tensor  # scalar: L_r


@config.configurable
@dataclasses.dataclass(frozen=True)
class HSML(GradientLearner):
    """The learner. It owns the networks 'embedding', 'encoder', 'decoder', 'tree' and 'gates', and
    'output' or 'pooled' of the autoencoder: at 84×84 pixels and 5-way 14 million weights for a
    network of 33,000.

    BatchNorm's scales and offsets have no gates, as in the authors' code; nor, other than there,
    have the biases that batch statistics cancel. The authors' recipe is MAML's, 60,000 meta-steps of
    4 tasks at 1 shot and 50,000 at 5 shots, where the first 10 support images alone make z.

    Attributes:
      aggregation: 'recurrent': a GRU reads the u one after the other, and z is the mean of its
        states; a second one writes them in reverse, which L_r compares, in mean squares. 'mean': z
        is of the mean over what dense layers make of each u; L_r is half the mean square.
      width: of z and h.
      embedding: sizes of e: filters of both convolutions, units of both dense layers.
      clusters: nodes of the tree's levels, from the leaves up, without the root; one number or more.
      assignment: q by 'linear', as above, or by 'distance': −(‖h_k − a_j‖² + b_j)/2.
      variance: σ² of the leaves' clusters.
      reconstruction_weight: ξ >= 0.
      embedded: how many support images make z, the first of an order drawn for the task in which
        classes take turns; None: all. The recurrent one reads them in that order.
    """

    aggregation: str = "recurrent"
    width: int = 128
    embedding: tuple[int, int, int] = (32, 384, 64)
    clusters: tuple[int, ...] = (4, 2)
    assignment: str = "linear"
    variance: float = 10.0
    reconstruction_weight: float = 0.01
    embedded: int | None = None

    reference: ClassVar[str] = "Yao, Wei, Huang, Li: Hierarchically Structured Meta-learning, ICML 2019"
    equation: ClassVar[str] = "θ_0 = θ∘σ(W[z; h] + b); θ_{s+1} = θ_s − α∇L_S(θ_s); ∂(L_Q + ξL_r)"
    published: ClassVar[tuple[Published, ...]] = (
        Published("mini-ImageNet 5-way 1-shot, Convnet4", "50.38 ± 1.85", "the paper"),
    )
    traps: ClassVar[str] = (
        "The authors' code feeds 1 − one-hot where the label belongs; here it is the one-hot. Its "
        "inner loss is N times the mean cross-entropy, so that its α of 0.01 is 0.05 here at 5-way. "
        "It has no script for mini-ImageNet. With 'mean' it clips the outer gradient's values at ±3. "
        "The gates start near one half, and the network's effective weights with them. Labels are "
        "part of z: a task can't have more ways than the network. With 'recurrent' z depends on "
        "the order of the support set."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("aggregation", AGGREGATIONS), ("assignment", ASSIGNMENTS)):
            self.require(name, getattr(self, name) in known, f"must be one of {', '.join(known)}")
        self.require("width", self.width >= 1, "must be at least 1")
        fits = len(self.embedding) == 3 and all(n >= 1 for n in self.embedding)
        self.require("embedding", fits, "must be three numbers, each at least 1")
        nodes = tuple(self.clusters)
        fits = len(nodes) >= 1 and all(n >= 1 for n in nodes)
        self.require("clusters", fits, "must be one number or more, each at least 1")
        self.require("variance", 0 < self.variance < math.inf, "must be > 0, finite")
        fits = 0 <= self.reconstruction_weight < math.inf
        self.require("reconstruction_weight", fits, "must be >= 0, finite")
        fits = self.embedded is None or self.embedded >= 1
        self.require("embedded", fits, "must be at least 1, or None for all images")

    @property
    def any_way(self) -> bool:
        """No: the labels that make z have the network's ways."""
        return False

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        dtype = tf.as_dtype(model.variables[0].dtype).name
        pair = self.embedding[-1] + model.n_way
        recurrent = self.aggregation == "recurrent"
        make = hsml_parts.recurrent_autoencoder if recurrent else hsml_parts.mean_autoencoder
        sizes = {model.names[i]: math.prod(model.variables[i].shape) for i in self._gated(model)}
        return {
            "embedding": hsml_parts.image_embedding(model.image_shape, self.embedding, dtype),
            **make(pair, self.width, dtype),
            "tree": hsml_parts.tree(
                self.width,
                self.clusters,
                dtype,
                variance=self.variance,
                distance=self.assignment == "distance",
            ),
            "gates": hsml_parts.gates(2 * self.width, sizes, dtype),
        }

    def _gated(self, model: FunctionalModel) -> list[int]:
        """The variables that have gates."""
        facts = zip(model.is_batch_norm, model.is_idle, self.trained(model))
        return [i for i, (norm, idle, trained) in enumerate(facts) if trained and not norm and not idle]

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> AdaptedNetwork:
        z = self.represent(context, meta, images, labels).z
        return super().adapt(context, self.gated(context, meta, z), images, labels)

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """L_Q + ξ L_r."""
        images, labels = episode.support_images, episode.support_labels
        task = self.represent(context, meta, images, labels)
        adapted = super().adapt(context, self.gated(context, meta, task.z), images, labels)
        logits, state = self.predict(context, meta, adapted, episode.query_images)
        loss = cross_entropy(logits, episode.query_labels)
        return TaskResult(loss + self.reconstruction_weight * task.error, loss, logits, state)

    def gated(self, context: Context, meta: Meta, z: tf.Tensor) -> Meta:
        """The meta-parameters with the initialisation of the task that z [1, width] represents."""
        run = _runner(context, meta)
        gates = run("gates", tf.concat([z, run("tree", z)], 1))
        network = list(meta.network)
        for i, gate in zip(self._gated(context.model), gates, strict=True):
            network[i] *= tf.reshape(gate, network[i].shape)
        return meta._replace(network=network)

    def represent(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Represented:
        """The support set's z; its L_r is 0 outside training."""
        run = _runner(context, meta)
        if self.embedded is not None or self.aggregation == "recurrent":
            order = rounds(labels, context.task_key)[: self.embedded]
            images, labels = tf.gather(images, order), tf.gather(labels, order)
        features = run("embedding", images)
        names = tf.one_hot(labels, context.model.n_way, dtype=features.dtype)
        pairs = tf.concat([features, names], 1)
        if self.aggregation == "recurrent":
            return self._recurrent(run, pairs, context.training)
        each = run("encoder", pairs)
        z = run("pooled", tf.reduce_mean(each, 0, keepdims=True))
        if not context.training:
            return Represented(z, tf.zeros([], z.dtype))
        return Represented(z, tf.reduce_mean(tf.square(pairs - run("decoder", each))) / 2)

    def _recurrent(self, run: Callable, pairs: tf.Tensor, training: bool) -> Represented:
        none = tf.zeros([1, self.width], pairs.dtype)
        states = _over(lambda h, u: run("encoder", [u[None], h]), none, pairs)
        z = tf.reduce_mean(states, 0)
        if not training:
            return Represented(z, tf.zeros([], z.dtype))

        def write(before: Tensors, _: tf.Tensor) -> Tensors:
            said, h = before
            h = run("decoder", [said, h])
            return [run("output", h), h]

        said, _ = _over(write, [tf.zeros_like(pairs[:1]), states[-1]], pairs)
        return Represented(z, tf.reduce_mean(tf.square(pairs - said[::-1, 0])))


def _runner(context: Context, meta: Meta) -> Callable:
    """(part's name, inputs) -> its outputs."""
    return lambda name, inputs: context.model.parts[name](meta.own, meta.state, inputs, training=context.training)[0]


def _over(step: Callable, first: tf.Tensor | Tensors, rows: tf.Tensor) -> tf.Tensor | Tensors:
    """The states after each row [B, …], stacked; unrolled where their number is known."""
    count: int | None = rows.shape[0]
    if count is None:
        return tf.scan(step, rows, initializer=first)
    states = [first]
    for i in range(count):
        states.append(step(states[-1], rows[i]))
    return tf.nest.map_structure(lambda *x: tf.stack(x), *states[1:])
