# SPDX-License-Identifier: Apache-2.0
"""Checks every cell of a study before any trains, and says which jobs have their result already."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.data import task_lists
from tf_lwdgh.data.dataset_config import DatasetConfig
from tf_lwdgh.data.episodes import TaskShape
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.runs import experiment, resume
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.studies import results
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a job will come to if it goes well.

    Attributes:
      steps: meta-steps of the run.
      settings: the run's gin settings by name.
      fingerprint: the data set's.
      about: what must stand in its evaluation.
    """

    steps: int
    settings: Mapping[str, str]
    fingerprint: str
    about: Mapping[str, Any]

    @property
    def tasks_per_step(self) -> int:
        """Tasks of a meta-batch."""
        return int(self.settings["OuterLoop.meta_batch_size"])


def check(jobs: Sequence[Job]) -> dict[Job, Expected]:
    """Builds every cell as training will.

    Raises:
      ValueError: a cell's settings are wrong; the message names the cell.
      FileNotFoundError: a gin file or the data set is not there.
    """
    by_cell: dict[tuple[str, str], Expected] = {}
    hashes: dict[tuple, str] = {}
    found = {}
    for job in jobs:
        cell = (job.setting, job.method)
        if cell not in by_cell:
            by_cell[cell] = _expected(job, hashes)
        settings = {**by_cell[cell].settings, "Experiment.seed": str(job.seed), **job.start_settings}
        found[job] = dataclasses.replace(by_cell[cell], settings=settings)
    return found


def _expected(job: Job, hashes: dict[tuple, str]) -> Expected:
    params = (*job.gin_params, *job.evaluation)
    with naming(job), working_directory(job.directory):
        config.parse(job.gin_files, params)
        evaluation, watched = Evaluation(), TrainerConfig()
        splits = ["train"] if evaluation.dataset else ["train", evaluation.split]
        if job.checkpoint == "best":
            splits.append("val")
            if watched.validate_every == 0:
                raise ValueError(
                    "Study.checkpoint = 'best' needs validation. Received: TrainerConfig.validate_every = 0."
                )
        assembly = experiment.Experiment().build(job.data_dir, splits=splits)
        assembly.meta_step  # noqa: B018  (makes the parts whose settings count)
        experiment.refuse_idle_bindings(params)
        learner, episode = assembly.learner, assembly.evaluation_episode(evaluation)
        settings, spec = config.settings(), assembly.spec
        if evaluation.dataset is not None:
            judged = experiment.Experiment().build(
                job.data_dir, splits=(), dataset=DatasetConfig(evaluation.dataset, None)
            )
            spec, episode = judged.spec, judged.evaluation_episode(evaluation)
        how = (evaluation.split, episode, evaluation.seed, evaluation.n_tasks)
        key = (spec.fingerprint, *how)
        if key not in hashes:
            hashes[key] = _tasks_hash(spec, *how)
        about = {
            "task_list_sha256": hashes[key],
            "inner_steps": learner.inner_steps(evaluation.inner_steps),
            "batch_norm": learner.batch_norm,
        }
        return Expected(assembly.total_steps, settings, assembly.spec.fingerprint, about)


def _tasks_hash(spec: Spec, split: str, episode: TaskShape, seed: int, n_tasks: int) -> str:
    return task_lists.draw(spec, split, episode, seed=seed, n_tasks=n_tasks).sha256


def finished(job: Job, expected: Expected) -> Result | None:
    """The job's result if nothing is left to do: it is done, or diverged and would diverge again.

    Raises:
      ValueError: there is a result of other settings or other data; both values are shown.
    """
    found = results.read(job.result_path)
    if found is None or found.state == results.FAILED:
        return None
    if found.state == results.DIVERGED:
        return found
    _refuse_other(job, expected, found)
    if any(found.about.get(key) != value for key, value in expected.about.items()):
        return None  # to be judged again
    return found


def _refuse_other(job: Job, expected: Expected, found: Result) -> None:
    settings = dict(found.settings)
    if job.start and settings.get("Experiment.start", "").endswith(repr(os.path.relpath(job.start_dir, job.out))[1:]):
        settings["Experiment.start"] = expected.settings["Experiment.start"]  # wherever the study's folder was
    changed = resume.differences(settings, expected.settings)
    if found.fingerprint != expected.fingerprint:
        changed.append(("data set fingerprint", found.fingerprint, expected.fingerprint))
    if changed or found.steps < expected.steps:
        changed = changed or [("meta-steps", str(found.steps), str(expected.steps))]
        lines = "\n".join(f"  {name}: was {a or 'not set'}, now {b or 'not set'}" for name, a, b in changed)
        raise ValueError(
            f"{job.name}: the result in {job.result_path!r} was made with other settings:\n{lines}\n"
            "Choose another --out, or remove that file and the run's folder to train it anew."
        )


@contextlib.contextmanager
def naming(job: Job) -> Iterator[None]:
    """Puts the cell's name in front of complaints."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{job.cell}: {error}") from error
    except RuntimeError as error:
        if "Required bindings" not in str(error):
            raise
        raise ValueError(f"{job.cell}: {error}") from error


@contextlib.contextmanager
def working_directory(path: str) -> Iterator[None]:
    """Relative gin files are looked for there."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
