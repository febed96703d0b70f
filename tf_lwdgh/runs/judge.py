# SPDX-License-Identifier: Apache-2.0
"""Judges the checkpoints of run folders on a list of tasks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lwdgh import files
from tf_lwdgh.data import pipeline, store, task_lists
from tf_lwdgh.data.batches import Batches
from tf_lwdgh.data.class_names import class_names
from tf_lwdgh.data.dataset_config import DatasetConfig, checked_names
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.data.task_files import Tasks
from tf_lwdgh.learners import Learner
from tf_lwdgh.outer.answers import Answers
from tf_lwdgh.outer.evaluation import Evaluation, EvaluationResult, Evaluator, evaluate
from tf_lwdgh.runs import checkpoints, evaluation_files, experiment
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.progress import Progress, StepClock


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
    if which not in checkpoints.WHICH:
        raise ValueError(f"--checkpoint must be one of {', '.join(checkpoints.WHICH)}. Received: {which!r}.")
    folder = checkpoints.of_run(run_dir, which)
    manifest = folder.newest()
    if manifest is None:
        raise FileNotFoundError(
            f"there is no {which} checkpoint in {folder.folder!r}: one is saved after the first "
            f"validation or epoch. --checkpoint takes {' or '.join(checkpoints.WHICH)}."
        )
    try:
        folder.load_learned(manifest, assembly.parameters)
    except checkpoints.CheckpointError as error:
        _explain_ways(run_dir, assembly.episode.n_way, error)
        raise
    return manifest


def _explain_ways(run_dir: str | os.PathLike[str], n_way: int, error: Exception) -> None:
    """Raises ValueError where a checkpoint does not fit because a binding changed the head's width."""
    experiment.parse_run(run_dir)
    trained = EpisodeConfig().n_way
    if n_way != trained:
        raise ValueError(
            f"EpisodeConfig.n_way (N_WAY) must stay the training's {trained}, since the network has a head of "
            f"that many ways. Bind Evaluation.n_way = {n_way} for test tasks of other ways. "
            f"Received: EpisodeConfig.n_way = {n_way}."
        ) from error


def judge(
    run_dir: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    which: str = "best",
    tasks: Tasks | None = None,
    show: bool = True,
) -> tuple[EvaluationResult, Tasks]:
    """Evaluates a run with its own settings and writes the result, with its tables, into its folder.

    Args:
      run_dir: the run.
      data_dir: the folder of data sets.
      gin_params: bindings that override the run's.
      gin_files: on top of the run's settings, such as another learner on what the run has learned; the
        result then has the learner's name in its file's.
      which: 'best' or 'last'.
      tasks: the tasks; None: those that the settings draw.
      show: whether to show progress.

    Returns:
      The result, and the tasks.

    Raises:
      ValueError: a setting is wrong, or the tasks are of another data set or shape.
      FileNotFoundError: no such run, checkpoint or data set.
      OSError: the result can't be written; said before the tasks run where it can be known then, else
        with the result in the message.
    """
    settings = _settings(run_dir, gin_params, gin_files)
    other = None if settings.dataset is None else DatasetConfig(settings.dataset, None)
    assembly, manifest = _load(run_dir, data_dir, gin_params, which, other)
    evaluator = _evaluator(assembly, settings)
    job = _job(assembly, evaluator.learner, settings, run_dir, which, manifest, tasks, gin_files)
    return job.run(evaluator, settings, show), job.tasks


def check_comparable(
    run_dirs: Sequence[str],
    names: Sequence[str] = (),
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    which: str = "best",
) -> None:
    """Makes sure, before any task runs, that runs can be judged on the same tasks.

    Args:
      run_dirs: the runs; each must have its checkpoint.
      names: the data sets to judge on, where they are not the run's own.

    Raises:
      ValueError: a run is named twice; a setting is wrong; or the data set, the tasks' shape or the images'
        is another than the first run's.
      FileNotFoundError: no such run, checkpoint or data set.
    """
    places = [os.path.realpath(run_dir) for run_dir in run_dirs]
    if len(set(places)) < len(places):
        raise ValueError(f"--compare must name other runs, each once. Received: {', '.join(run_dirs)}.")
    first: dict[str, Any] = {}
    for run_dir in run_dirs:
        settings = _settings(run_dir, gin_params, gin_files)
        other = names[0] if names else settings.dataset
        dataset = None if other is None else DatasetConfig(other, None)
        assembly, _ = _load(run_dir, data_dir, gin_params, which, dataset)
        _evaluator(assembly, settings)
        shape, image = assembly.evaluation_episode(settings), assembly.image
        told = {
            "data set": assembly.spec.name,
            "data set fingerprint": assembly.spec.fingerprint,
            "image shape": image.shape,
            "kind of tasks": type(shape).__name__,
            **dataclasses.asdict(shape),
        }
        first = first or told
        for what, ours in first.items():
            if told[what] != ours:
                raise ValueError(
                    f"--compare: all runs must have the same {what}. Received: {run_dirs[0]} has {ours!r}, "
                    f"{run_dir} has {told[what]!r}."
                )


