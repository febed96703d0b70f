# SPDX-License-Identifier: Apache-2.0
"""What an evaluation says of classes and confidence: two tables as CSV, and a few lines to read."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np

from tf_lwdgh import files
from tf_lwdgh.outer.answers import N_BINS, Answers, Pairs
from tf_lwdgh.outer.evaluation import EvaluationResult

CLASSES = (
    "class", "tasks", "queries", "accuracy", "interval95", "most_often_taken_for", "count",
    "share_of_chances",
)  # fmt: skip
CONFUSION = ("class", "taken_for", "count", "share_of_chances")
_SHOWN = 3


def write(
    answers: Answers, classes_path: str | os.PathLike[str], confusion_path: str | os.PathLike[str]
) -> None:
    """Writes both tables, each whole or not at all. Shares are in [0, 1]; what is not known is empty.

    The first has a row for every class of the split. The second has one for every pair of classes of which
    one was taken for the other, the right answers among them; the share is that of the class's queries
    whose task held both.
    """
    files.write(classes_path, _csv(CLASSES, _class_rows(answers)))
    pairs, names = answers.pairs, answers.names
    rows = (
        (names[c], names[other], count, count / chances)
        for c, other, count, chances in zip(*(a.tolist() for a in pairs), strict=True)
    )
    files.write(confusion_path, _csv(CONFUSION, rows))


def text(result: EvaluationResult) -> str:
    """Calibration, seconds a task, the worst classes and the most confused pairs, in a line each."""
    answers = result.answers
    seconds = result.seconds_per_task
    speed = "not measured: all tasks came in the first batch" if seconds is None else f"{seconds:.3g}"
    lines = [
        f"calibration: ECE {100 * answers.ece:.1f} % ({N_BINS} bins, {answers.n_queries:,} queries): "
        f"{100 * answers.confidence:.1f} % confident on average, {100 * answers.accuracy:.1f} % right",
        f"seconds a task, to adapt and predict: {speed}",
        f"worst classes: {', '.join(_worst(answers)) or 'none was in two tasks'}",
        f"most confused: {', '.join(_most_confused(answers)) or 'none'}",
    ]
    return "\n".join(f"  {line}" for line in lines)


def _class_rows(answers: Answers) -> Iterable[Sequence[object]]:
    names, found, wrong = answers.names, answers.by_class, answers.pairs.wrong
    firsts = dict(zip(reversed(wrong.classes.tolist()), reversed(range(len(wrong.classes)))))
    for i, row in enumerate(zip(*found, strict=True)):
        tasks, queries, *figures = (value.item() for value in row)
        told = (names[i], tasks, queries, *(v if math.isfinite(v) else "" for v in figures))
        yield (*told, *(_pair(names, wrong, firsts[i]) if i in firsts else ("", "", "")))


def _pair(names: Sequence[str], wrong: Pairs, at: int) -> tuple[str, int, float]:
    count, chances = int(wrong.counts[at]), int(wrong.chances[at])
    return names[wrong.taken_for[at]], count, count / chances


def _worst(answers: Answers) -> list[str]:
    """The classes with the lowest accuracy, of those that were in two tasks at least."""
    found = answers.by_class
    known = np.flatnonzero(found.tasks > 1)
    order = known[np.argsort(found.accuracy[known], kind="stable")][:_SHOWN]
    return [
        f"{answers.names[i]} {100 * found.accuracy[i]:.1f} ± {100 * found.interval95[i]:.1f} %"
        for i in order
    ]


def _most_confused(answers: Answers) -> list[str]:
    wrong, names = answers.pairs.wrong, answers.names
    found = []
    for at in range(min(_SHOWN, len(wrong.counts))):
        other, count, share = _pair(names, wrong, at)
        chances = f"{100 * share:.0f} % of {wrong.chances[at]:,}"
        found.append(f"{names[wrong.classes[at]]} for {other} {count:,} times ({chances})")
    return found


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()
