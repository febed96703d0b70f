# SPDX-License-Identifier: Apache-2.0
"""A trained run in Python: judged on test tasks, and taught tasks of one's own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lwdgh import config
from tf_lwdgh.outer.evaluation import EvaluationResult
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs import experiment
from tf_lwdgh.runs.judge import judge, load_checkpoint
from tf_lwdgh.serving import saved_models
from tf_lwdgh.serving.loaded import Loaded


class Classifier:
    """What was learned from a support set: what `Run.adapt` returns.

    Attributes:
      tensors: named arrays that can be kept, sent, and handed to `Loaded.predict` of the run's export.

    Args:
      model: what learned it.
      tensors: what it learned.
    """

    def __init__(self, model: Loaded, tensors: Mapping[str, np.ndarray]) -> None:
        self._model, self.tensors = model, dict(tensors)

    def predict(self, query_images: Any) -> dict[str, np.ndarray]:
        """Answers queries.

        Args:
          query_images: [Q, H, W, C], uint8 in 0..255 or floating in [0, 1], or Q encoded images as bytes.

        Returns:
          'probabilities' [Q, N] float32 and 'labels' [Q] int32.

        Raises:
          ValueError: something is wrong with the queries; the message says what.
        """
        return self._model.predict(self.tensors, query_images)


class Run:
    """A trained run: what `load_run` returns.

    Attributes:
      run_dir: its folder.
      checkpoint: 'best' or 'last'.
      step: meta-steps of that checkpoint.
      best_accuracy: the best validation accuracy in [0, 1]; -1 where there was no validation.
      learner: the learner's name.
      dataset: the name of what it was trained on.
      settings: what it was trained with, by 'Name.argument', as text.

    Args:
      run_dir: its folder.
      data_dir: see `load_run`, as the next two.
      checkpoint: see there.
      batch_norm: see there.
      on_top: gin_params and gin_files, by these names.
    """

    def __init__(
        self,
        run_dir: str,
        data_dir: str | os.PathLike[str],
        checkpoint: str,
        batch_norm: str | None,
        on_top: dict[str, Any],
    ) -> None:
        self.run_dir, self.checkpoint = run_dir, checkpoint
        self._data_dir, self._batch_norm = data_dir, batch_norm
        self._on_top = on_top
        with settings_cleared():
            assembly = experiment.from_run(run_dir, **self._on_top)
            Threads().apply_if_unstarted(TaskExecution().at_once(None))
            manifest = load_checkpoint(assembly, run_dir, checkpoint)
            self.learner = type(assembly.learner).__name__
        self.step: int = manifest["step"]
        self.best_accuracy: float = manifest["best_accuracy"]
        self.dataset: str = manifest["dataset"]
        self.settings: dict[str, str] = manifest["settings"]

    def __repr__(self) -> str:
        return f"<run {self.run_dir}: {self.learner}, {self.checkpoint} checkpoint, step {self.step}>"

    def evaluate(self, n_tasks: int | None = None, *, gin_params: Sequence[str] = ()) -> EvaluationResult:
        """Judges the run on test tasks, as `tf-lwdgh evaluate` does, and keeps the result in its folder.

        Args:
          n_tasks: how many; None: as the settings say.
          gin_params: bindings on top of the run's, such as "Evaluation.split = 'val'".

        Returns:
          `mean` accuracy in [0, 1], `interval95`, half the width of its 95 % interval, and `accuracies`
          [n_tasks] float64; printed, it is a line that says it all.

        Raises:
          ValueError: a setting is wrong.
          FileNotFoundError: the data set is not in data_dir.
        """
        many = [] if n_tasks is None else [f"Evaluation.n_tasks = {n_tasks!r}"]
        told = {**self._on_top, "gin_params": [*self._on_top["gin_params"], *gin_params, *many]}
        with settings_cleared():
            result, _ = judge(self.run_dir, data_dir=self._data_dir, which=self.checkpoint, show=False, **told)
        return result

    def adapt(self, support_images: Any, support_labels: Any) -> Classifier:
        """Learns a task of one's own, as an export of this run would; the first call builds its graphs.

        Args:
          support_images: [B, H, W, C], uint8 in 0..255 or floating in [0, 1], of the run's image size, or
            B encoded images as bytes, of any size.
          support_labels: [B], whole numbers 0, 1, ..., way - 1, each with an example.

        Raises:
          ValueError: something is wrong with the support set; the message says what.
        """
        return Classifier(self._model, self._model.adapt(support_images, support_labels))

    @functools.cached_property
    def _model(self) -> Loaded:
        with settings_cleared():
            module = saved_models.from_run(self.run_dir, self.checkpoint, batch_norm=self._batch_norm, **self._on_top)
        return Loaded(module, json.loads(module.metadata))


def load_run(
    run_dir: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] = "data",
    checkpoint: str = "best",
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    batch_norm: str | None = None,
) -> Run:
    """Loads a run that `train` or `tf-lwdgh train` wrote.

    The gin bindings of this process, which are one set, are cleared.

    Args:
      run_dir: its folder.
      data_dir: the folder of data sets, which `Run.evaluate` reads.
      checkpoint: 'best' (by validation accuracy) or 'last'.
      gin_params: bindings on top of the run's settings.
      gin_files: gin files before those, such as 'learners/simple_shot', another learner on what the run
        has learned.
      batch_norm: the statistics that BatchNorm uses in `Run.adapt`, as --batch_norm of `tf-lwdgh export`;
        None: the support set's where the run was trained transductively, so that no answer depends on the
        other queries. `Run.evaluate` uses the run's.

    Raises:
      FileNotFoundError: no such run, or no checkpoint in it yet.
      ValueError: a setting is wrong, or no checkpoint is whole.
    """
    on_top = {"gin_params": list(gin_params), "gin_files": list(gin_files)}
    return Run(os.fspath(run_dir), data_dir, checkpoint, batch_norm, on_top)


@contextlib.contextmanager
def settings_cleared() -> Iterator[None]:
    """Leaves no gin binding behind."""
    try:
        yield
    finally:
        config.clear()