def judge_each(
    run_dir: str | os.PathLike[str],
    names: Sequence[str],
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    which: str = "best",
    tasks: Mapping[str, Tasks] | None = None,
    show: bool = True,
) -> dict[str, tuple[EvaluationResult, Tasks]]:
    """Evaluates a run on each of several data sets, on a list of tasks of its own, as `judge` does.

    All that can be wrong with a data set is looked for before any task runs.

    Args:
      names: the data sets.
      tasks: the tasks by data set; None: those that the settings draw.

    Returns:
      By data set, the result and the tasks.

    Raises:
      FileNotFoundError: as `judge`, and where a class of the split has no file of records.
      ValueError: as `judge`.
    """
    settings = _settings(run_dir, gin_params, gin_files)
    if settings.dataset is not None:
        raise ValueError(
            "Evaluation.dataset must be None where --datasets names the data sets. "
            f"Received: Evaluation.dataset = {settings.dataset!r}."
        )
    names = checked_names(tuple(names), "--datasets")
    sets = [DatasetConfig(name, None) for name in names]
    specs = [data_set.open(data_dir) for data_set in sets]
    for name, spec in zip(names, specs, strict=True):
        _require_records(data_dir, name, spec, settings.split)
    assembly, manifest = _load(run_dir, data_dir, gin_params, which, sets[0])
    jobs, evaluator = {}, _evaluator(assembly, settings)
    for data_set, spec in zip(sets, specs, strict=True):
        on_it = dataclasses.replace(assembly, dataset=data_set, spec=spec)
        listed = tasks[data_set.name] if tasks else None
        place = (run_dir, which, manifest, listed, gin_files)
        jobs[data_set.name] = _job(on_it, evaluator.learner, settings, *place)
    return {name: (job.run(evaluator, settings, show), job.tasks) for name, job in jobs.items()}


def judge_in_ways(
    run_dir: str | os.PathLike[str],
    tasks: Tasks,
    ways: Sequence[tuple[str, int | None]],
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str],
    which: str,
) -> list[EvaluationResult]:
    """Evaluates a run once for each way to ask it, on the same tasks; keeps nothing.

    Args:
      run_dir: the run.
      tasks: the tasks.
      ways: the statistics that BatchNorm uses, and the queries of a call, None for all.
      data_dir: the folder of data sets.
      gin_params: bindings that override the run's.
      which: 'best' or 'last'.

    Raises:
      FileNotFoundError: as `judge`.
      ValueError: as `judge`.
    """
    settings = _settings(run_dir, gin_params, ())
    other = None if settings.dataset is None else DatasetConfig(settings.dataset, None)
    assembly, manifest = _load(run_dir, data_dir, gin_params, which, other)
    batches, results = _batches(assembly, settings, tasks), []
    for batch_norm, queries_per_call in ways:
        asked = dataclasses.replace(settings, queries_per_call=queries_per_call)
        evaluator = _evaluator(assembly, asked, batch_norm)
        about = _about(assembly, evaluator.learner, asked, tasks, run_dir, which, manifest)
        results.append(evaluate(evaluator, batches, about))
    return results


def _settings(
    run_dir: str | os.PathLike[str], gin_params: Sequence[str], gin_files: Sequence[str]
) -> Evaluation:
    experiment.parse_run(run_dir, gin_params, gin_files)
    return Evaluation()


def _load(
    run_dir, data_dir, gin_params: Sequence[str], which: str, dataset: DatasetConfig | None
) -> tuple[Assembly, dict[str, Any]]:
    """The run's experiment with the weights of a checkpoint, and that one's manifest."""
    assembly = experiment.Experiment().build(data_dir, splits=(), dataset=dataset)
    experiment.refuse_idle_bindings(gin_params)
    return assembly, load_checkpoint(assembly, run_dir, which)


