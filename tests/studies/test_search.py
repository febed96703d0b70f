# SPDX-License-Identifier: Apache-2.0
"""A search: what it tries, what comes of it, and that it can be stopped and gone on with."""

from __future__ import annotations

import json
import math
import pathlib
import sys

import numpy as np
import pytest

from tf_lwdgh.studies import checks, jobs, results, search, tables, trials, worker
from tf_lwdgh.studies.checks import Expected
from tf_lwdgh.studies.conduct import Place
from tf_lwdgh.studies.definition import Method, Setting, Study
from tf_lwdgh.studies.executors import Executor
from tf_lwdgh.studies.local import Slot
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.space import Search, Tuned
from tf_lwdgh.studies.worker import Stop

SPACE = {"LWDGH.temperature": ("log", 0.1, 10.0), "OUTER_LR": ("uniform", 0.0, 1.0)}


def study(settings=(Setting(),), **changes) -> Study:
    found = {"method": "LWDGH", "space": SPACE, "trials": 12, "seed": 1, "n_tasks": 50, **changes}
    return Study(
        title="s", methods=[Method("MAML"), Method("LWDGH")], settings=settings, baseline="MAML",
        seeds=(4, 5), evaluation=("Evaluation.n_tasks = 600",), search=Search(**found),
    )  # fmt: skip


def values(trial: trials.Trial) -> dict[str, float]:
    pairs = (p.split(" = ") for p in trial.gin_params)
    return {name: float(value) for name, value in pairs if name in SPACE}


def quadratic(trial: trials.Trial) -> float:
    """Its greatest value, 0.9, is at temperature 2 and rate 0.3."""
    v = values(trial)
    return 0.9 - 0.2 * math.log10(v["LWDGH.temperature"] / 2) ** 2 - 0.5 * (v["OUTER_LR"] - 0.3) ** 2


class Fake:
    """An executor whose runs come to a known accuracy at once.

    Args:
      accuracy: of a trial; what is raised is what the executor tells.
      at_once: trials side by side.
      stop_after: asks to stop when so many have begun; the last of them is stopped.
    """

    def __init__(self, accuracy=quadratic, *, at_once: int = 1, stop_after: int | None = None) -> None:
        self.accuracy, self.stop_after = accuracy, stop_after
        self.ran: list[trials.Trial] = []
        self.executor = Executor(self._run, [Slot()] * at_once)

    def _run(self, todo, *, started, ended, watch, stop) -> None:
        waiting = list(todo)
        while waiting:
            job = waiting.pop(0)
            started(job)
            self.ran.append(job)
            if len(self.ran) == self.stop_after:
                stop.asked.set()
            came = worker.Stopped() if stop.asked.is_set() else self._result(job)
            waiting += ended(job, came) or {}
            watch()

    def _result(self, job):
        try:
            accuracies = np.full(50, self.accuracy(job)) + np.linspace(-0.01, 0.01, 50)
        except FloatingPointError as error:
            result = Result("", job.method, 4, results.DIVERGED, str(error))
        except RuntimeError as error:
            return error
        else:
            result = Result("", job.method, 4, results.DONE, steps=10, accuracies=accuracies)
        result.write(job.result_path)
        return result


@pytest.fixture
def unbuilt(monkeypatch):
    """Cells are not built: all are well."""
    expected = Expected(10, {"OuterLoop.meta_batch_size": "4"}, "data 1", {})
    monkeypatch.setattr(checks, "check", lambda wanted: dict.fromkeys(wanted, expected))
    monkeypatch.setattr(checks, "_refuse_other", lambda *_: None)


@pytest.fixture
def place(tmp_path, unbuilt) -> Place:
    pytest.importorskip("optuna")
    return Place(str(tmp_path / "out"), str(tmp_path / "data"), "")


def run(made: Study, place: Place, fake: Fake) -> dict | None:
    return search.Searcher(made, place).run(fake.executor, Stop(), say_hours=False)


