# SPDX-License-Identifier: Apache-2.0
"""The rows of a study's tables, worked out from its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_lwdgh.studies import results, statistics
from tf_lwdgh.studies.definition import Method, Setting, Study
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Row:
    """A method in a setting, over its seeds.

    Attributes:
      method: the method.
      published: somebody's figure, or ''.
      accuracy: over tasks, for these runs; None where no seed is done.
      deviation: standard deviation of the seeds' means; None of one seed.
      difference: paired, from the baseline, over the seeds that both have; None without one.
      measured: means over seeds of what the results measured.
      done: seeds.
      remarks: what went wrong or is missing, a sentence each.
    """

    method: Method
    published: str
    accuracy: Estimate | None
    deviation: float | None
    difference: Estimate | None
    measured: dict[str, float]
    done: tuple[int, ...]
    remarks: tuple[str, ...]


def rows(study: Study, setting: Setting, found: Sequence[Result]) -> list[Row]:
    """The rows of one setting's table, in the study's order.

    Args:
      study: the study.
      setting: one of its.
      found: results, of other settings too.

    Runs that were judged on other tasks than the baseline's first, or where it has none the first, have
    no figures here but a remark: they can't be compared.
    """
    here = {(r.method, r.seed): r for r in found if r.setting == setting.name}
    here = _on_the_same_tasks(study, here)
    return [_row(study, setting, method, here) for method in study.methods]


def _row(study: Study, setting: Setting, method: Method, here: dict[tuple[str, int], Result]) -> Row:
    mine = {s: here[method.name, s] for s in study.seeds if (method.name, s) in here}
    done = {s: r for s, r in mine.items() if r.state == results.DONE}
    values = np.array([r.accuracies for r in done.values()])
    names = dict.fromkeys(name for r in done.values() for name in r.measured)
    return Row(
        method=method,
        published=method.published_in(setting.name),
        accuracy=statistics.over_tasks(values) if len(values) else None,
        deviation=statistics.deviation_over_seeds(values) if len(values) else None,
        difference=_difference(study, method, done, here),
        measured={n: _mean([r.measured[n] for r in done.values() if n in r.measured]) for n in names},
        done=tuple(done),
        remarks=_remarks(study, method, mine),
    )


def _difference(
    study: Study, method: Method, done: dict[int, Result], here: dict[tuple[str, int], Result]
) -> Estimate | None:
    if method.name == study.baseline:
        return None
    pairs = [
        result.accuracies - other.accuracies
        for seed, result in done.items()
        if (other := here.get((study.baseline, seed))) is not None and other.state == results.DONE
    ]
    return statistics.over_seeds_and_tasks(np.array(pairs)) if pairs else None


def _remarks(study: Study, method: Method, mine: dict[int, Result]) -> tuple[str, ...]:
    if method.absent:
        return (method.absent,)
    remarks = list(dict.fromkeys(result.note for result in mine.values() if result.note))
    for seed, result in mine.items():
        if result.state != results.DONE:
            last = (result.message.strip().splitlines() or [""])[-1]
            remarks.append(f"Seed {seed} {result.state}: {last}")
    missing = [s for s in study.seeds if s not in mine]
    if missing and len(missing) == len(study.seeds):
        remarks.append("Not run.")
    elif missing:
        remarks.append(f"Not run: seed {', '.join(map(str, missing))}.")
    return tuple(remarks)


def _on_the_same_tasks(study: Study, here: dict[tuple[str, int], Result]) -> dict[tuple[str, int], Result]:
    done = {key: r for key, r in here.items() if r.state == results.DONE}
    if not done:
        return here
    first = min(done, key=lambda key: key[0] != study.baseline)  # stable: else in the study's order
    tasks = done[first].about["task_list_sha256"]
    why = f"judged on other tasks than {first[0]}, seed {first[1]}; starting the study judges it again."
    return {
        key: r if key not in done or r.about["task_list_sha256"] == tasks
        else dataclasses.replace(r, state=results.FAILED, message=why)
        for key, r in here.items()
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
