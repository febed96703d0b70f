# SPDX-License-Identifier: Apache-2.0
"""What every learner is: meta-parameters and a support set in, something that answers queries out.

Nothing outside a learner's file asks which learner it is: what the rest of the package wants to know,
the learner says through this class. Its methods are pure functions of tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.losses import cross_entropy
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.types import Episode, Meta, Published, TaskResult, Tensors

BATCH_NORM = ("transductive", "inductive", "global")
Adapted = Any  # a structure of tensors


@dataclasses.dataclass(frozen=True)
class OwnParameter:
    """A meta-parameter of a learner beyond the network's.

    Attributes:
      name: such as 'inner_lr/conv1/kernel'; unique within the learner.
      initial: its value at the start, a tensor or array; its dtype and shape are the variable's.
      layer: what it is grouped under where conflict is measured by layer; by default its name up to the
        last '/'.
      harmonized: whether the aggregator treats it as it does the network's; else it gets the mean.
      trained: whether the optimizer trains it; else nothing but the learner's `after_step` changes it.
    """

    name: str
    initial: Any
    layer: str | None = None
    harmonized: bool = True
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class Learner:
    """A learner. Subclasses are frozen dataclasses, registered with gin, that state their `reference`.

    Attributes:
      batch_norm: which statistics BatchNorm uses.
        'transductive': always those of the batch at hand, so a query's prediction depends on the
          other queries.
        'inductive': the support set's; for the queries, those of the support set as adapted.
        'global': the batch's in training, and averages over all training tasks afterwards.
      reference: the paper.
      equation: the rule in one line.
      published: accuracies that were published for it.
      traps: what to know before using it.
      numbers_classes: whether its objective takes the numbers of a task's classes among all training classes, and so
        has no meaning on other splits.
      class_axis: an own parameter that it needs after training too, and the axis of it that is as long as there are
        training classes: a run's checkpoint says by it how many those were. None: it has no such parameter.
    """

    batch_norm: str = dataclasses.field(default="transductive", kw_only=True)

    reference: ClassVar[str]
    equation: ClassVar[str] = ""
    published: ClassVar[tuple[Published, ...]] = ()
    traps: ClassVar[str] = ""
    numbers_classes: ClassVar[bool] = False
    class_axis: ClassVar[tuple[str, int] | None] = None

    def __post_init__(self) -> None:
        self.require("batch_norm", self.batch_norm in BATCH_NORM, f"must be one of {_or(BATCH_NORM)}")

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raises ValueError, naming the gin binding, where an argument breaks its rule."""
        if not holds:
            binding = f"{type(self).__name__}.{name}"
            raise ValueError(f"{binding} {rule}. Received: {binding} = {getattr(self, name)!r}.")

    # What the learner says of itself.

    @property
    def any_way(self) -> bool:
        """Whether tasks may have more ways than the network's head."""
        return False

    @property
    def any_way_in_training(self) -> bool:
        """Likewise for training tasks, where the learner does otherwise after training."""
        return self.any_way

    @property
    def depends_on_queries(self) -> bool:
        """Whether a query's prediction depends on the other queries of its call."""
        return self.batch_norm == "transductive"

    def support_takes_batch(self, context: Context) -> bool:
        """Whether BatchNorm takes the support set's own statistics."""
        return context.training or self.batch_norm != "global"

    def queries_take_batch(self, context: Context) -> bool:
        """Whether BatchNorm takes the queries' own statistics."""
        of_training = context.training and self.batch_norm == "global"
        return of_training or self.batch_norm == "transductive"

    def inner_steps(self, steps: int | None = None) -> int | None:
        """Gradient steps on a support set, where `steps` overrides the training's; None: has none."""
        return None

    def check(self, model: FunctionalModel, steps: int | None = None) -> None:
        """Raises ValueError where the learner can't work on this network, or with so many steps."""

    # What it asks of the training data.

    def for_classes(self, n_classes: int) -> Learner:
        """The learner as it trains on a split of so many classes; by default as it is.

        Asked for training, and with a `class_axis` wherever a run is loaded: what only training needs may be
        absent without it.

        Raises:
          ValueError: it was set up for another number.
        """
        return self

    def training_shape(self, n_classes: int, n_images: int) -> Mapping[str, int]:
        """n_way, k_shot and n_query of its training tasks, where they aren't the episodes' own.

        Args:
          n_classes: that a task may have; of a mixture those of its smallest set.
          n_images: that the smallest class has.
        """
        return {}

    # What it learns.

    def own(self, model: FunctionalModel) -> Sequence[OwnParameter]:
        """Its meta-parameters beyond the network's and those of its parts."""
        return ()

    def parts(self, model: FunctionalModel) -> Mapping[str, keras.Model]:
        """Networks of its own, by name; called once, then they are to be had from model.parts.

        Their variables are meta-parameters, such as 'relation/conv1/kernel' of the part 'relation'.
        """
        return {}

    def trained(self, model: FunctionalModel) -> list[bool]:
        """Which of the network's variables the outer loop trains."""
        return [True] * len(model.variables)

    # What it does with a task.

    def adapt(self, context: Context, meta: Meta, images: tf.Tensor, labels: tf.Tensor) -> Adapted:
        """Learns a support set.

        Args:
          context: how the learner is asked.
          meta: the meta-parameters.
          images: [B, H, W, C].
          labels: [B] integers in [0, N).

        Returns:
          All that prediction needs beside `meta`, as a structure of tensors: it can be kept, sent and
          served.
          Differentiable in `meta` where context.training.
        """
        raise NotImplementedError

    def predict(self, context: Context, meta: Meta, adapted: Adapted, images: tf.Tensor) -> tuple[tf.Tensor, Tensors]:
        """Answers queries.

        Args:
          context: as in `adapt`.
          meta: as in `adapt`.
          adapted: what `adapt` returned.
          images: [B, H, W, C].

        Returns:
          Logits [B, N], and BatchNorm's statistics, as many as meta.state has: with training those of
          the queries, which 'global' averages.
        """
        raise NotImplementedError

    def objective(self, context: Context, meta: Meta, episode: Episode) -> TaskResult:
        """What the outer gradient is that of; by default the query loss, in cross-entropy."""
        adapted = self.adapt(context, meta, episode.support_images, episode.support_labels)
        logits, state = self.predict(context, meta, adapted, episode.query_images)
        loss = cross_entropy(logits, episode.query_labels)
        return TaskResult(loss, loss, logits, state)

    def outer_gradient(self, context: Context, meta: Meta, episode: Episode) -> tuple[Meta, TaskResult]:
        """The task's outer gradient; by default that of `objective`, by reverse mode.

        Returns:
          The gradient, structured as `meta` is, without state; None where a network's variable is not
          trained.
        """
        return differentiate(
            lambda at: self.objective(context, at, episode),
            meta,
            self.trained(context.model),
            context.loss_scale,
        )

    # What it keeps from meta-step to meta-step that no gradient trains, such as counts of tasks: own
    # parameters with trained=False, and what the tasks tell of themselves.

    def tells(self, model: FunctionalModel) -> Sequence[tf.TensorSpec]:
        """What every training task tells `after_step`: the specs of TaskResult.told."""
        return ()

    def after_step(self, context: Context, meta: Meta, told: Tensors) -> Mapping[str, tf.Tensor]:
        """New values of some of its own parameters, once the optimizer has made its step.

        Args:
          context: of training, without a task; its clock gives the keys of random draws.
          meta: the meta-parameters after the step.
          told: what the tasks told, each summed over the tasks of all replicas.

        Returns:
          Values by the names of `own`; parameters that it doesn't name stay.
        """
        return {}

    # Losses that couple the tasks: one scalar a task, from all to all.

    couples: ClassVar[bool] = False

    def scalar(self, context: Context, meta: Meta, episode: Episode) -> tf.Tensor:
        """What the other tasks' objectives need of this one, a scalar; asked for if `couples`."""
        raise NotImplementedError

    def couple(self, scalars: tf.Tensor, context: Context) -> tf.Tensor:
        """What each task's objective needs of all tasks, given as context.coupling: [K] -> [K].

        K ranges over the tasks of all replicas. No gradient goes through it.
        """
        raise NotImplementedError


