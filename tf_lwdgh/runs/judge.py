"""Judges the checkpoints of run folders on a list of tasks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from tf_lwdgh import files
from tf_lwdgh.data import pipeline
from tf_lwdgh.data.dataset_config import DatasetConfig
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.learners import Learner
from tf_lwdgh.outer.evaluation import Evaluation, EvaluationResult, Evaluator, evaluate
from tf_lwdgh.runs import checkpoints, experiment
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.progress import Progress, StepClock

WHICH = ("best", "last")


def load_checkpoint(
    assembly: Assembly, run_dir: str | os.PathLike[str], which: str
) -> dict[str, Any]:
    """Fills a model with the weights of a run's 'best' or 'last' checkpoint.

    Returns:
      The checkpoint's manifest: 'step', 'best_accuracy' …

    Raises:
      ValueError: another word than those two, or no checkpoint of that kind is whole.
      FileNotFoundError: the run has no such checkpoint yet.
    """
    if which not in WHICH:
        raise ValueError(f"--checkpoint must be one of {', '.join(WHICH)}. Received: {which!r}.")
    folder = checkpoints.of_run(run_dir, which)
    manifest = folder.newest()
    if manifest is None:
        raise FileNotFoundError(
            f"there is no {which} checkpoint in {folder.folder!r}: one is saved after the first "
            f"validation or epoch. --checkpoint takes {' or '.join(WHICH)}."
        )
    learned = checkpoints.meta_variables(assembly.parameters)
    folder.load(manifest, learned)
    return manifest


def judge(
    run_dir: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    which: str = "best",
    tasks: TaskList | None = None,
    batch_norm: str | None = None,
    queries_per_call: int | None = None,
    show: bool = True,
) -> tuple[EvaluationResult, TaskList]:
    """Evaluates a run with its own settings and writes the result into its folder.

    Args:
      run_dir: the run.
      data_dir: the folder of data sets.
      gin_params: bindings that override the run's.
      which: 'best' or 'last'.
      tasks: the tasks; None: those that the settings draw.
      batch_norm: in place of what the settings say; None: what they say.
      queries_per_call: likewise.
      show: whether to show progress.

    Returns:
      The result, and the tasks.

    Raises:
      ValueError: a setting is wrong, or the tasks are of another data set or shape.
      FileNotFoundError: no such run, checkpoint or data set.
      OSError: the result can't be written; said before the tasks run where it can be known then, else
        with the result in the message.
    """
    experiment.parse_run(run_dir, gin_params)
    settings = Evaluation()
    if queries_per_call is not None:
        settings = dataclasses.replace(settings, queries_per_call=queries_per_call)
    other = None if settings.dataset is None else DatasetConfig(settings.dataset, None)
    assembly = experiment.Experiment().build(data_dir, splits=(), dataset=other)
    experiment.refuse_idle_bindings(gin_params)
    episode = assembly.evaluation_episode(settings)
    manifest = load_checkpoint(assembly, run_dir, which)
    if tasks is None:
        tasks = TaskList.draw(
            assembly.spec, settings.split, episode, seed=settings.seed, n_tasks=settings.n_tasks
        )
    else:
        tasks.check(assembly.spec, settings.split, episode)
    evaluator = Evaluator(
        assembly.parameters,
        inner_steps=settings.inner_steps,
        n_way=None if episode.n_way == assembly.episode.n_way else episode.n_way,
        batch_norm=batch_norm,
        queries_per_call=settings.queries_per_call,
    )
    about = _about(evaluator.learner, settings, tasks, run_dir, which, manifest)
    path = os.path.join(run_dir, "evaluation", _file_name(about))
    files.check_writable(path)
    result = _run(assembly, evaluator, settings, tasks, about, show)
    try:
        result.write(path)
    except OSError as error:
        raise OSError(f"{result}\nThis could not be kept: {error}") from error
    return result, tasks


def _run(assembly, evaluator, settings, tasks, about, show: bool) -> EvaluationResult:
    dataset = pipeline.listed_tasks(
        assembly.source(settings.split),
        tasks,
        batch_size=settings.batch_size,
        pipeline_config=assembly.pipeline,
    )
    datasets = tasks.datasets(assembly.spec)
    if not show:
        return evaluate(evaluator, dataset, about, datasets=datasets)
    clock = StepClock(1)
    with Progress(total=len(tasks), tasks_per_step=1, unit="task", every=10.0) as progress:
        clock.start()

        def advance(n: int) -> None:
            progress.advance(n)
            clock.count(n)
            progress.report(tasks_per_second=clock.tasks_per_second())

        return evaluate(evaluator, dataset, about, datasets=datasets, progress=advance)


def _about(
    learner: Learner, settings: Evaluation, tasks: TaskList, run_dir, which: str, manifest
) -> dict[str, Any]:
    per_call = settings.queries_per_call
    calls = {} if per_call is None else {"queries_per_call": per_call}
    trained_on = {} if settings.dataset is None else {"trained_on": manifest["dataset"]}
    return {
        "run": os.path.basename(os.path.abspath(run_dir)),
        "checkpoint": f"{which} checkpoint, step {manifest['step']}",
        **trained_on,
        "dataset": tasks.dataset,
        "fingerprint": tasks.fingerprint,
        "split": tasks.split,
        "n_way": tasks.config.n_way,
        "k_shot": tasks.config.k_shot,
        "n_query": tasks.config.n_query,
        "learner": type(learner).__name__,
        "inner_steps": learner.inner_steps(settings.inner_steps),
        "batch_norm": learner.batch_norm,
        **calls,
        "task_list_sha256": tasks.sha256,
    }


def _file_name(about: dict[str, Any]) -> str:
    parts = (
        about["dataset"] if "trained_on" in about else "",
        about["split"],
        f"{about['n_way']}way{about['k_shot']}shot",
        "" if about["inner_steps"] is None else f"{about['inner_steps']}steps",
        about["batch_norm"],
        f"{about['queries_per_call']}percall" if "queries_per_call" in about else "",
        about["checkpoint"].split()[0],
        about["task_list_sha256"][:8],
    )
    return "_".join(filter(None, parts)) + ".json"
