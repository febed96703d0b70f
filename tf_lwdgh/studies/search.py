# SPDX-License-Identifier: Apache-2.0
"""Tunes methods of a study on validation tasks, by the executor that runs the study; the test split waits.

A search that is started again goes on: trials that were begun go on from their checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from tf_lwdgh import files
from tf_lwdgh.outer.evaluation import mean_and_interval
from tf_lwdgh.runs.summaries import RunLog
from tf_lwdgh.studies import checks, estimate, jobs, results, space, worker
from tf_lwdgh.studies.board import Board
from tf_lwdgh.studies.checks import Expected
from tf_lwdgh.studies.conduct import Place
from tf_lwdgh.studies.definition import Study
from tf_lwdgh.studies.executors import Executor
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.space import Tuned
from tf_lwdgh.studies.trials import FOLDER, Cell, Ledger, Trial
from tf_lwdgh.studies.worker import Stop

BEST = "best.json"
Key = tuple[str, str]  # the names of setting and method


class Searcher:
    """The searches of a study in a folder.

    Args:
      study: the study.
      place: where.
      only: a pattern of methods' names.

    Raises:
      ValueError: the study has no search, or a cell's or a trial's settings are wrong.
      FileNotFoundError: a gin file or a data set is not there.
    """

    def __init__(self, study: Study, place: Place, *, only: str = "*") -> None:
        self.study, self.place = study, place
        self.cells = cells(study, place, only=only)
        checks.check(jobs.make(study, only=only, data_dir=place.data_dir, out=place.out))
        self._expected = {cell.key: _check(cell) for cell in self.cells}

    def run(self, executor: Executor, stop: Stop, *, say_hours: bool) -> dict[Key, Tuned] | None:
        """Searches, and writes best.json.

        Args:
          executor: what runs the trials.
          stop: ends it early.
          say_hours: whether to say first how long it takes.

        Returns:
          What was found for each setting and method; None where it was stopped.

        Raises:
          ValueError: all trials of a method came to nothing, or the folder holds another search.
        """
        found = [(cell, Ledger(cell, self._expected[cell.key].fingerprint)) for cell in self.cells]
        left = [cell.corners()[0] for cell, ledger in found for _ in range(ledger.left)]
        if left and say_hours:
            estimate.say(left, self.study, executor.shares)
        for cell, ledger in found:
            _CellSearch(cell, ledger, executor, stop).run()
            if stop.asked.is_set():
                return None
        _write_best(self.place, {cell.key: _record(cell, ledger) for cell, ledger in found})
        return read_best(self.study, self.place, self.cells)


class _CellSearch:
    """The trials of one cell, fed to an executor one by one."""

    def __init__(self, cell: Cell, ledger: Ledger, executor: Executor, stop: Stop) -> None:
        self._ledger, self._executor, self._stop = ledger, executor, stop
        title = f"{cell.study.heading}: search, {cell.name}"
        self._board = Board(title, {}, {}, at_once=executor.at_once, out=cell.place["out"])
        self._begun = list(ledger.unfinished())

    def run(self) -> None:
        """Runs all trials that are left, unless it is stopped."""
        todo: dict[Trial, int] = {}
        while len(todo) < self._executor.at_once and (more := self._next()):
            todo.update(more)
        self._executor.run(
            todo, started=self._board.started, ended=self._ended, watch=self._board.watch,
            stop=self._stop,
        )  # fmt: skip

    def _next(self) -> dict[Trial, int]:
        """The meta-steps of one trial more; {} where there is none."""
        while not self._stop.asked.is_set():
            trial = self._begun.pop(0) if self._begun else self._ledger.ask()
            if trial is None:
                break
            expected = self._checked(trial)
            if expected is None:
                continue
            self._board.expect(trial, expected)
            kept = checks.finished(trial, expected)
            if kept is None:
                return {trial: expected.steps}
            self._tell(trial, kept)
        return {}

    def _checked(self, trial: Trial) -> Expected | None:
        try:
            return checks.check([trial])[trial]
        except ValueError as error:  # the values don't go together
            self._board.say(f"{trial.name}: {error}")
            self._ledger.tell(trial, None)
            return None

    def _ended(self, trial: Trial, came: Result | BaseException) -> dict[Trial, int]:
        result = worker.keep_outcome(trial, came)
        if result is None:
            self._board.ended(trial, None)
            return {}
        self._tell(trial, result)
        return self._next()

    def _tell(self, trial: Trial, result: Result) -> None:
        accuracy = None
        if result.state == results.DONE:
            accuracy = round(float(result.accuracies.round(6).mean()), 6)  # of what the file holds
            _show_in_hparams(trial, result.steps, accuracy)
        self._ledger.tell(trial, accuracy)
        self._board.ended(trial, result)


def cells(study: Study, place: Place, *, only: str = "*") -> list[Cell]:
    """The cells that a study tunes.

    Raises:
      ValueError: the study has no search, or none of a method that `only` fits.
    """
    if not study.search:
        raise ValueError(
            "--search needs a study that says what is tuned: Study.search = @Search(). Received: Study.search = None."
        )
    where = {"data_dir": os.path.abspath(place.data_dir), "out": os.path.abspath(place.out)}
    where["directory"] = os.getcwd()
    chosen = {method.name: method for method in study.chosen(only)}
    found = [
        Cell(study, search, setting, chosen[name], where)
        for setting in study.settings
        for search in study.search
        for name in search.method
        if name in chosen
    ]
    if not found:
        tuned = ", ".join(name for search in study.search for name in search.method)
        raise ValueError(f"--only must fit a method that Study.search tunes: {tuned}. Received: --only={only!r}.")
    return found


def read_best(study: Study, place: Place, wanted: list[Cell]) -> dict[Key, Tuned]:
    """What a search found, by the names of setting and method.

    Raises:
      ValueError: the search of a wanted cell is not over.
    """
    found = {k: Tuned(space.bindings(r["values"]), _note(r)) for k, r in _records(place).items()}
    missing = [cell.name for cell in wanted if cell.key not in found]
    if missing:
        path = os.path.join(place.out, FOLDER, BEST)
        raise ValueError(
            f"{path!r} must say what the search found for {'; '.join(missing)}: run the study with "
            "--search and without --job first."
        )
    return {cell.key: found[cell.key] for cell in wanted}


def _records(place: Place) -> dict[Key, dict]:
    try:
        with open(os.path.join(place.out, FOLDER, BEST), encoding="utf-8") as file:
            return {(r["setting"], r["method"]): r for r in json.load(file)["found"]}
    except FileNotFoundError:
        return {}


def _write_best(place: Place, found: Mapping[Key, dict]) -> None:
    """Methods that --only leaves out stay in the file."""
    records = [*{**_records(place), **found}.values()]
    files.write_json(os.path.join(place.out, FOLDER, BEST), {"found": records})


def _note(record: Mapping) -> str:
    words = space.in_words(record["values"])
    return f"Tuned on validation tasks: {words}, {record['trials']} trials."


def _check(cell: Cell) -> Expected:
    try:
        return [checks.check([trial])[trial] for trial in cell.corners()][0]
    except ValueError as error:
        raise ValueError(f"Search.space and Search.gin_params: {error}") from error


def _record(cell: Cell, ledger: Ledger) -> dict:
    best = ledger.best()
    if best is None:
        raise ValueError(
            f"{cell.name}: no trial of the search came to a result; "
            f"{os.path.join(cell.place['out'], FOLDER)!r} holds their folders and job.log. Mend the cause "
            "and remove that folder to search anew."
        )
    trial, values, accuracy, done = best
    kept = results.read(trial.result_path)
    return {
        "setting": cell.setting.name, "method": cell.method.name, "values": values,
        "bindings": space.bindings(values), "split": "val", "accuracy": accuracy,
        "interval95": None if kept is None else mean_and_interval(kept.accuracies)[1],
        "n_tasks": cell.search.n_tasks, "trial": trial.number, "trials": cell.search.trials,
        "done": done, "run": os.path.relpath(trial.run_dir, cell.place["out"]),
    }  # fmt: skip


def _show_in_hparams(trial: Trial, step: int, accuracy: float) -> None:
    """A column of TensorBoard's HParams page: the accuracy that the search goes by."""
    if os.path.isdir(trial.run_dir):
        with RunLog(trial.run_dir, resumed_at=step) as log:
            log.result(step, {"result/search_accuracy": accuracy})
