# SPDX-License-Identifier: Apache-2.0
"""How the tasks of a meta-batch run: side by side in graph threads, as one batch, or one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_lwdgh import config
from tf_lwdgh.learners.inner_loop import inline_steps
from tf_lwdgh.networks.kernels.convolution import as_products
from tf_lwdgh.outer import threads

MODES = ("map", "vectorized", "unrolled")


@config.configurable
@dataclasses.dataclass(frozen=True)
class TaskExecution:
    """The way over the tasks.

    Attributes:
      mode: 'map': a graph loop whose iterations run side by side, traced once; the fastest on CPUs.
        'vectorized': one batch of all tasks, in which every convolution is a matrix product over patches
          with one filter a task; meant for accelerators, and takes 9 times the memory for a layer's input.
        'unrolled': each task traced by itself, and all free to run at the same time.
      parallel_tasks: with 'map', how many tasks run at once; None: as many as there are cores.
      xla: compile each task ('vectorized': all of them) with XLA. On CPUs this is slower.
    """

    mode: str = "map"
    parallel_tasks: int | None = None
    xla: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"TaskExecution.mode must be one of {', '.join(MODES)}. Received: {self.mode!r}.")
        if self.parallel_tasks is not None and self.parallel_tasks < 1:
            raise ValueError(
                "TaskExecution.parallel_tasks must be at least 1, or None for as many as there are "
                f"cores. Received: {self.parallel_tasks}."
            )

    def at_once(self, tasks: int | None) -> int | None:
        """How many of `tasks` run at the same time, given the cores; None stands for many."""
        if self.mode == "vectorized":
            return 1
        if self.mode == "map" and self.parallel_tasks:
            return min(self.parallel_tasks, tasks or self.parallel_tasks)
        return tasks

    def check_varying(self) -> None:
        """Raises ValueError where tasks that vary in ways and shots can't run this way."""
        if self.mode == "vectorized" or self.xla:
            name = "mode" if self.mode == "vectorized" else "xla"
            rule = "'map' or 'unrolled'" if self.mode == "vectorized" else "False"
            raise ValueError(
                f"TaskExecution.{name} must be {rule} for tasks that vary in ways and shots "
                f"(VariableEpisodes). Received: TaskExecution.{name} = {getattr(self, name)!r}."
            )

    def over(self, one_task: Callable[[Any], Any], tasks: Any, signature: Any) -> Any:
        """Runs `one_task` on every task.

        Args:
          one_task: from one task, such as an Episode, to a structure of tensors.
          tasks: a meta-batch: the structure of a task, every tensor with a leading axis T.
          signature: the structure's TensorSpecs.

        Returns:
          The structure, each tensor with a leading axis T.

        Raises:
          ValueError: 'unrolled' with a number of tasks that is not known when tracing.
        """
        # AutoGraph would rewrite all that a task runs, a second and more, and find nothing to change.
        one_task = tf.autograph.experimental.do_not_convert(one_task)
        run = self._compiled(one_task) if self.mode != "vectorized" else one_task
        if self.mode == "map":
            parallel = self.parallel_tasks or threads.cores()
            return tf.map_fn(run, tasks, fn_output_signature=signature, parallel_iterations=parallel)
        if self.mode == "unrolled":
            return self._unrolled(run, tasks)
        return self._compiled(lambda e: _vectorized(one_task, e))(tasks)

    def _compiled(self, run: Callable) -> Callable:
        if not self.xla:
            return run

        @tf.function(jit_compile=True, autograph=False)
        def compiled(task: Any) -> Any:
            with inline_steps():
                return run(task)

        return compiled

    @staticmethod
    def _unrolled(run: Callable, tasks: Any) -> Any:
        count = tf.nest.flatten(tasks)[0].shape[0]
        if count is None:
            raise ValueError(
                "TaskExecution.mode = 'unrolled' needs a number of tasks that is known when tracing. Received: None."
            )
        results = [run(tf.nest.map_structure(lambda x, k=k: x[k], tasks)) for k in range(count)]
        return tf.nest.map_structure(lambda *x: tf.stack(x), *results)


def _vectorized(one_task: Callable, tasks: Any) -> Any:
    with as_products():
        return tf.vectorized_map(one_task, tasks, fallback_to_while_loop=False)
