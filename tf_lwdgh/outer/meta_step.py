"""The meta-step: per-task outer gradients, aggregation, one update of the meta-parameters, as one graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators import Aggregator
from tf_lwdgh.learners import Algorithm, accuracy
from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.networks.functional import FunctionalModel
from tf_lwdgh.aggregators.schedules import Clock
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Episode, Tensors

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
      statistics_momentum: how slowly the averages of batch_norm='global' move, in [0, 1).
      loss_scale: a task's loss is multiplied and its outer gradient divided by it, for float16.
    """

    meta_batch_size: int = 4
    steps_per_epoch: int = 200
    epochs: int = 300
    clip_value: float | None = 10.0
    clip_norm: float | None = None
    statistics_momentum: float = 0.99
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("meta_batch_size", "steps_per_epoch", "epochs"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"OuterLoop.{name} must be at least 1. Received: {value}.")
        for name in ("clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(
                    f"OuterLoop.{name} must be > 0, or None for no clipping. Received: {value}."
                )
        if not 0 < self.loss_scale < math.inf:
            raise ValueError(
                f"OuterLoop.loss_scale must be > 0 and finite. Received: {self.loss_scale}."
            )
        if not 0 <= self.statistics_momentum < 1:
            raise ValueError(
                "OuterLoop.statistics_momentum must be in [0, 1). "
                f"Received: {self.statistics_momentum}."
            )


def task_gradients(
    model: FunctionalModel,
    algorithm: Algorithm,
    episodes: Episode,
    *,
    params: Tensors | None = None,
    state: Tensors | None = None,
    execution: TaskExecution | None = None,
    loss_scale: float = 1.0,
) -> tuple[Tensors, Metrics, Tensors]:
    """Each task's outer gradient, ∂L_Q(θ')/∂θ.

    Args:
      model: the model's functional view.
      algorithm: the learner.
      episodes: a meta-batch, every tensor with a leading axis T.
      params: the meta-parameters; the model's by default.
      state: BatchNorm's averages; the model's by default.
      execution: how the tasks run; side by side by default.
      loss_scale: see OuterLoop.

    Returns:
      One gradient [T, *shape] for each variable that the algorithm trains; 'loss' and 'accuracy' [T];
      and the tasks' batch statistics [T, *shape].
    """
    params = model.values() if params is None else params
    state = model.state() if state is None else state
    trained = [i for i, yes in enumerate(algorithm.trained(model)) if yes]

    def one_task(episode: Episode):
        at = list(params)
        wanted = [tf.identity(params[i]) for i in trained]
        with tf.GradientTape() as tape:
            tape.watch(wanted)
            for i, value in zip(trained, wanted):
                at[i] = value
            result = algorithm.task(model, at, state, episode)
            scaled = loss_scale * result.loss
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(scaled, wanted, unconnected_gradients=zero)
        if loss_scale != 1:
            gradients = [g / loss_scale for g in gradients]
        hits = accuracy(result.logits, episode.query_labels)
        return gradients, {"loss": result.loss, "accuracy": hits}, list(result.state)

    signature = (
        [tf.TensorSpec(params[i].shape, params[i].dtype) for i in trained],
        {"loss": tf.TensorSpec([], params[0].dtype), "accuracy": tf.TensorSpec([], tf.float32)},
        [tf.TensorSpec(s.shape, s.dtype) for s in state],
    )
    return (execution or TaskExecution()).over(one_task, episodes, signature)


