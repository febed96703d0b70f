# SPDX-License-Identifier: Apache-2.0
"""Runs on one or several data sets as one table: text to read, CSV to go on with.

Differences are paired, and are the first run's accuracy minus another's, told with that other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence

from tf_lwdgh import files
from tf_lwdgh.outer.evaluation import EvaluationResult, paired

COLUMNS = (
    "run", "checkpoint", "learner", "trained_on", "dataset", "split", "n_way", "k_shot", "n_query", "mean_ways",
    "mean_shots", "n_tasks", "accuracy", "interval95", "difference", "difference_interval95",
    "task_list_sha256",
)  # fmt: skip
Results = Mapping[str, EvaluationResult]


def text(by_run: Mapping[str, Results]) -> str:
    """A Markdown table: a row a data set, a column a run, and one for each difference from the first.

    Args:
      by_run: the results by run, and for each by data set, the same sets for all.
    """
    runs = list(by_run)
    differences = [f"{runs[0]} − {other}" for other in runs[1:]]
    rows = [["data set", "tasks", *(f"{run}, % accuracy" for run in runs), *differences]]
    for name, first in by_run[runs[0]].items():
        results = [by_run[run][name] for run in runs]
        mark = "" if any("trained_on" in r.about for r in results) else " (trained on)"
        cells = [_accuracy(r) for r in results] + [str(paired(first, r)) for r in results[1:]]
        rows.append([name + mark, f"{len(first.accuracies)} {first.about['split']}", *cells])
    return _markdown(rows)


def runs_text(by_run: Mapping[str, Results]) -> str:
    """The same for one data set: a row a run."""
    (first, *_), *others = [list(results.values()) for results in by_run.values()]
    runs = list(by_run)
    rows = [["run", "accuracy, %", f"{runs[0]} − it"], [runs[0], _accuracy(first), ""]]
    for run, (result,) in zip(runs[1:], others, strict=True):
        rows.append([run, _accuracy(result), str(paired(first, result))])
    return _markdown(rows)


def _accuracy(result: EvaluationResult) -> str:
    return f"{100 * result.mean:.2f} ± {100 * result.interval95:.2f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def write(by_run: Mapping[str, Results], folder: str | os.PathLike[str], kind: str = "datasets") -> str:
    """Writes the table as CSV into `folder`, a row a run and data set; a whole file appears, or none.

    Args:
      by_run: as of `text`.
      folder: where.
      kind: what its name begins with.

    Returns:
      Its path, whose name has a hash of runs' names, checkpoints, learners and task lists.
    """
    rows = [_row(run, name, r, by_run) for run, of in by_run.items() for name, r in of.items()]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    path = os.path.join(folder, f"{kind}_{_hash(rows)}.csv")
    files.write(path, out.getvalue())
    return path


def _row(run: str, name: str, result: EvaluationResult, by_run: Mapping[str, Results]) -> dict:
    about = {key: result.about[key] for key in COLUMNS if key in result.about}
    first, apart = next(iter(by_run.values()))[name], {}
    if result is not first:
        difference = paired(first, result)
        apart = {"difference": difference.mean, "difference_interval95": difference.interval95}
    return {
        **about, **apart, "run": run, "dataset": name, "n_tasks": len(result.accuracies),
        "accuracy": result.mean, "interval95": result.interval95,
    }  # fmt: skip


def _hash(rows: Sequence[dict]) -> str:
    keys = ("run", "checkpoint", "learner", "dataset", "task_list_sha256")
    told = [[row[key] for key in keys] for row in rows]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]
