# SPDX-License-Identifier: Apache-2.0
"""A job: one method in one setting with one seed, trained and judged by the ordinary commands."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping

from tf_lwdgh.studies.definition import Method, Setting, Strings, Study, slug
from tf_lwdgh.studies.space import Tuned


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a process somewhere needs to train and judge one run.

    Attributes:
      setting: the setting's name.
      method: the method's name.
      seed: the run's.
      gin_files: of the run.
      gin_params: of the run.
      evaluation: bindings for judging.
      checkpoint: 'last' or 'best'.
      data_dir: the folder of data sets.
      out: the study's folder.
      directory: where relative gin files are looked for.
      start: the method from whose run this one starts; '' where none.
      note: a sentence about it for the report.
    """

    setting: str
    method: str
    seed: int
    gin_files: Strings
    gin_params: Strings
    evaluation: Strings
    checkpoint: str
    data_dir: str
    out: str
    directory: str
    start: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """For people, such as 'LWDGH, 1-shot, seed 0'."""
        return f"{self.cell}, seed {self.seed}"

    @property
    def cell(self) -> str:
        """Method and setting, for people, such as 'LWDGH, 1-shot'."""
        return ", ".join(filter(None, (self.method, self.setting)))

    def _parts(self, method: str) -> list[str]:
        return [*filter(None, (slug(self.setting), slug(method))), f"seed{self.seed}"]

    @property
    def run_dir(self) -> str:
        """The run's folder."""
        return self._run_dir(self.method)

    @property
    def start_dir(self) -> str:
        """The folder of the run that it starts from; '' where there is none."""
        return self._run_dir(self.start) if self.start else ""

    def _run_dir(self, method: str) -> str:
        return os.path.join(self.out, "runs", *self._parts(method))

    @property
    def result_path(self) -> str:
        """Where the result is kept; the report is made of these files alone."""
        return self._result_path(self.method)

    @property
    def start_result_path(self) -> str:
        """Where the result of the run that it starts from is kept."""
        return self._result_path(self.start)

    def _result_path(self, method: str) -> str:
        return os.path.join(self.out, "results", "-".join(self._parts(method)) + ".json")

    def starts_from(self, other: Job) -> bool:
        """Whether it starts from the other's run."""
        return bool(self.start) and self.start_dir == other.run_dir

    @property
    def start_settings(self) -> dict[str, str]:
        """The settings that let it start there, by name; none where it starts from random values."""
        if not self.start:
            return {}
        return {"Experiment.start": repr(self.start_dir), "Experiment.start_checkpoint": repr(self.checkpoint)}

    def train_command(self, threads: int | None = None) -> list[str]:
        """The command that trains; `threads` bounds the operations at once."""
        extra = [] if threads is None else [f"Threads.inter_op = {threads}"]
        extra += [f"{name} = {value}" for name, value in self.start_settings.items()]
        return [
            *_python("train"),
            *(f"--gin_file={f}" for f in self.gin_files),
            *(f"--gin_param={p}" for p in (*self.gin_params, *extra)),
            f"--run_dir={self.run_dir}", f"--data_dir={self.data_dir}",
        ]  # fmt: skip

    def evaluate_command(self) -> list[str]:
        """The command that judges."""
        return [
            *_python("evaluate"), f"--run_dir={self.run_dir}", f"--data_dir={self.data_dir}",
            f"--checkpoint={self.checkpoint}", "--noas_served",
            *(f"--gin_param={p}" for p in self.evaluation),
        ]  # fmt: skip


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", f"tf_lwdgh.{module}"]


def make(
    study: Study, *, only: str = "*", data_dir: str, out: str,
    tuned: Mapping[tuple[str, str], Tuned] | None = None,
) -> list[Job]:  # fmt: skip
    """The jobs of a study, the first seed's first, so that a whole table is there early.

    Args:
      study: the study.
      only: a pattern of methods' names.
      data_dir: the folder of data sets.
      out: the study's folder.
      tuned: what a search found, by the names of setting and method.
    """
    found = tuned or {}
    place = {"data_dir": os.path.abspath(data_dir), "out": os.path.abspath(out)}
    return [
        job(
            study,
            setting,
            method,
            seed,
            directory=os.getcwd(),
            **place,
            tuned=found.get((setting.name, method.name)),
        )  # fmt: skip
        for seed in study.seeds
        for setting in study.settings
        for method in study.chosen(only)
    ]


def job(
    study: Study, setting: Setting, method: Method, seed: int, *, tuned: Tuned | None = None,
    **place: str,
) -> Job:  # fmt: skip
    """One job; later files and bindings win."""
    tuned = tuned or Tuned((), "")
    files = (*study.experiment, *setting.gin_files, *method.gin_files, *study.last_gin_files)
    begins = f"Starts from {method.start}." if method.start else ""
    of_method = (*method.gin_params, *method.gin_params_in.get(setting.name, ()))
    params = (*study.gin_params, *setting.gin_params, *of_method, *study.last_gin_params)
    return Job(
        setting=setting.name, method=method.name, seed=seed, gin_files=files,
        gin_params=(*params, *tuned.bindings, f"Experiment.seed = {seed}"),
        evaluation=study.evaluation, checkpoint=study.checkpoint, start=method.start,
        note=" ".join(filter(None, (begins, tuned.note))), **place,
    )  # fmt: skip
