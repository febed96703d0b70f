# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves in its run's folder: the result, tables of classes, a picture; and for TensorBoard.

TensorBoard's files lie in folders that training does not write to while it runs, but for the one figure that
the HParams page shows.
"""

from __future__ import annotations

import os
from typing import Any

from tf_lwdgh.data.variable_task_lists import VARIABLE
from tf_lwdgh.outer.evaluation import EvaluationResult
from tf_lwdgh.runs import answers_picture, class_tables
from tf_lwdgh.runs.events import Events
from tf_lwdgh.runs.summaries import RESULT_FOLDER
from tf_lwdgh.runs.tags import FIRST

FOLDER = "evaluation"


def path(run_dir: str | os.PathLike[str], about: dict[str, Any], ending: str = ".json") -> str:
    """Where the result of an evaluation is kept, or what goes with it by another ending."""
    name = f"{_name(about)}_{about['task_list_sha256'][:8]}{ending}"
    return os.path.join(run_dir, FOLDER, name)


def write(run_dir: str | os.PathLike[str], result: EvaluationResult, step: int) -> None:
    """Writes all of it; each file appears whole, or not at all.

    Args:
      run_dir: the run.
      result: with its `answers`.
      step: of the checkpoint.

    Raises:
      OSError: something can't be written.
    """
    about = result.about
    result.write(path(run_dir, about))
    class_tables.write(
        result.answers, path(run_dir, about, "_classes.csv"), path(run_dir, about, "_confusion.csv")
    )
    picture = answers_picture.draw(result.answers, f"{about['split']} tasks of {about['dataset']}")
    answers_picture.write(picture, path(run_dir, about, ".png"))
    name, whose = f"evaluation/{_name(about)}", _is_the_runs_own(about)
    values = {
        f"{name}/accuracy": result.mean,
        f"{name}/interval95": result.interval95,
        f"{name}/ece": result.answers.ece,
    }
    if result.seconds_per_task is not None:
        values[f"{name}/seconds_per_task"] = result.seconds_per_task
    with Events(os.path.join(run_dir, FOLDER)) as events:
        events.scalars(step, values | ({f"{FIRST}/test/accuracy": result.mean} if whose else {}))
        events.image(step, name, *picture)
        events.text(step, f"{FIRST}/test" if whose else name, str(result).replace("\n", "\n\n"))
    if whose:
        with Events(os.path.join(run_dir, RESULT_FOLDER)) as events:
            events.scalars(step, {"result/test_accuracy": result.mean})


def _is_the_runs_own(about: dict[str, Any]) -> bool:
    """Whether it is the run's learner on test tasks of the run's data set."""
    return about["split"] == "test" and "trained_on" not in about and "on_top" not in about


def _name(about: dict[str, Any]) -> str:
    """What was evaluated, but for the tasks."""
    parts = (
        *_on_top(about),
        about["dataset"] if "trained_on" in about else "",
        about["split"],
        VARIABLE if about["n_way"] == VARIABLE else f"{about['n_way']}way{about['k_shot']}shot",
        "" if about["inner_steps"] is None else f"{about['inner_steps']}steps",
        about["batch_norm"],
        f"{about['queries_per_call']}percall" if "queries_per_call" in about else "",
        about["checkpoint"].split()[0],
    )
    return "_".join(filter(None, parts))


def _on_top(about: dict[str, Any]) -> list[str]:
    """The learner's name and the gin files' where some went on top of the run, none of them twice."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in about.get("on_top", ())]
    learner = about["learner"]
    others = [s for s in stems if s.replace("_", "").lower() != learner.lower()]
    return [learner, *others] if stems else []
