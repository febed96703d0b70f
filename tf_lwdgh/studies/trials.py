# SPDX-License-Identifier: Apache-2.0
"""The trials of a method in a setting: which values are tried next, and what came of them, by Optuna.

The values of trial n follow from the search's seed, n and the trials that are over by then, so that a
search of one trial at a time tries the same values whether or not it was stopped in between.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from tf_lwdgh.studies import jobs, space
from tf_lwdgh.studies.definition import Method, Setting, Study, slug
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.space import Dimension, Search, Value

FOLDER, STORAGE = "search", "optuna.log"


@dataclasses.dataclass(frozen=True)
class Trial(Job):
    """A job that is judged on validation tasks.

    Attributes:
      number: counted from 0, as Optuna does.
      words: the values, for people.
    """

    number: int = 0
    words: str = ""

    @property
    def name(self) -> str:
        """For people, such as 'LWDGH, 1-shot, trial 3 (LWDGH.temperature = 0.31)'."""
        return f"{self.cell}, trial {self.number} ({self.words})"

    @property
    def run_dir(self) -> str:
        """The run's folder."""
        parts = filter(None, (slug(self.setting), slug(self.method), f"trial-{self.number:04d}"))
        return os.path.join(self.out, FOLDER, *parts)

    @property
    def result_path(self) -> str:
        """Where the result is kept."""
        return f"{self.run_dir}.json"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method in a setting, and how it is tuned.

    Attributes:
      study: whose cell it is.
      search: the space.
      setting: the setting.
      method: the method.
      place: 'data_dir', 'out' and 'directory' of its jobs.
    """

    study: Study
    search: Search
    setting: Setting
    method: Method
    place: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """The names of setting and method."""
        return self.setting.name, self.method.name

    @property
    def name(self) -> str:
        """For people, such as 'LWDGH, 1-shot'."""
        return ", ".join(filter(None, (self.method.name, self.setting.name)))

    def trial(self, number: int, values: Mapping[str, Value]) -> Trial:
        """The job that tries some values."""
        plain = jobs.job(self.study, self.setting, self.method, self.study.seeds[0], **self.place)
        fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
        *params, seed = plain.gin_params
        fields["gin_params"] = (*params, *self.search.gin_params, *space.bindings(values), seed)
        fields["evaluation"] = (
            *plain.evaluation, "Evaluation.split = 'val'", f"Evaluation.n_tasks = {self.search.n_tasks}"
        )  # fmt: skip
        return Trial(**fields, number=number, words=space.in_words(values))

    def corners(self) -> list[Trial]:
        """The trials of all first and of all last values."""
        ends = {name: d.ends for name, d in self.search.dimensions().items()}
        return [self.trial(0, {name: pair[i] for name, pair in ends.items()}) for i in (0, 1)]


class Ledger:
    """What was tried in a cell and what came of it, kept in the study's folder.

    Args:
      cell: the cell.
      fingerprint: the data set's.

    Raises:
      ValueError: Optuna is not installed, or the folder holds a search of other settings or data.
    """

    def __init__(self, cell: Cell, fingerprint: str) -> None:
        self._optuna, self._cell = _optuna(), cell
        self._path = os.path.join(cell.place["out"], FOLDER, STORAGE)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        backend = self._optuna.storages.journal.JournalFileBackend(self._path)
        self._study = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(backend), direction="maximize",
            study_name="/".join(cell.key), load_if_exists=True,
        )  # fmt: skip
        self._distributions = {name: _distribution(self._optuna, d) for name, d in cell.search.dimensions().items()}
        self._refuse_other(fingerprint)

    def _refuse_other(self, fingerprint: str) -> None:
        search, (trial, _) = self._cell.search, self._cell.corners()
        ours = {
            "Search.space": search.space, "Search.seed": search.seed, "gin files": trial.gin_files,
            "bindings": [p for p in trial.gin_params if p.partition(" =")[0] not in search.space],
            "evaluation": trial.evaluation, "checkpoint": trial.checkpoint, "data set": fingerprint,
        }  # fmt: skip
        ours = json.loads(json.dumps(ours))
        kept: dict[str, Any] = self._study.user_attrs.get("made_with", {})
        if not kept:
            self._study.set_user_attr("made_with", ours)
            return
        lines = [f"  {k}: was {kept.get(k)}, now {v}" for k, v in ours.items() if kept.get(k) != v]
        if lines:
            raise ValueError(
                f"{self._cell.name}: the search in {self._path!r} was begun with "
                "other settings:\n" + "\n".join(lines) + "\nChoose another --out, or remove the folder "
                f"{os.path.dirname(self._path)!r} to search anew."
            )

    def unfinished(self) -> list[Trial]:
        """The trials that were begun and are not over."""
        running = (self._optuna.trial.TrialState.RUNNING,)
        return [self._job(t) for t in self._study.get_trials(states=running)]

    def ask(self) -> Trial | None:
        """The next trial; None where there are enough."""
        number = len(self._study.trials)
        if number >= self._cell.search.trials:
            return None
        seeds = np.random.SeedSequence([self._cell.search.seed, number])
        seed = int(seeds.generate_state(1)[0])
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return self._job(self._study.ask(self._distributions))

    def tell(self, trial: Trial, accuracy: float | None) -> None:
        """What came of a trial; None: nothing."""
        failed = self._optuna.trial.TrialState.FAIL if accuracy is None else None
        self._study.tell(trial.number, accuracy, state=failed, skip_if_finished=True)

    def best(self) -> tuple[Trial, dict[str, Value], float, int] | None:
        """The trial of the highest accuracy, its values, the accuracy, and how many were done."""
        complete = (self._optuna.trial.TrialState.COMPLETE,)
        done = self._study.get_trials(states=complete)
        if not done:
            return None
        first = max(done, key=lambda t: (t.value, -t.number))
        return self._job(first), self._values(first), first.value, len(done)

    @property
    def left(self) -> int:
        """How many trials are to be run."""
        over = [t for t in self._study.trials if t.state.is_finished()]
        return max(self._cell.search.trials - len(over), len(self.unfinished()))

    def _job(self, found) -> Trial:
        return self._cell.trial(found.number, self._values(found))

    def _values(self, found) -> dict[str, Value]:
        return {name: found.params[name] for name in self._cell.search.space}


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "--search needs Optuna, which is not installed: pip install 'tf_lwdgh[search]', or in a "
            "clone: .venv/bin/pip install -r requirements.txt."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: ModuleType, dimension: Dimension) -> Any:
    make = optuna.distributions
    if dimension.kind == "choice":
        return make.CategoricalDistribution(dimension.values)
    if dimension.kind == "int":
        return make.IntDistribution(int(dimension.low), int(dimension.high))
    return make.FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log")
