# SPDX-License-Identifier: Apache-2.0
"""The outer gradient of every task of a meta-batch."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.aggregators.collectives import Collective
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.losses import accuracy
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.types import Clock, Episode, Meta, Tensors


class Outcome(NamedTuple):
    """What the tasks of a meta-batch give."""

    gradients: Tensors  # one [T, *shape] a trained variable
    losses: tf.Tensor  # [T]: the query losses, in nats
    accuracies: tf.Tensor  # [T] float32: of the queries
    statistics: Tensors  # [T, *shape]: BatchNorm's, for the averages of batch_norm='global'
    told: Tensors  # [T, *shape]: what Learner.after_step wants to know


class _Task(NamedTuple):
    """A task as it goes over: all tensors with a leading axis T before."""

    episode: Episode
    key: tf.Tensor  # [2] int64
    coupling: tf.Tensor  # scalar


def outer_gradients(
    parameters: MetaParameters,
    episodes: Episode,
    *,
    meta: Meta | None = None,
    clock: Clock | None = None,
    collective: Collective | None = None,
    execution: TaskExecution | None = None,
    loss_scale: float = 1.0,
) -> Outcome:
    """Each task's outer gradient: ∂L_Q(θ')/∂θ, or what the learner takes in its place.

    Args:
      parameters: the learner and its variables.
      episodes: a meta-batch, every tensor with a leading axis T; ragged, where the tasks' shapes vary.
      meta: where; the variables' present values by default.
      clock: where the run stands; the very start by default.
      collective: the replicas, for learners that couple the tasks.
      execution: how the tasks run; side by side by default.
      loss_scale: see OuterLoop.
    """
    learner, meta = parameters.learner, meta or parameters.values()
    clock = clock or Clock(tf.constant(0), steps_per_epoch=1, epochs=1, seed=0)
    collective, execution = collective or Collective(), execution or TaskExecution()
    context = Context(
        parameters.model, training=True, n_way=_ways(parameters, episodes), clock=clock, loss_scale=loss_scale
    )
    tasks = _tasks(context, parameters, meta, episodes, collective, execution)

    def one_task(task: _Task) -> Outcome:
        coupling = task.coupling if learner.couples else None
        told = _told(context, episodes, task)._replace(coupling=coupling)
        gradient, result = learner.outer_gradient(told, meta, task.episode)
        hits = accuracy(result.logits, task.episode.query_labels)
        flat = parameters.flatten(gradient)
        return Outcome(flat, result.loss, hits, list(result.state), list(result.told))

    return execution.over(one_task, tasks, _signature(parameters, meta))


def _ways(parameters: MetaParameters, episodes: Episode) -> int | None:
    """The ways of tasks of one shape; None where they are the network's, vary, or are no matter to the learner."""
    known = None if episodes.varies or isinstance(episodes.class_ids, tuple) else episodes.class_ids.shape[-1]
    return known if parameters.learner.any_way_in_training and known != parameters.model.n_way else None


def _told(context: Context, episodes: Episode, task: _Task) -> Context:
    """The context with what is the task's own; its ways where those of a meta-batch vary."""
    context = context._replace(key=task.key)
    return context._replace(n_way=task.episode.ways) if episodes.varies else context


def _signature(parameters: MetaParameters, meta: Meta) -> Outcome:
    def specs(tensors: Tensors) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(x.shape, x.dtype) for x in tensors]

    scalars = tf.TensorSpec([], meta.network[0].dtype), tf.TensorSpec([], tf.float32)
    told = list(parameters.learner.tells(parameters.model))
    return Outcome(specs(parameters.flatten(meta)), *scalars, specs(meta.state), told)


def _tasks(
    context: Context,
    parameters: MetaParameters,
    meta: Meta,
    episodes: Episode,
    collective: Collective,
    execution: TaskExecution,
) -> _Task:
    """The episodes with their keys, and what the other tasks have to tell each."""
    count = episodes.n_tasks
    keys = tf.random.stateless_uniform(
        [2, count * collective.size], context.clock.key("task"), None, None, tf.int64, alg="philox"
    )
    keys = tf.transpose(collective.mine(keys))
    learner, dtype = parameters.learner, meta.network[0].dtype
    couplings = tf.zeros([count], dtype)
    if learner.couples:
        scalars = execution.over(
            lambda task: learner.scalar(_told(context, episodes, task), meta, task.episode),
            _Task(episodes, keys, couplings),
            tf.TensorSpec([], dtype),
        )
        couplings = collective.mine(learner.couple(collective.gather(scalars), context))
    return _Task(episodes, keys, tf.stop_gradient(couplings))