def record(place: Place) -> dict:
    (found,) = json.loads(pathlib.Path(place.out, "search", "best.json").read_text())["found"]
    return found


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_search_finds_the_greatest_value(place, at_once):
    fake = Fake(at_once=at_once)
    tuned = run(study(trials=40), place, fake)[("", "LWDGH")]
    assert sorted(t.number for t in fake.ran) == list(range(40))
    best = record(place)
    assert best["accuracy"] > 0.88 and best["trials"] == best["done"] == 40
    interval = 1.96 * np.linspace(-0.01, 0.01, 50).std(ddof=1) / 50**0.5
    assert best["interval95"] == pytest.approx(interval, rel=1e-4)
    assert best["accuracy"] == pytest.approx(max(map(quadratic, fake.ran)), abs=1e-6)
    assert 0.8 < best["values"]["LWDGH.temperature"] < 5
    assert list(tuned.bindings) == best["bindings"]
    assert tuned.note.startswith("Tuned on validation tasks: LWDGH.temperature = ")
    assert tuned.note.endswith(", 40 trials.")


def test_a_trial_is_judged_on_validation_tasks_in_a_folder_of_its_own(place):
    fake = Fake()
    run(study(settings=[Setting("1-shot")], trials=1, gin_params=["EPOCHS = 2"]), place, fake)
    (trial,) = fake.ran
    assert trial.evaluation[-2:] == ("Evaluation.split = 'val'", "Evaluation.n_tasks = 50")
    assert trial.run_dir == str(pathlib.Path(place.out, "search", "1_shot", "lwdgh", "trial-0000"))
    assert trial.gin_params[0] == "EPOCHS = 2" and trial.gin_params[-1] == "Experiment.seed = 4"
    assert "Evaluation.split = 'val'" in " ".join(trial.evaluate_command())
    assert trial.name.startswith("LWDGH, 1-shot, trial 0 (LWDGH.temperature = ")


def test_every_setting_and_every_method_is_searched_apart(place):
    made = study(settings=[Setting("1-shot"), Setting("5-shot")], method=["MAML", "LWDGH"], trials=2)
    fake = Fake()
    found = run(made, place, fake)
    assert set(found) == {(s, m) for s in ("1-shot", "5-shot") for m in ("MAML", "LWDGH")}
    assert len({t.run_dir for t in fake.ran}) == len(fake.ran) == 8


def test_a_stopped_search_goes_on_as_if_it_had_not_been_stopped(place, tmp_path):
    whole = Fake()
    run(study(), Place(str(tmp_path / "other"), place.data_dir, ""), whole)
    first, second = Fake(stop_after=7), Fake()
    assert run(study(), place, first) is None
    assert not pathlib.Path(place.out, "search", "best.json").exists()
    assert run(study(), place, second)
    assert first.ran[-1] == second.ran[0]  # goes on from its checkpoint
    tried = [*first.ran[:-1], *second.ran]
    assert [values(t) for t in tried] == [values(t) for t in whole.ran]
    assert len({values(t)["OUTER_LR"] for t in tried}) == 12  # no draw comes twice
    third = Fake()
    assert run(study(), place, third) and not third.ran
    assert run(study(trials=14), place, third) and len(third.ran) == 2  # more can be added


def test_a_result_that_was_written_and_not_told_is_not_made_again(place):
    first, second = Fake(stop_after=3), Fake()
    run(study(), place, first)
    Fake()._result(first.ran[-1])  # as if it had been killed right after that
    run(study(), place, second)
    assert first.ran[-1] not in second.ran and record(place)["done"] == 12


def test_failed_and_diverged_trials_hold_up_nothing(place):
    def accuracy(trial):
        if trial.number % 3 == 0:
            raise FloatingPointError("the loss is not finite")
        if trial.number % 3 == 1:
            raise RuntimeError("out of memory")
        return quadratic(trial)

    fake = Fake(accuracy)
    run(study(), place, fake)
    assert len(fake.ran) == 12
    assert record(place)["done"] == 4 and record(place)["trial"] % 3 == 2