class MetaStep(tf.Module):
    """One meta-update as a single tf.function, traced once.

    Made within a tf.distribute strategy's scope it runs on all of the replicas: the mean, the softmax and
    the update then range over the tasks of all of them.

    Args:
      keras_model: a backbone; its variables are updated in place.
      algorithm: the learner.
      aggregator: makes one update of the tasks' gradients.
      optimizer: any Keras optimizer, without its own clipping.
      settings: the outer loop's.
      seed: of the explore-exploit draws.
      execution: how the tasks run; side by side by default.

    Raises:
      ValueError: the optimizer clips, or a unit or rate pattern is wrong.
    """

    def __init__(
        self,
        *,
        keras_model: keras.Model,
        algorithm: Algorithm,
        aggregator: Aggregator,
        optimizer: keras.optimizers.Optimizer,
        settings: OuterLoop,
        seed: int,
        execution: TaskExecution | None = None,
    ) -> None:
        super().__init__(name="meta_step")
        for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
            if getattr(optimizer, clip, None):
                raise ValueError(
                    f"The optimizer must not clip; set OuterLoop.clip_value or OuterLoop.clip_norm. "
                    f"Received: {clip}={getattr(optimizer, clip)}."
                )
        self.model = FunctionalModel(keras_model)
        self.algorithm = algorithm
        self.aggregator = aggregator
        self.optimizer = optimizer
        self.settings = settings
        self.seed = seed
        self.execution = execution or TaskExecution()
        trained = algorithm.trained(self.model)
        self.variables_trained = [v for v, yes in zip(self.model.variables, trained) if yes]
        names = [n for n, yes in zip(self.model.names, trained) if yes]
        layers = [n for n, yes in zip(self.model.layer_names, trained) if yes]
        self.names = names
        self.units = trees.make_units(aggregator.unit, names, layers)
        self.strategy = tf.distribute.get_strategy()
        self.traces = 0
        optimizer.build(self.variables_trained)

    @tf.function(autograph=False)
    def __call__(self, episodes: Episode, step: tf.Tensor) -> Metrics:
        """Runs one meta-step and updates the variables.

        Args:
          episodes: a meta-batch, every tensor with a leading axis T; with several replicas, an element
            of a distributed data set.
          step: scalar int64, the global meta-step, counted from 0.

        Returns:
          Metrics by 'group/name': scalars, and 'weights/<unit>' [K].
        """
        self.traces += 1
        if self.strategy.num_replicas_in_sync == 1:
            return self._replica_step(episodes, step)
        out = self.strategy.run(self._replica_step, args=(episodes, step))
        return tf.nest.map_structure(lambda v: self.strategy.experimental_local_results(v)[0], out)

    def _replica_step(self, episodes: Episode, step: tf.Tensor) -> Metrics:
        collective = Collective()
        gradients, task_metrics, statistics = task_gradients(
            self.model,
            self.algorithm,
            episodes,
            execution=self.execution,
            loss_scale=self.settings.loss_scale,
        )
        clock = Clock(
            step,
            steps_per_epoch=self.settings.steps_per_epoch,
            epochs=self.settings.epochs,
            seed=self.seed,
        )
        update, metrics = self.aggregator(
            gradients, units=self.units, clock=clock, collective=collective
        )
        metrics |= self._update_metrics(update)
        self._apply(update, collective)
        self._average_statistics(statistics, collective)
        return metrics | self._task_metrics(task_metrics, collective)

    def _apply(self, update: Tensors, collective: Collective) -> None:
        clip_value, clip_norm = self.settings.clip_value, self.settings.clip_norm
        if clip_value is not None:
            update = [tf.clip_by_value(g, -clip_value, clip_value) for g in update]
        if clip_norm is not None:
            update, _ = tf.clip_by_global_norm(update, clip_norm)
        # The update is global already, and a Keras optimizer sums over the replicas once more.
        if collective.size > 1:
            update = [g / collective.size for g in update]
        self.optimizer.apply(update, self.variables_trained)

    def _average_statistics(self, statistics: Tensors, collective: Collective) -> None:
        """Moves the averages of batch_norm='global' towards the mean over the tasks."""
        if not statistics:
            return
        momentum = self.settings.statistics_momentum
        means = collective.sum([tf.reduce_mean(s, 0) / collective.size for s in statistics])
        for variable, mean in zip(self.model.state_variables, means):
            variable.assign(momentum * tf.convert_to_tensor(variable) + (1 - momentum) * mean)

    def _update_metrics(self, update: Tensors) -> Metrics:
        norms = {
            f"gradient_norm/{unit}": trees.safe_norm(
                trees.flatten_unit([g[None] for g in update], members)
            )[0]
            for unit, members in self.units.items()
        }
        total = trees.safe_norm(tf.stack(list(norms.values())))
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        return norms | {"gradient_norm/total": total, "learning_rate/outer": rate}

    @staticmethod
    def _task_metrics(task_metrics: Mapping[str, tf.Tensor], collective: Collective) -> Metrics:
        values = [tf.cast(value, tf.float32) for value in task_metrics.values()]
        means = [tf.reduce_mean(value) / collective.size for value in values]
        return {f"train/{k}": v for k, v in zip(task_metrics, collective.sum(means))}
