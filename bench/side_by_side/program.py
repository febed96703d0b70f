# SPDX-License-Identifier: Apache-2.0
"""A meta-step of several runs of MAML and its kin at once, as a pure function that XLA compiles whole."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lwdgh.aggregators import trees
from tf_lwdgh.aggregators.gram_weights import GramAggregator
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.data import images
from tf_lwdgh.learners.context import Context
from tf_lwdgh.learners.inner_loop import inline_steps
from tf_lwdgh.learners.losses import accuracy
from tf_lwdgh.networks.kernels.convolution import as_products
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.types import Clock, Episode, Meta, Tensors

Scalars = dict[str, tf.Tensor]


class Tasks(NamedTuple):
    """The training tasks of one step of all seeds: S seeds, T tasks."""

    pixels: tf.Tensor  # [M, H, W, C] uint8: all training images
    rows: tf.Tensor  # [S, T, N(K+Q)] int32: which of them, class by class, support first
    labels: tf.Tensor  # [S, T, NK] int32: of the support set
    explores: tf.Tensor  # [R] bool: whether a run takes the mean in this step


class State(NamedTuple):
    """Of R runs, method by method and in each seed by seed."""

    variables: Tensors  # one [R, *shape] a variable
    first: Tensors  # the optimizer's moments, alike
    second: Tensors


class SideBySide:
    """The program.

    Attributes:
      names: (metric, number of the method), in the order of the table's rows.
      snapshot: (what, number of the method, shape), in the order of the snapshot's parts.

    Args:
      methods: an assembly a method, alike but for aggregator and schedule.
      n_seeds: S.

    Raises:
      ValueError: the learner, the optimizer or the images' settings are none that it can do.
    """

    def __init__(self, methods: list[Assembly], n_seeds: int) -> None:
        self.methods, self.n_seeds = methods, n_seeds
        self.names: list[tuple[str, int]] = []
        self.snapshot: list[tuple[str, int, list[int]]] = []
        a = methods[0]
        self._parameters, self._optimizer = a.parameters, a.meta_step.optimizer
        self._state = [np.asarray(v) for v in a.parameters.model.state_variables]
        kind = type(self._optimizer)
        if a.parameters.own or a.learner.couples or a.learner.batch_norm == "global":
            raise ValueError(f"{type(a.learner).__name__} keeps something beside the network's variables.")
        if kind not in (keras.optimizers.Adam, keras.optimizers.SGD):
            raise ValueError(f"the optimizer must be Adam or SGD. Received: {kind.__name__}.")
        if a.image.augments or a.episode.rotations:
            raise ValueError("augmentation and rotations are left out here; switch them off.")
        rate, outer = a.experiment.learning_rate, a.outer
        if rate.decay != "constant" or rate.warmup or outer.weight_decay or outer.sharpness or outer.clip_norm:
            raise ValueError("the rate must be constant, without warmup; weight_decay, sharpness and clip_norm off.")

    def __call__(self, tasks: Tasks, state: State, step: tf.Tensor) -> tuple[State, tf.Tensor, tf.Tensor]:
        """One step of all runs.

        Args:
          tasks: of this step.
          state: before it.
          step: scalar int32, counted from 0.

        Returns:
          The state after it, the metrics [n, S], and the snapshot [m] of single tasks' norms, GCI, weights and losses.
        """
        rows, losses, accuracies = self._gradients(tasks, state)
        updates, tables, snaps = [], [], []
        self.names, self.snapshot = [], []
        for i, method in enumerate(self.methods):
            of = slice(i * self.n_seeds, (i + 1) * self.n_seeds)
            given = ([r[of] for r in rows], losses[of], accuracies[of], tasks.explores[of])
            update, scalars, snap = self._of_all_seeds(method, given, step)
            updates.append(update)
            self.names += [(name, i) for name in sorted(scalars)]
            tables += [scalars[name] for name in sorted(scalars)]
            self.snapshot += [(what, i, value.shape.as_list()) for what, value in snap.items()]
            snaps += [tf.reshape(value, [-1]) for value in snap.values()]
        update = [tf.concat([u[k] for u in updates], 0) for k in range(len(rows))]
        return self._optimized(state, update, step), tf.stack(tables), tf.concat(snaps, 0)

    def _gradients(self, tasks: Tasks, state: State) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
        """[R, T, *shape] a variable, losses and accuracies [R, T]."""
        a, (n_seeds, n_tasks) = self.methods[0], tasks.rows.shape[:2]
        e, runs = a.episode, len(self.methods) * n_seeds
        x = tf.gather(tasks.pixels, tf.reshape(tasks.rows, [-1]))
        x = images.normalise(images.to_unit(x, a.image), a.image)
        x = tf.reshape(x, [n_seeds * n_tasks, e.n_way, e.images_per_class, *a.image.shape])
        support, query = x[:, :, : e.k_shot], x[:, :, e.k_shot :]
        many = [len(self.methods)]

        def of_methods(value: tf.Tensor, *shape: int) -> tf.Tensor:
            value = tf.reshape(value, [n_seeds * n_tasks, -1, *shape])
            return tf.tile(value, many + [1] * (len(shape) + 1))

        wanted = tf.tile(tf.repeat(tf.range(e.n_way), e.n_query)[None], [runs * n_tasks, 1])
        episodes = Episode(
            of_methods(support, *a.image.shape), of_methods(tasks.labels), of_methods(query, *a.image.shape), wanted
        )
        variables = [tf.repeat(v, n_tasks, axis=0) for v in state.variables]
        with as_products(), inline_steps():
            found = tf.vectorized_map(self._of_task, (variables, episodes), fallback_to_while_loop=False)
        gradients, losses, hits = found
        split = [runs, n_tasks]
        losses, hits = (tf.reshape(tf.cast(v, tf.float32), split) for v in (losses, hits))
        return [tf.reshape(g, [*split, *g.shape[1:]]) for g in gradients], losses, hits

    def _of_task(self, given: tuple[Tensors, Episode]) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
        variables, episode = given
        p = self._parameters
        clock = Clock(tf.constant(0), steps_per_epoch=1, epochs=1, seed=0)
        context = Context(p.model, training=True, clock=clock, key=tf.zeros([2], tf.int64))
        meta = Meta(list(variables), {}, [tf.constant(s) for s in self._state])
        gradient, result = p.learner.outer_gradient(context, meta, episode)
        return p.flatten(gradient), result.loss, accuracy(result.logits, episode.query_labels)

    def _of_all_seeds(self, method: Assembly, given: tuple, step: tf.Tensor) -> tuple[Tensors, Scalars, Scalars]:
        def of_seed(given: tuple) -> tuple[Tensors, Scalars, Scalars]:
            return self._aggregated(method, *given, step)

        if not isinstance(method.experiment.aggregator, GramAggregator):  # whose solvers loop
            return tf.vectorized_map(of_seed, given, fallback_to_while_loop=False)
        each = [of_seed(tf.nest.map_structure(lambda v, s=s: v[s], given)) for s in range(self.n_seeds)]
        return tf.nest.map_structure(lambda *v: tf.stack(v), *each)

    def _aggregated(
        self, method: Assembly, rows: Tensors, losses: tf.Tensor, hits: tf.Tensor, explores: tf.Tensor, step: tf.Tensor
    ) -> tuple[Tensors, Scalars, Scalars]:
        aggregator, meta_step = method.experiment.aggregator, method.meta_step
        clock = Clock(step, steps_per_epoch=method.outer.steps_per_epoch, epochs=method.outer.epochs, seed=0)
        tasks = TaskGradients(rows, losses=losses, units=meta_step.units)
        out = aggregator(tasks, clock)
        update, share = list(out.gradients), tf.ones_like(losses) / losses.shape[0]
        weights = tf.stack([out.weights.get(unit, share) for unit in meta_step.units])
        if meta_step.explore is not None:
            update = [tf.where(explores, m, g) for m, g in zip(tasks.mean, update)]
            weights = tf.where(explores, share, weights)
        scalars = meta_step.report.measure(tasks, update)
        scalars |= {} if meta_step.explore is None else {"explore/flag": explores}
        scalars |= {"train/loss": tf.reduce_mean(losses), "train/accuracy": tf.reduce_mean(hits)}
        norms = [u.norms for u in trees.measured_units(update, meta_step.units)]
        scalars |= {f"gradient_norm/{unit}": norm for unit, norm in zip(meta_step.units, norms)}
        scalars |= {"gradient_norm/total": trees.safe_norm(tf.stack(norms))}
        single = {k: tf.cast(v, tf.float32) for k, v in scalars.items() if v.shape.rank == 0}
        clip = method.outer.clip_value
        if clip is not None:
            update = [tf.clip_by_value(g, -clip, clip) for g in update]
        return update, single, {"norms": tasks.norms, "gci": tasks.gci, "weights": weights, "losses": losses}

    def _optimized(self, state: State, update: Tensors, step: tf.Tensor) -> State:
        """Keras's Adam (Kingma & Ba 2015) or SGD with momentum, at a fixed rate."""
        o, rate = self._optimizer, self.methods[0].experiment.learning_rate.rate
        if isinstance(o, keras.optimizers.SGD):
            first = [o.momentum * m - rate * g for m, g in zip(state.first, update)]
            return State([w + m for w, m in zip(state.variables, first)], first, state.second)
        count = tf.cast(step + 1, tf.float32)
        size = rate * tf.sqrt(1 - o.beta_2**count) / (1 - o.beta_1**count)
        first = [m + (g - m) * (1 - o.beta_1) for m, g in zip(state.first, update)]
        second = [v + (g * g - v) * (1 - o.beta_2) for v, g in zip(state.second, update)]
        moved = [w - size * m / (tf.sqrt(v) + o.epsilon) for w, m, v in zip(state.variables, first, second)]
        return State(moved, first, second)