def test_values_that_do_not_go_together_are_a_failed_trial(place, monkeypatch):
    well = checks.check

    def check(wanted):
        if any(getattr(j, "number", 0) == 2 for j in wanted):
            raise ValueError("too many for the data set")
        return well(wanted)

    monkeypatch.setattr(checks, "check", check)
    fake = Fake()
    run(study(), place, fake)
    assert [t.number for t in fake.ran] == [n for n in range(12) if n != 2]


def test_a_search_without_any_result_is_an_error(place):
    def accuracy(trial):
        raise FloatingPointError("no")

    with pytest.raises(ValueError, match="LWDGH: no trial of the search came to a result"):
        run(study(trials=2), place, Fake(accuracy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {**SPACE, "OUTER_LR": ("uniform", 0.0, 2.0)}}, r"Search.space: was .*now "),
        ({"gin_params": ["EPOCHS = 3"]}, "bindings: was .*EPOCHS = 3"),
        ({"n_tasks": 60}, "evaluation: was .*n_tasks = 50.*now .*n_tasks = 60"),
    ],
)
def test_a_search_does_not_go_on_with_other_settings(place, changes, message):
    run(study(trials=1), place, Fake())
    with pytest.raises(ValueError, match=rf"(?s)begun with other settings.*{message}"):
        run(study(trials=1, **changes), place, Fake())


def test_only_keeps_what_was_found_for_other_methods(place):
    made = study(method=["MAML", "LWDGH"], trials=1)
    for name in ("MAML", "LWDGH"):
        searcher = search.Searcher(made, place, only=name)
        searcher.run(Fake().executor, Stop(), say_hours=False)
    wanted = search.cells(made, place)
    assert set(search.read_best(made, place, wanted)) == {("", "MAML"), ("", "LWDGH")}


def test_a_job_of_a_tuned_study_needs_what_the_search_found(place):
    made = study()
    with pytest.raises(ValueError, match="best.json' must say what the search found for LWDGH: run"):
        search.read_best(made, place, search.cells(made, place))


def test_tuned_bindings_come_last_and_the_report_tells_them(place):
    made = study()
    tuned = {("", "LWDGH"): Tuned(("OUTER_LR = 0.25",), "Tuned on validation tasks: x.")}
    plain, job = jobs.make(made, data_dir="d", out="o", tuned=tuned)[:2]
    assert plain.gin_params == ("Experiment.seed = 4",) and plain.note == ""
    assert job.gin_params == ("OUTER_LR = 0.25", "Experiment.seed = 4")
    about = {"task_list_sha256": "1"}
    found = [
        Result("", "LWDGH", s, results.DONE, accuracies=np.ones(3), about=about, note=job.note) for s in made.seeds
    ]
    rows = tables.rows(made, made.settings[0], found)
    assert rows[1].remarks == ("Tuned on validation tasks: x.",)


def test_a_study_without_a_search_says_how_to_bind_one(tmp_path):
    made = Study(title="s", methods=[Method("MAML")], baseline="MAML")
    with pytest.raises(ValueError, match=r"Study.search = @Search\(\).*Received: Study.search = None"):
        search.cells(made, Place("o", "d", ""))
    with pytest.raises(ValueError, match="--only must fit a method that Study.search tunes: LWDGH"):
        search.cells(study(), Place("o", "d", ""), only="MAML")
    with pytest.raises(ValueError, match=r"with brackets, @Search\(\)"):
        Study(title="s", methods=[Method("MAML")], baseline="MAML", search=Search)


def test_without_optuna_the_message_says_how_to_get_it(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"--search needs Optuna.*pip install 'tf_lwdgh\[search\]'"):
        run(study(), place, Fake())
