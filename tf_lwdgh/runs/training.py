# SPDX-License-Identifier: Apache-2.0
"""A run from gin files to its last checkpoint, as the command trains it and as Python does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tf_lwdgh import config
from tf_lwdgh.outer.cluster import losses_said
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.meta_step import OuterLoop
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs import evaluable
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.experiment import Experiment, refuse_idle_bindings
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.shared_folder import held_for_all
from tf_lwdgh.runs.trainer import Progression, Trainer


class Outcome(NamedTuple):
    """What a training came to.

    Attributes:
      run_dir: the run's folder.
      at: where the run stands.
      is_chief: whether this process is the one of the run's that writes.
    """

    run_dir: str
    at: Progression
    is_chief: bool


def train(
    gin_files: Sequence[str],
    gin_params: Sequence[str],
    run_dir: str | None,
    data_dir: str,
    *,
    profile: bool = False,
    stop: Callable[[], Callable[[], bool]] = lambda: lambda: False,
    show: bool = True,
    alone: bool = True,
) -> Outcome:
    """Trains, or goes on with a run.

    Args:
      gin_files: at least one.
      gin_params: single bindings.
      run_dir: the run's folder; None: by the names of the gin files.
      data_dir: the folder of data sets.
      profile: whether to profile a few steps.
      stop: called before the first step, gives what says whether to stop at the end of a window.
      show: whether to show progress.
      alone: whether the process is there for this run; else TensorFlow may have started in it, and
        keeps the threads that it has.

    Raises:
      ValueError: a setting is wrong.
      FileNotFoundError: a file or the data set is not there.
      TrainingDiverged: the loss was not finite.
      WorkerLost: another process of the run is gone.
    """
    run_dir = run_dir or os.path.join("runs", "-".join(map(_stem, gin_files)))
    config.parse(gin_files, gin_params)
    threads, at_once = Threads(), TaskExecution().at_once(OuterLoop().meta_batch_size)
    threads.apply(at_once) if alone else threads.apply_if_unstarted(at_once)
    with losses_said():
        assembly = Experiment().build(data_dir)
        settings, _ = TrainerConfig(), assembly.meta_step
        evaluable.check(assembly, Evaluation())
        refuse_idle_bindings(gin_params)
        with held_for_all(run_dir, assembly.workers):
            trainer = Trainer(assembly, run_dir, settings)
            with _progress(trainer, show) as progress:
                at = trainer.run(stop=stop(), progress=progress, profile=profile)
    return Outcome(run_dir, at, assembly.workers.is_chief)


@contextlib.contextmanager
def _progress(trainer: Trainer, show: bool) -> Iterator[Progress | None]:
    """What shows the run's progress; None: what the trainer makes."""
    if show:
        yield None
        return
    assembly = trainer.assembly
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        yield Progress(
            total=assembly.total_steps,
            done=trainer.at.step,
            tasks_per_step=assembly.outer.meta_batch_size,
            stream=nowhere,
        )


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
