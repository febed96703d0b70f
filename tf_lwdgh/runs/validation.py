# SPDX-License-Identifier: Apache-2.0
"""Validation in training: always the same tasks, and a picture of the first of them."""

from __future__ import annotations

import numpy as np

from tf_lwdgh.data import pipeline, task_lists
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.outer.evaluation import EvaluationResult, Evaluator, evaluate, mean_and_interval
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.pictures import Picture, episode_picture

_BATCH = 16


class Validation:
    """Judges the meta-parameters as they stand. Several processes share the tasks out.

    Args:
      assembly: the experiment.
      settings: how many tasks, how many inner steps, and the tasks' seed.
    """

    def __init__(self, assembly: Assembly, settings: TrainerConfig) -> None:
        self._n_way = assembly.episode.n_way
        self._evaluator = Evaluator(assembly.parameters, inner_steps=settings.val_inner_steps)
        drawn = {"seed": settings.val_seed, "n_tasks": settings.val_tasks}
        self._workers, self._count = assembly.workers, settings.val_tasks
        self._tasks = pipeline.evaluation_tasks(
            assembly.source("val"),
            assembly.shape,
            **drawn,
            batch_size=_BATCH,
            tasks=self._workers.share(self._count),
            pipeline_config=assembly.pipeline,
        )
        self._datasets: list[str] = []
        if isinstance(assembly.spec, Mixture):
            listed = task_lists.draw(assembly.spec, "val", assembly.shape, **drawn)
            self._datasets = listed.datasets(assembly.spec)
        self._first = next(iter(self._tasks.take(1)), None)

    def judge(self) -> dict[str, float]:
        """Accuracy, its 95 % interval and the loss over all tasks; accuracy on each set of a mixture."""
        accuracies, losses = self._workers.judged(self._count, self._judge)
        result = EvaluationResult(accuracies, losses, {}, self._datasets)
        accuracy, interval = mean_and_interval(result.accuracies)
        loss = float(np.mean(result.losses))
        parts = {f"val/accuracy_{n}": part["accuracy"] for n, part in result.by_dataset.items()}
        return {"val/accuracy": accuracy, "val/interval95": interval, "val/loss": loss, **parts}

    def _judge(self, tasks: range) -> tuple[np.ndarray, np.ndarray]:
        """Accuracies and losses of this process's tasks."""
        if not tasks:
            return np.zeros(0), np.zeros(0)
        result = evaluate(self._evaluator, self._tasks, {})
        return result.accuracies, result.losses

    def picture(self, step: int) -> Picture | None:
        """The first task with its predictions after so many meta-steps; None where shapes vary.

        Only the first process has it.
        """
        if self._first.varies:
            return None
        predictions = self._evaluator(self._first)["predictions"][0].numpy()
        accuracy = np.mean(predictions == self._first.query_labels[0].numpy())
        return episode_picture(
            self._first.support_images[0].numpy(),
            self._first.query_images[0].numpy(),
            predictions,
            self._n_way,
            f"step {step}, accuracy of this task {100 * accuracy:.0f} %",
        )
