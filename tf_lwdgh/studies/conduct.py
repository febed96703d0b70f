# SPDX-License-Identifier: Apache-2.0
"""Conducts a study: checks, trains what is missing, judges, and writes the report."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.studies import checks, jobs, report, results, worker
from tf_lwdgh.studies.board import Board, outcome
from tf_lwdgh.studies.checks import Expected
from tf_lwdgh.studies.definition import Study
from tf_lwdgh.studies.figures.base import Figure
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.space import Tuned
from tf_lwdgh.studies.worker import Stop


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a study lies, and the command that conducts it.

    Attributes:
      out: the study's folder.
      data_dir: the folder of data sets.
      command: to be shown in the report.
    """

    out: str
    data_dir: str
    command: str


class Conductor:
    """One study in one folder.

    Args:
      study: the study.
      place: where.
      only: a pattern of methods' names.
      tuned: what a search found, by the names of setting and method.

    Raises:
      ValueError: a cell's settings are wrong, or a result was made with others.
      FileNotFoundError: a gin file or a data set is not there.
    """

    def __init__(
        self, study: Study, place: Place, *, only: str = "*",
        tuned: Mapping[tuple[str, str], Tuned] | None = None,
    ) -> None:  # fmt: skip
        self.study, self.place = study, place
        wanted = jobs.make(study, only=only, data_dir=place.data_dir, out=place.out, tuned=tuned)
        self.expected: dict[Job, Expected] = checks.check(wanted)
        found = {job: checks.finished(job, e) for job, e in self.expected.items()}
        self.done = {job: result for job, result in found.items() if result is not None}

    @property
    def failed(self) -> list[Job]:
        """The jobs that came to nothing."""
        return [job for job, result in self.done.items() if result.state != results.DONE]

    @property
    def missing(self) -> dict[Job, int]:
        """The meta-steps of the jobs that are to be run, in order."""
        return {job: e.steps for job, e in self.expected.items() if job not in self.done}

    def run(self, execute: Callable[..., None], *, at_once: int, stop: Stop) -> bool:
        """Runs what is missing, and renews the report whenever a job ends.

        Args:
          execute: an executor: `execute(jobs, started=…, ended=…, watch=…, stop=…)`.
          at_once: how many jobs it runs side by side.
          stop: ends it early.

        Returns:
          Whether nothing is left to do.
        """
        board = Board(self.study.heading, self.expected, self.done, at_once=at_once, out=self.place.out)
        todo = self.missing
        if todo:
            board.say(f"{len(todo)} of {len(self.expected)} jobs to run, {at_once} at once")

        def ended(job: Job, came: Result | BaseException) -> dict[Job, int]:
            result = worker.keep_outcome(job, came)
            board.ended(job, result)
            if result is None:
                return {}
            self.done[job] = result
            write_report(self.study, self.place, figures=False)
            return ready([other for other in todo if other.starts_from(job)])

        def ready(found: Sequence[Job]) -> dict[Job, int]:
            """Those that can begin. The others have come to nothing."""
            begin: dict[Job, int] = {}
            for job in found:
                why = self._no_start(job)
                begin |= ended(job, RuntimeError(why)) if why else {job: todo[job]}
            return begin

        board.watch()
        first = ready([job for job in todo if not any(job.starts_from(other) for other in todo)])
        execute(first, started=board.started, ended=ended, watch=board.watch, stop=stop)
        board.watch(at_end=True)
        return not self.missing

    def run_one(self, number: int, stop: Stop) -> bool:
        """Runs one job by its number, as a cluster's array of jobs does; whether it is done.

        Raises:
          ValueError: there is no such job.
        """
        wanted = list(self.expected)
        if not 0 <= number < len(wanted):
            raise ValueError(f"--job must be in [0, {len(wanted)}). Received: --job={number}.")
        job = wanted[number]
        if job not in self.done:
            if why := self._no_start(job):
                raise ValueError(f"{job.name}: {why}.")
            try:
                self.done[job] = worker.run(job, self.expected[job].steps, stop=stop)
            except worker.Stopped:
                print(f"{job.name}: stopped and saved", file=sys.stderr)
                return False
        print(f"{job.name}: {outcome(self.done[job])}")
        return self.done[job].state == results.DONE

    def _no_start(self, job: Job) -> str:
        """Why there is no run that a job can start from; '' where there is or none is needed."""
        if not job.start:
            return ""
        found = results.read(job.start_result_path)
        if found is not None and found.state == results.DONE:
            return ""
        became = found.state if found else "is not done yet"
        return f"it starts from the run of {job.start}, which {became}"