def _evaluator(
    assembly: Assembly, settings: Evaluation, batch_norm: str | None = None
) -> Evaluator:
    return Evaluator(
        assembly.parameters,
        inner_steps=settings.inner_steps,
        n_way=assembly.other_ways(assembly.evaluation_episode(settings)),
        batch_norm=batch_norm,
        queries_per_call=settings.queries_per_call,
    )


def _require_records(data_dir, name: str, spec: Spec, split: str) -> None:
    folder = os.path.join(data_dir, name)
    paths = (store.class_path(folder, spec, c) for c in spec.classes(split))
    missing = next((path for path in paths if not os.path.exists(path)), None)
    if missing is not None:
        raise FileNotFoundError(
            f"data set {name!r} must have a file of records for every class of its split {split!r}. "
            f"Received: there is no {missing}."
        )


def _job(
    assembly,
    learner: Learner,
    settings,
    run_dir,
    which: str,
    manifest,
    tasks: Tasks | None,
    gin_files: Sequence[str],
) -> _Job:
    """Checks all that can be wrong before tasks run."""
    shape = assembly.evaluation_episode(settings)
    if tasks is None:
        drawn = {"seed": settings.seed, "n_tasks": settings.n_tasks}
        tasks = task_lists.draw(assembly.spec, settings.split, shape, **drawn)
    else:
        tasks.check(assembly.spec, settings.split, shape)
    about = _about(assembly, learner, settings, tasks, run_dir, which, manifest)
    if gin_files:
        about |= {"on_top": list(gin_files), "trained_learner": manifest["learner"]}
    files.check_writable(evaluation_files.path(run_dir, about))
    return _Job(assembly, tasks, about, os.fspath(run_dir), manifest["step"])


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """A list of tasks that is ready to run.

    Attributes:
      assembly: the experiment, on the tasks' data set.
      tasks: the tasks.
      about: goes into the result.
      run_dir: where that is kept.
      step: of the checkpoint.
    """

    assembly: Assembly
    tasks: Tasks
    about: dict[str, Any]
    run_dir: str
    step: int

    def run(self, evaluator: Evaluator, settings: Evaluation, show: bool) -> EvaluationResult:
        """Runs the tasks and keeps the result."""
        result = self._evaluate(evaluator, settings, show)
        try:
            evaluation_files.write(self.run_dir, result, self.step)
        except OSError as error:
            raise OSError(f"{result}\nThis could not be kept: {error}") from error
        return result

    def _evaluate(self, evaluator: Evaluator, settings: Evaluation, show: bool) -> EvaluationResult:
        dataset, spec = _batches(self.assembly, settings, self.tasks), self.assembly.spec
        told = {
            "datasets": self.tasks.datasets(spec),
            "answers": Answers(class_names(spec, self.tasks.split, self.tasks.config)),
        }
        if not show:
            return evaluate(evaluator, dataset, self.about, **told)
        clock = StepClock(1)
        with Progress(total=len(self.tasks), tasks_per_step=1, unit="task", every=10.0) as progress:
            clock.start()

            def advance(n: int) -> None:
                progress.advance(n)
                clock.count(n)
                progress.report(tasks_per_second=clock.tasks_per_second())

            return evaluate(evaluator, dataset, self.about, **told, progress=advance)


def _batches(assembly: Assembly, settings: Evaluation, tasks: Tasks) -> Batches:
    return pipeline.listed_tasks(
        assembly.source(settings.split),
        tasks,
        batch_size=settings.batch_size,
        pipeline_config=assembly.pipeline,
    )


def _about(
    assembly: Assembly, learner: Learner, settings: Evaluation, tasks: Tasks, run_dir, which: str, manifest
) -> dict[str, Any]:
    elsewhere = manifest.get("dataset", assembly.dataset.label) != assembly.dataset.label
    elsewhere = elsewhere or settings.dataset is not None
    per_call = settings.queries_per_call
    calls = {} if per_call is None else {"queries_per_call": per_call}
    return {
        "run": os.path.basename(os.path.abspath(run_dir)),
        "checkpoint": f"{which} checkpoint, step {manifest['step']}",
        **({"trained_on": manifest["dataset"]} if elsewhere else {}),
        "dataset": tasks.dataset,
        "fingerprint": tasks.fingerprint,
        "split": tasks.split,
        **tasks.shape(),
        "learner": type(learner).__name__,
        "inner_steps": learner.inner_steps(settings.inner_steps),
        "batch_norm": learner.batch_norm,
        **calls,
        "task_list_sha256": tasks.sha256,
    }
