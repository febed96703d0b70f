# SPDX-License-Identifier: Apache-2.0
"""What the learners share that adapt a network by gradient steps on the support loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.learners.base import Learner
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import InnerLoop, Update, adapt, by_rates
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.functional import FunctionalModel, Prepared
from tf_lwdgh.types import Meta, Tensors

HEADS = ("learned", "zero")


class AdaptedNetwork(NamedTuple):
    """A network that has learned a task."""

    params: Tensors  # one a variable
    state: Tensors  # BatchNorm's statistics for the queries


@dataclasses.dataclass(frozen=True)
class GradientLearner(Learner):
    """MAML and its kin. What differs between them is overridden.

    Attributes:
      inner_loop: steps, rates and order of the inner loop.
      head: 'learned' by the outer loop, or 'zero' at the start of every task; with 'zero' the number of
        ways may differ between training and test.
    """

    inner_loop: InnerLoop = dataclasses.field(default_factory=InnerLoop)
    head: str = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("head", self.head in HEADS, f"must be one of {', '.join(HEADS)}")
        fits = isinstance(self.inner_loop, InnerLoop)
        self.require("inner_loop", fits, "must be a ready object, @InnerLoop() with brackets")

    @property
    def any_way(self) -> bool:
        return self.head == "zero"

    def inner_steps(self, steps: int | None = None) -> int | None:
        return self.inner_loop.steps if steps is None else steps

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        self.rates(model)

    def trained(self, model: FunctionalModel) -> list[bool]:
        """All variables; without the head's where the head starts every task at zero."""
        return [not (head and self.head == "zero") for head in model.is_head]

    # What differs between the learners.

    def rates(self, model: FunctionalModel) -> list[float]:
        """The rate of each of the network's variables; those of rate 0 stay."""
        return self.inner_loop.rates(model.names, model.is_batch_norm)

    def start(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> Tensors:
        """The network's parameters before the first step, for the task's ways."""
        if self.head == "learned":
            return learned_head(context, meta.network)
        return zero_head(context, meta.network)

    def update(self, context: Context, meta: Meta, moving: Sequence[int]) -> Update:
        """From velocities to what a step subtracts."""
        rates = self.rates(context.model)
        return by_rates([rates[i] for i in moving])

    def inputs(self, context: Context, meta: Meta, moving: Sequence[int], step: int) -> Tensors:
        """What `update` and `support_loss` need at a step, that the outer gradient shall reach."""
        return []

    def order(self, context: Context) -> tf.Tensor | None:
        """1 or 0: whether the outer gradient is of second order now; None: as the inner loop says."""
        return None

    # What they share.

    def support_loss(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor):
        """The loss that the inner loop lowers: (parameters, inputs) -> scalar."""

        def loss(params: Tensors, inputs: Tensors) -> tf.Tensor:
            logits, _ = self.apply_to_support(context, meta, params, support)
            return cross_entropy(logits, labels)

        return loss

    def apply_to_support(
        self, context: Context, meta: Meta, params: Tensors, support: Prepared
    ) -> tuple[tf.Tensor, Tensors]:
        """Logits of the support set within the inner loop, and its statistics."""
        batch = self.support_takes_batch(context)
        return context.model.apply(params, meta.state, support, training=batch)

    def trajectory(self, context: Context, meta: Meta, support: Prepared, labels: tf.Tensor) -> list[Tensors]:
        """The parameters before the first step and after each."""
        moving = [i for i, rate in enumerate(self.rates(context.model)) if rate]
        return adapt(
            self.support_loss(context, meta, support, labels),
            self.start(context, meta, support, labels),
            settings=self.inner_loop,
            moving=moving,
            update=self.update(context, meta, moving),
            inputs=lambda step: self.inputs(context, meta, moving, step),
            steps=context.steps,
            differentiable=context.training,
            order=self.order(context),
        )

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> AdaptedNetwork:
        support = context.model.prepare(images)
        params = self.trajectory(context, meta, support, labels)[-1]
        return self.adapted(context, meta, params, support)

    def adapted(self, context: Context, meta: Meta, params: Tensors, support: Prepared) -> AdaptedNetwork:
        """Parameters that have learned, with the statistics that queries are normalised by."""
        state = meta.state
        if self.batch_norm == "inductive":
            _, state = context.model.apply(params, state, support, training=True)
        return AdaptedNetwork(list(params), list(state))

    def predict(
        self, context: Context, meta: Meta, adapted: AdaptedNetwork, images: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        batch = self.queries_take_batch(context)
        return context.model.apply(adapted.params, adapted.state, images, training=batch)


def learned_head(context: Context, network: Tensors) -> Tensors:
    """The parameters with the first ways of the head, where fewer are asked for."""
    if context.n_way is None:
        return list(network)
    kernel, bias = network[-2:]
    return [*network[:-2], kernel[:, : context.n_way], bias[: context.n_way]]


def zero_head(context: Context, network: Tensors) -> Tensors:
    """The parameters with a head of zeros for the task's ways."""
    kernel, bias = network[-2:]
    zeros = [tf.zeros([kernel.shape[0], context.ways], kernel.dtype), tf.zeros([context.ways], bias.dtype)]
    return [*network[:-2], *zeros]
