"""A run on several data sets as one table: text to read, CSV to go on with."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence

from tf_lwdgh import files
from tf_lwdgh.outer.evaluation import EvaluationResult, mean_and_interval, paired

COLUMNS = (
    "run", "checkpoint", "learner", "trained_on", "dataset", "split", "n_way", "k_shot", "n_query", "mean_ways",
    "mean_shots", "n_tasks", "accuracy", "interval95", "difference", "difference_interval95",
    "task_list_sha256",
)  # fmt: skip
Results = Mapping[str, EvaluationResult]


def text(by_run: Mapping[str, Results]) -> str:
    """A Markdown table: a row a data set, a column a run; of two runs also the paired difference.

    Args:
      by_run: the results by run, and for each by data set, the same sets for all.
    """
    runs = list(by_run)
    differences = ["difference"] if len(runs) == 2 else []
    head = ["data set", "tasks", *(f"{run}, % accuracy" for run in runs), *differences]
    rows = [head, ["---"] * len(head)]
    for name, first in by_run[runs[0]].items():
        results = [by_run[run][name] for run in runs]
        mark = "" if any("trained_on" in r.about for r in results) else " (trained on)"
        cells = [f"{100 * r.mean:.2f} ± {100 * r.interval95:.2f}" for r in results]
        cells += [str(paired(*results))] if differences else []
        rows.append([name + mark, f"{len(first.accuracies)} {first.about['split']}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(by_run: Mapping[str, Results], folder: str | os.PathLike[str]) -> str:
    """Writes the table as CSV into `folder`, a row a run and data set; a whole file appears, or none.

    Returns:
      Its path, whose name has a hash of runs' names, checkpoints, learners and task lists.
    """
    rows = [_row(run, name, r, by_run) for run, of in by_run.items() for name, r in of.items()]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    path = os.path.join(folder, f"datasets_{_hash(rows)}.csv")
    files.write(path, out.getvalue())
    return path


def _row(run: str, name: str, result: EvaluationResult, by_run: Mapping[str, Results]) -> dict:
    about = {key: result.about[key] for key in COLUMNS if key in result.about}
    others = [of[name] for other, of in by_run.items() if other != run]
    apart = {}
    if others and run == next(iter(by_run)):
        difference, width = mean_and_interval(result.accuracies - others[0].accuracies)
        apart = {"difference": difference, "difference_interval95": width}
    return {
        **about, **apart, "run": run, "dataset": name, "n_tasks": len(result.accuracies),
        "accuracy": result.mean, "interval95": result.interval95,
    }  # fmt: skip


def _hash(rows: Sequence[dict]) -> str:
    keys = ("run", "checkpoint", "learner", "dataset", "task_list_sha256")
    told = [[row[key] for key in keys] for row in rows]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]
