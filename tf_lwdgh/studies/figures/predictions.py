# SPDX-License-Identifier: Apache-2.0
"""The first test tasks, each query with the predictions of two methods, wrong ones red (the paper's Figure 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tf_lwdgh import config
from tf_lwdgh.data import pipeline
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.store import SPLITS
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.outer.evaluation import Evaluation, Evaluator
from tf_lwdgh.runs import experiment
from tf_lwdgh.runs.checkpoints import WHICH
from tf_lwdgh.runs.judge import load_checkpoint
from tf_lwdgh.studies.figures.base import Figure, FigureMaker, Path, Row, Runs
from tf_lwdgh.studies.figures.prediction_picture import Task, draw_tasks

_SPLIT = "test"
_BINDINGS = ("Experiment.strategy = 'default'", f"Evaluation.split = '{_SPLIT}'")


@dataclasses.dataclass(frozen=True, eq=False)
class _Predicted:
    """One method on the tasks: of each its images, labels and predictions."""

    tasks: TaskList
    names: list[list[str]]  # of each task's classes
    support: np.ndarray  # [n, N*K, H, W, C]
    query: np.ndarray  # [n, N*Q, H, W, C]
    labels: np.ndarray  # [n, N*Q]
    predictions: np.ndarray  # [n, N*Q]
    step: int
    inner_steps: int | None


@config.configurable
@dataclasses.dataclass(frozen=True)
class Predictions(FigureMaker):
    """Test tasks with what two methods make of each query.

    Drawn are the first two methods, each by its first run, on tasks chosen by their number alone: those of
    the list that `evaluate` draws with the first run's Evaluation settings, of which more tasks change none.

    Attributes:
      tasks: the tasks' numbers in that list, counted from 0.
      which: the checkpoints: 'last' or 'best'.
    """

    name: str = "predictions"
    tasks: Sequence[int] = (0, 1)
    which: str = "last"

    least_methods: ClassVar[int] = 2
    reference: ClassVar[str] = "Figure 5 of Cross-Task Gradient Harmonization for Meta-Learning"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = all(isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in self.tasks)
        distinct = len(self.tasks) == len(set(self.tasks)) > 0
        self.require("tasks", whole and distinct, "must list numbers of at least 0, none twice")
        self.require("which", self.which in WHICH, f"must be one of {', '.join(WHICH)}")

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        chosen = dict(list(self.chosen(runs).items())[:2])
        found: dict[str, _Predicted] = {}
        for method, folders in chosen.items():
            listed = next(iter(found.values())).tasks if found else None
            found[method] = self._predict(folders[0], data_dir, listed)
        tasks = [_task(number, i, found) for i, number in enumerate(self.tasks)]
        table = [row for task in tasks for row in _rows(task)]
        return Figure(self.name, draw_tasks(tasks), self._caption(found, tasks), table)

    def _predict(self, run_dir: Path, data_dir: Path, listed: TaskList | None) -> _Predicted:
        assembly = experiment.from_run(run_dir, _BINDINGS, data_dir=data_dir)
        settings = Evaluation()
        episode = assembly.evaluation_episode(settings)
        if not isinstance(episode, EpisodeConfig):
            raise ValueError(
                f"{self.name} must be drawn of tasks of one shape, and not of varying ones: set "
                f"Evaluation.n_way, Evaluation.k_shot or Evaluation.n_query. Received: {episode!r}."
            )
        if listed is None:
            listed = self._draw_tasks(assembly.spec, episode, settings.seed)
        else:
            listed.check(assembly.spec, _SPLIT, episode)
        manifest = load_checkpoint(assembly, run_dir, self.which)
        evaluator = Evaluator(
            assembly.parameters,
            inner_steps=settings.inner_steps,
            n_way=assembly.other_ways(episode),
        )
        source = assembly.source(_SPLIT)
        batches = pipeline.listed_tasks(source, listed, batch_size=len(listed), pipeline_config=assembly.pipeline)
        batch = next(iter(batches))
        return _Predicted(
            tasks=listed,
            names=_class_names(assembly.spec, listed),
            support=batch.support_images.numpy(),
            query=batch.query_images.numpy(),
            labels=batch.query_labels.numpy(),
            predictions=evaluator(batch)["predictions"].numpy(),
            step=manifest["step"],
            inner_steps=assembly.learner.inner_steps(settings.inner_steps),
        )

    def _draw_tasks(self, spec, episode, seed: int) -> TaskList:
        """The chosen of the first tasks of the list."""
        first = TaskList.draw(spec, _SPLIT, episode, seed=seed, n_tasks=max(self.tasks) + 1)
        arrays = ("class_ids", "rotations", "image_indices")
        picked = {name: getattr(first, name)[list(self.tasks)] for name in arrays}
        return dataclasses.replace(first, **picked)

    def _caption(self, found: dict[str, _Predicted], tasks: list[Task]) -> str:
        first = next(iter(found.values()))
        shape = first.tasks.config
        methods = " and ".join(
            f"{method} ({self.which} checkpoint, step {p.step}"
            + ("" if p.inner_steps is None else f", {p.inner_steps} inner steps")
            + ")"
            for method, p in found.items()
        )
        numbers = ", ".join(map(str, self.tasks))
        accuracies = "; ".join(
            f"task {task.number}: " + ", ".join(f"{m} {100 * task.accuracy(m):.1f} %" for m in task.predictions)
            for task in tasks
        )
        return (
            f"Test tasks {numbers} (chosen by number, not by result) of {first.tasks.dataset}, "
            f"{shape.n_way}-way {shape.k_shot}-shot, task-list seed {first.tasks.seed}. On top of each the "
            "support set; below, a row a class, all of its queries, and under each the class that "
            f"{methods} predict, in this order; wrong predictions are red and crossed. "
            f"Accuracy: {accuracies}."
        )


def _class_names(spec, listed: TaskList) -> list[list[str]]:
    """The names of each task's classes; those of a mixture run through its sets, split by split."""
    specs = getattr(spec, "specs", (spec,))
    names = [s.class_names[c] for split in SPLITS for s in specs for c in s.classes(split)]
    return [[names[c] for c in ids] for ids in listed.class_ids]


def _task(number: int, i: int, found: dict[str, _Predicted]) -> Task:
    first = next(iter(found.values()))
    return Task(
        number=number,
        names=first.names[i],
        support=first.support[i],
        query=first.query[i],
        labels=first.labels[i],
        predictions={method: p.predictions[i] for method, p in found.items()},
    )


def _rows(task: Task) -> list[Row]:
    """A row a query and method."""
    return [
        {"task": task.number, "query": q, "label": int(label), "class_name": task.names[label],
         "method": method, "prediction": int(guesses[q]), "wrong": bool(guesses[q] != label)}
        for q, label in enumerate(task.labels)
        for method, guesses in task.predictions.items()
    ]  # fmt: skip
