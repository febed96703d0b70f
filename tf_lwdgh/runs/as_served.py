# SPDX-License-Identifier: Apache-2.0
"""A checkpoint judged as a server may be asked: one query a call, or those of one class.

With transductive BatchNorm a query's answer depends on the others of its call, and the accuracy of a
test with all queries in a call is lost where they come otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from tf_lwdgh import files
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.outer.evaluation import EvaluationResult, mean_and_interval
from tf_lwdgh.runs.judge import judge_in_ways

N_TASKS = 200
TRANSDUCTIVE, INDUCTIVE = "transductive", "inductive"
ALL, ONE, ONE_CLASS = "all queries in a call", "one query a call", "those of one class a call"


@dataclasses.dataclass(frozen=True)
class Figure:
    """The accuracy of one way to ask.

    Attributes:
      batch_norm: the statistics that BatchNorm used.
      call: what a call holds.
      accuracy: the mean over tasks, in [0, 1].
      interval95: half the width of its 95 % interval.
    """

    batch_norm: str
    call: str
    accuracy: float
    interval95: float

    @classmethod
    def of(cls, result: EvaluationResult, call: str) -> Figure:
        """That of a result."""
        return cls(result.about["batch_norm"], call, result.mean, result.interval95)

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} ± {100 * self.interval95:.1f} % with {self.call}"


@dataclasses.dataclass(frozen=True)
class AsServed:
    """The accuracies of a checkpoint by how its queries come.

    Attributes:
      checkpoint: which, and its step.
      tasks: on what, such as '200 test tasks of glyphs'.
      n_query: queries a class.
      inner_steps: of the adaptation.
      figures: the accuracies.
    """

    checkpoint: str
    tasks: str
    n_query: int
    inner_steps: int | None
    figures: tuple[Figure, ...]

    def keep(self, run_dir: str | os.PathLike[str], which: str) -> None:
        """Writes it into the run's folder, where `read` finds it."""
        files.write_json(_path(run_dir, which), dataclasses.asdict(self))

    def __str__(self) -> str:
        lines = [f"as a server may be asked, on {self.tasks}, {self.n_query} queries a class:"]
        for mode in (TRANSDUCTIVE, INDUCTIVE):
            found = ", ".join(str(f) for f in self.figures if f.batch_norm == mode)
            lines.append(f"  BatchNorm {mode}: {found}")
        return "\n".join(lines)


def measure(
    run_dir: str | os.PathLike[str],
    whole: EvaluationResult,
    tasks: TaskList,
    *,
    data_dir: str | os.PathLike[str],
    gin_params: Sequence[str],
    which: str,
) -> AsServed:
    """Judges a run's checkpoint in every way, and keeps the figures in the run's folder.

    Args:
      run_dir: the run.
      whole: its evaluation, transductive and with all queries in a call.
      tasks: those of that, of which the first N_TASKS are used.
      data_dir: the folder of data sets.
      gin_params: bindings that override the run's.
      which: 'best' or 'last'.

    Raises:
      ValueError, FileNotFoundError, OSError: as `judge`.
    """
    tasks, about = tasks.first(N_TASKS), whole.about
    figures = [Figure(TRANSDUCTIVE, ALL, *mean_and_interval(whole.accuracies[:N_TASKS]))]
    # With 'inductive' no answer depends on the others.
    ways = ((TRANSDUCTIVE, 1), (TRANSDUCTIVE, tasks.config.n_query), (INDUCTIVE, None))
    results = judge_in_ways(
        run_dir, tasks, ways, data_dir=data_dir, gin_params=gin_params, which=which
    )
    figures += map(Figure.of, results, (ONE, ONE_CLASS, "any"))
    found = AsServed(
        checkpoint=about["checkpoint"],
        tasks=f"{len(tasks)} {about['split']} tasks of {about['dataset']}",
        n_query=about["n_query"],
        inner_steps=about["inner_steps"],
        figures=tuple(figures),
    )
    try:
        found.keep(run_dir, which)
    except OSError as error:
        raise OSError(f"{found}\nThis could not be kept: {error}") from error
    return found


def read(
    run_dir: str | os.PathLike[str], which: str, step: int, inner_steps: int | None
) -> AsServed | None:
    """What `measure` found of a checkpoint with so many inner steps; None where it has not."""
    path = _path(run_dir, which)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    content["figures"] = tuple(Figure(**figure) for figure in content["figures"])
    found = AsServed(**content)
    same = found.checkpoint == f"{which} checkpoint, step {step}"
    return found if same and found.inner_steps == inner_steps else None


def _path(run_dir: str | os.PathLike[str], which: str) -> str:
    return os.path.join(run_dir, f"as_served_{which}.json")
