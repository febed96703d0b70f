# SPDX-License-Identifier: Apache-2.0
"""The meta-step: per-task outer gradients, aggregation, one update of the meta-parameters, as one graph."""

from __future__ import annotations

import dataclasses
import math

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import Aggregator, trees
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.explore_exploit import ExploreExploit
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer import optimizers
from tf_lwdgh.outer.outer_gradients import Outcome, outer_gradients
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Aggregated, Clock, Episode, Meta, Tensors

Metrics = dict[str, tf.Tensor]


@config.configurable
@dataclasses.dataclass(frozen=True)
class OuterLoop:
    """Settings of the outer loop.

    Attributes:
      meta_batch_size: tasks of one meta-step, over all replicas.
      steps_per_epoch: meta-steps of an epoch.
      epochs: epochs of the whole run; the schedules depend on it.
      clip_value: bound on every element of the update, or None.
      clip_norm: bound on the update's norm over all variables, or None.
      weight_decay: λ >= 0: λθ is added to the clipped update, before the optimizer, as PyTorch's SGD has
        it; for Adam's kind the optimizer's own (AdamW) does better.
      statistics_momentum: m in [0, 1): the averages of batch_norm='global' give a step m times the weight of
        the next one. They are of this run's steps alone, whatever it started from.
      loss_scale: a task's loss is multiplied and its outer gradient divided by it, for float16.
      sharpness: ρ >= 0: the tasks' gradients are taken ρ uphill along their mean, at θ + ρ ḡ/‖ḡ‖
        (Sharp-MAML's outer loop, Abbas et al. 2022); 0 leaves it out. Doubles the time of a step and more.
    """

    meta_batch_size: int = 4
    steps_per_epoch: int = 200
    epochs: int = 300
    clip_value: float | None = 10.0
    clip_norm: float | None = None
    weight_decay: float = 0.0
    statistics_momentum: float = 0.99
    loss_scale: float = 1.0
    sharpness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("meta_batch_size", "steps_per_epoch", "epochs"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"OuterLoop.{name} must be at least 1. Received: {value}.")
        for name in ("clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"OuterLoop.{name} must be > 0, or None for no clipping. Received: {value}.")
        if not 0 < self.loss_scale < math.inf:
            raise ValueError(f"OuterLoop.loss_scale must be > 0 and finite. Received: {self.loss_scale}.")
        if not 0 <= self.sharpness < math.inf:
            raise ValueError(
                f"OuterLoop.sharpness must be >= 0 and finite. Received: OuterLoop.sharpness = {self.sharpness}."
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                "OuterLoop.weight_decay must be >= 0 and finite. "
                f"Received: OuterLoop.weight_decay = {self.weight_decay}."
            )
        if not 0 <= self.statistics_momentum < 1:
            raise ValueError(f"OuterLoop.statistics_momentum must be in [0, 1). Received: {self.statistics_momentum}.")


class MetaStep(tf.Module):
    """One meta-update as a single tf.function, traced once.

    Made within a tf.distribute strategy's scope it runs on all of the replicas: the mean, the weights and
    the update then range over the tasks of all of them.

    Args:
      parameters: the learner and its variables, which are updated in place.
      aggregator: makes one update of the tasks' gradients.
      optimizer: any Keras optimizer, without its own clipping.
      settings: the outer loop's.
      seed: of all random draws of the step.
      explore: when the plain mean takes the aggregator's place; None: never.
      report: what is measured of the tasks' conflict.
      execution: how the tasks run; side by side by default.

    Raises:
      ValueError: the optimizer clips, or a setting has no meaning together with the others.
    """

    def __init__(
        self,
        *,
        parameters: MetaParameters,
        aggregator: Aggregator,
        optimizer: keras.optimizers.Optimizer,
        settings: OuterLoop,
        seed: int,
        explore: ExploreExploit | None = None,
        report: ConflictReport | None = None,
        execution: TaskExecution | None = None,
    ) -> None:
        super().__init__(name="meta_step")
        for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
            if getattr(optimizer, clip, None):
                raise ValueError(
                    f"The optimizer must not clip; set OuterLoop.clip_value or OuterLoop.clip_norm. "
                    f"Received: {clip}={getattr(optimizer, clip)}."
                )
        aggregator.check(settings.meta_batch_size)
        self.parameters, self.aggregator = parameters, aggregator
        self.optimizer, self.settings, self.seed = optimizer, settings, seed
        self.explore = None if explore is None or explore.mode == "off" else explore
        self.report = report or ConflictReport()
        self.execution = execution or TaskExecution()
        self.units = parameters.units(aggregator.unit)
        self.strategy = tf.distribute.get_strategy()
        self.traces = 0
        optimizers.take_global_updates(optimizer)
        optimizer.build(parameters.variables_trained)

    @tf.function(autograph=False)
    def __call__(self, episodes: Episode, step: tf.Tensor) -> Metrics:
        """Runs one meta-step and updates the variables.

        Args:
          episodes: a meta-batch, every tensor with a leading axis T; with several replicas, an element
            of a distributed data set.
          step: scalar int64, the global meta-step, counted from 0.

        Returns:
          Metrics by 'group/name': scalars; 'attention/<unit>' [K], where the aggregator weights the tasks;
          'cosines/<unit>' [K, K].
        """
        self.traces += 1
        if self.strategy.num_replicas_in_sync == 1:
            return self._replica_step(episodes, step)
        out = self.strategy.run(self._replica_step, args=(episodes, step))
        return tf.nest.map_structure(lambda v: self.strategy.experimental_local_results(v)[0], out)

    def _replica_step(self, episodes: Episode, step: tf.Tensor) -> Metrics:
        collective = Collective()
        clock = Clock(
            step,
            steps_per_epoch=self.settings.steps_per_epoch,
            epochs=self.settings.epochs,
            seed=self.seed,
        )
        outcome = self._outcome(episodes, clock, collective)
        tasks = TaskGradients(outcome.gradients, losses=outcome.losses, units=self.units, collective=collective)
        aggregated = self._aggregate(tasks, clock)
        metrics = self.report.measure(tasks, aggregated.gradients) | aggregated.metrics
        metrics |= {f"attention/{unit}": w for unit, w in aggregated.weights.items()}
        metrics |= self._update_metrics(aggregated.gradients)
        self._apply(aggregated.gradients)
        self._average_statistics(outcome.statistics, clock, collective)
        metrics |= self._after_step(outcome.told, clock, collective)
        return metrics | self._task_metrics(outcome, collective)

    def _outcome(self, episodes: Episode, clock: Clock, collective: Collective) -> Outcome:
        def at(meta: Meta) -> Outcome:
            return outer_gradients(
                self.parameters,
                episodes,
                meta=meta,
                clock=clock,
                collective=collective,
                execution=self.execution,
                loss_scale=self.settings.loss_scale,
            )

        meta = self.parameters.values()
        outcome = at(meta)
        if not self.settings.sharpness:
            return outcome
        uphill = at(self._uphill(meta, outcome, collective))
        return outcome._replace(gradients=uphill.gradients)

    def _uphill(self, meta: Meta, outcome: Outcome, collective: Collective) -> Meta:
        """θ + ρ ḡ/‖ḡ‖; θ where ḡ is 0."""
        tasks = TaskGradients(outcome.gradients, losses=outcome.losses, units={}, collective=collective)
        norm, rho = tf.linalg.global_norm(tasks.mean), self.settings.sharpness
        values = self.parameters.flatten(meta)
        moved = [v + tf.math.divide_no_nan(rho * g, norm) for v, g in zip(values, tasks.mean)]
        return self.parameters.replaced(meta, moved)

    def _aggregate(self, tasks: TaskGradients, clock: Clock) -> Aggregated:
        aggregated = self.aggregator(tasks, clock)
        return aggregated if self.explore is None else self.explore.over(aggregated, tasks, clock)

    def _apply(self, update: Tensors) -> None:
        clip_value, clip_norm = self.settings.clip_value, self.settings.clip_norm
        if clip_value is not None:
            update = [tf.clip_by_value(g, -clip_value, clip_value) for g in update]
        if clip_norm is not None:
            update, _ = tf.clip_by_global_norm(update, clip_norm)
        if self.settings.weight_decay:
            values = self.parameters.variables_trained
            decay = self.settings.weight_decay
            update = [g + decay * tf.convert_to_tensor(v) for g, v in zip(update, values)]
        self.optimizer.apply(update, self.parameters.variables_trained)

    def _average_statistics(self, statistics: Tensors, clock: Clock, collective: Collective) -> None:
        """Moves the averages of batch_norm='global' towards the mean over the tasks.

        After step n they are Σ_i m^(n−i) x_i / Σ_i m^(n−i) of the means x_0 … x_n: no layer's first values are
        left in them, which 0.99 would keep for hundreds of steps.
        """
        if not statistics:
            return
        m, n = tf.constant(self.settings.statistics_momentum, tf.float64), tf.cast(clock.step, tf.float64)
        momentum = tf.cast(m * (1 - m**n) / (1 - m ** (n + 1)), statistics[0].dtype)
        means = collective.sum([tf.reduce_mean(s, 0) / collective.size for s in statistics])
        for variable, mean in zip(self.parameters.model.state_variables, means):
            variable.assign(momentum * tf.convert_to_tensor(variable) + (1 - momentum) * mean)

    def _after_step(self, told: Tensors, clock: Clock, collective: Collective) -> Metrics:
        """Lets the learner change what it keeps; the scalars of it are metrics."""
        parameters = self.parameters
        summed = collective.sum([tf.reduce_sum(x, 0) for x in told]) if told else []
        context = Context(parameters.model, training=True, clock=clock)
        values = parameters.learner.after_step(context, parameters.values(), summed)
        parameters.assign_own(values)
        kept = {name: v for name, v in values.items() if name not in parameters.own_trained}
        return {f"learner/{name}": v for name, v in kept.items() if v.shape.rank == 0}

    def _update_metrics(self, update: Tensors) -> Metrics:
        inside = {i for members in self.units.values() for i in members}
        outside = {f"{i}": [i] for i in range(len(update)) if i not in inside}
        norms = [u.norms for u in trees.measured_units(update, self.units | outside)]
        metrics = {f"gradient_norm/{unit}": norm for unit, norm in zip(self.units, norms)}
        metrics["gradient_norm/total"] = trees.safe_norm(tf.stack(norms))
        return metrics | {"learning_rate/outer": tf.convert_to_tensor(self.optimizer.learning_rate)}

    @staticmethod
    def _task_metrics(outcome: Outcome, collective: Collective) -> Metrics:
        values = {"train/loss": outcome.losses, "train/accuracy": outcome.accuracies}
        means = [tf.reduce_mean(tf.cast(v, tf.float32)) / collective.size for v in values.values()]
        return dict(zip(values, collective.sum(means)))