def differentiate(
    objective: Callable[[Meta], TaskResult],
    meta: Meta,
    trained: Sequence[bool],
    loss_scale: float = 1.0,
) -> tuple[Meta, TaskResult]:
    """The gradient of an objective in the trained meta-parameters, and its result.

    Args:
      objective: a function of the meta-parameters.
      meta: where.
      trained: which of the network's variables are wanted; the learner's own all are.
      loss_scale: the objective is multiplied and its gradient divided by it.
    """
    wanted = [tf.identity(v) if yes else None for v, yes in zip(meta.network, trained)]
    own = {name: tf.identity(value) for name, value in meta.own.items()}
    with tf.GradientTape() as tape:
        tape.watch([[v for v in wanted if v is not None], own])
        network = [v if w is None else w for v, w in zip(meta.network, wanted)]
        result = objective(meta._replace(network=network, own=own))
        scaled = loss_scale * result.objective
    zero = tf.UnconnectedGradients.ZERO
    sources = [[w for w in wanted if w is not None], own]
    found, own_found = tape.gradient(scaled, sources, unconnected_gradients=zero)
    if loss_scale != 1:
        found, own_found = tf.nest.map_structure(lambda g: g / loss_scale, [found, own_found])
    rest = iter(found)
    return Meta([None if w is None else next(rest) for w in wanted], own_found, []), result


def _or(names: Sequence[str]) -> str:
    return ", ".join(names)
