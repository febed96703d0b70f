# SPDX-License-Identifier: Apache-2.0
"""Examines an experiment's settings: every part of them is made, so that all that is wrong is named at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.data.dataset_config import DatasetConfig
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.label_noise import LabelNoise
from tf_lwdgh.data.pipeline import PipelineConfig
from tf_lwdgh.data.training_tasks import TrainingTasks
from tf_lwdgh.examinations.report import Report
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.outer.meta_step import OuterLoop
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.experiment import Assembly, Experiment, refuse_idle_bindings
from tf_lwdgh.studies import conduct

_PARTS: tuple[Callable[[], Any], ...] = (
    DatasetConfig, EpisodeConfig, ImageConfig, LabelNoise, PipelineConfig, OuterLoop, TaskExecution, Threads,
    TrainerConfig, TrainingTasks, Evaluation, Experiment,
)  # fmt: skip
_REFUSALS = (ValueError, TypeError, RuntimeError)  # RuntimeError: gin's, of a binding that is required
_NO_DATA = "make the data set, or name its folder with --data_dir; `tf-lwdgh convert --help` lists the converters"


def examine(gin_files: Sequence[str], gin_params: Sequence[str], data_dir: str) -> Report:
    """Looks at the settings of gin files and bindings, an experiment's or a study's.

    Raises:
      FileNotFoundError: a gin file is not there.
    """
    report = Report(" + ".join(gin_files))
    mend = "change the binding that is named, in the file or with --gin_param"
    try:
        config.parse(gin_files, gin_params)
    except ValueError as error:
        report.refused(error, mend)
        return report
    if "\nStudy." in f"\n{config.full_text()}":
        _study(report, gin_files, gin_params, data_dir, mend)
        return report
    assembly = build(report, data_dir, mend)
    if assembly is not None:
        try:
            refuse_idle_bindings(gin_params)
        except ValueError as error:
            report.refused(error, "remove it")
    return report


def build(report: Report, data_dir: str, mend: str) -> Assembly | None:
    """Makes the experiment that gin describes, and tells of all that is wrong with it; None: it can't be made."""
    refused: list[str] = []
    for part in _PARTS:
        try:
            part()
        except _REFUSALS as error:
            if str(error) not in refused:  # Experiment makes others again
                report.refused(error, mend)
            refused.append(str(error))
    if refused:
        return None
    try:
        assembly = Experiment().build(data_dir)
        report.ok(_data(assembly))
    except FileNotFoundError as error:
        report.refused(error, _NO_DATA)
        try:
            assembly = Experiment().build(None)
        except _REFUSALS as other:
            report.refused(other, mend)
            return None
    except _REFUSALS as error:
        report.refused(error, mend)
        return None
    return _whole(report, assembly, mend)


def _whole(report: Report, assembly: Assembly, mend: str) -> Assembly | None:
    """What is made when training and evaluation begin."""
    try:
        assembly.meta_step  # noqa: B018  (it is made by being asked for)
        if assembly.spec is not None:
            assembly.evaluation_episode(Evaluation())
    except _REFUSALS as error:
        report.refused(error, mend)
        return None
    report.ok(_experiment(assembly))
    return assembly


def _data(assembly: Assembly) -> str:
    return f"data set {assembly.dataset.label}, fingerprint {getattr(assembly.spec, 'fingerprint', None)}"


def _experiment(assembly: Assembly) -> str:
    a, shape = assembly, assembly.training_episode
    ways = (
        f"{shape.n_way}-way {shape.k_shot}-shot tasks" if isinstance(shape, EpisodeConfig) else "tasks of varying shape"
    )
    return (
        f"{type(a.learner).__name__} on {a.keras_model.name} ({a.keras_model.count_params():,} parameters), aggregated "
        f"by {type(a.experiment.aggregator).__name__}; {ways}, {a.outer.meta_batch_size} a meta-step, "
        f"{a.total_steps:,} meta-steps"
    )


def _study(report: Report, gin_files: Sequence[str], gin_params: Sequence[str], data_dir: str, mend: str) -> None:
    """Every cell of a study is checked, as at its start."""
    try:
        study = conduct.from_gin(gin_files, gin_params)
        jobs = conduct.Conductor(study, conduct.Place("", data_dir, "")).expected
    except FileNotFoundError as error:
        report.refused(error, _NO_DATA)
    except _REFUSALS as error:
        report.refused(error, mend)
    else:
        report.ok(f"a study of {len(study.methods)} methods, {len(jobs)} runs; the settings of each can be built")