def from_gin(
    gin_files: Sequence[str], gin_params: Sequence[str] = (), *, seeds: Sequence[str] | None = None,
    cell_params: Sequence[str] = (),
) -> Study:  # fmt: skip
    """Reads a study.

    Args:
      gin_files: that bind Study.
      gin_params: bindings on top of them.
      seeds: in place of the study's.
      cell_params: bindings on top of every cell's.

    Raises:
      ValueError: a setting is wrong.
      FileNotFoundError: a gin file is not there.
    """
    config.parse(gin_files, gin_params)
    study = Study()
    changes: dict[str, Any] = {"last_gin_params": (*study.last_gin_params, *cell_params)}
    if seeds is not None:
        try:
            changes["seeds"] = tuple(int(s) for s in seeds)
        except ValueError as error:
            raise ValueError(
                f"--seeds must be integers by commas, such as 0,1,2. Received: {','.join(seeds)!r}."
            ) from error
    return dataclasses.replace(study, **changes)


def write_report(study: Study, place: Place, *, figures: bool = True) -> None:
    """Writes the report of all results in the folder that belong to the study.

    Raises:
      ValueError: there is none.
    """
    kept = {
        job: r
        for job in jobs.make(study, data_dir=place.data_dir, out=place.out)
        if (r := results.read(job.result_path)) is not None
    }
    if not kept:
        raise ValueError(f"there is no result of this study in {place.out!r}.")
    drawn = _figures(study, place, kept) if figures else ()
    report.write(study, list(kept.values()), drawn, out=place.out, command=place.command)


def _figures(study: Study, place: Place, kept: Mapping[Job, Result]) -> list[Figure]:
    """Those that can be drawn, of the first setting's runs; of the others it is said why not."""
    by_method: dict[str, list[str]] = {}
    for job, result in kept.items():
        first = job.setting == study.settings[0].name
        if first and result.state == results.DONE and os.path.isdir(job.run_dir):
            by_method.setdefault(job.method, []).append(job.run_dir)
    drawn = []
    for maker in study.figures:
        print(f"drawing {maker.name}", file=sys.stderr)
        try:
            drawn.append(maker.draw(by_method, data_dir=place.data_dir))
        except (ValueError, FileNotFoundError) as error:
            print(f"not drawn: {type(maker).__name__}: {error}", file=sys.stderr)
    return drawn


def draw(study: Study, place: Place, runs: Sequence[str]) -> None:
    """Draws a study's figures of run folders, whoever trained them, and prints where they are.

    Args:
      study: the study.
      place: where; the figures go into figures/ there.
      runs: 'name=folder' each.

    Raises:
      ValueError: one has another form, or the study has no figures, or a figure can't be drawn.
      FileNotFoundError: no such run.
    """
    by_method: dict[str, list[str]] = {}
    for text in runs:
        name, found, folder = text.partition("=")
        if not (name and found and folder):
            raise ValueError(f"--run must be name=folder, such as MAML=runs/maml. Received: {text!r}.")
        by_method.setdefault(name, []).append(folder)
    if not study.figures:
        raise ValueError(f"--run draws figures, and {study.title!r} has none (Study.figures).")
    for maker in study.figures:
        figure = maker.draw(by_method, data_dir=place.data_dir)
        print(f"{report.write_figure(figure, place.out)}\n{figure.caption}")


@contextmanager
def stopping() -> Iterator[Stop]:
    """Ctrl-C or TERM asks the jobs to stop, a second Ctrl-C stops them at once."""
    stop = Stop()

    def handler(_number: int, _frame) -> None:
        if stop.asked.is_set():
            stop.at_once.set()
            return
        stop.asked.set()
        print(
            "\nstopping: the runs are saved at the end of their window; once more to stop at once",
            file=sys.stderr,
        )

    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
