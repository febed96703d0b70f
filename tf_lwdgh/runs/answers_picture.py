# SPDX-License-Identifier: Apache-2.0
"""A picture of an evaluation: the most confused classes as a matrix, and how far confidence can be trusted."""

from __future__ import annotations

import functools
import io
import os
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_lwdgh import files
from tf_lwdgh.outer.answers import N_BINS, Answers
from tf_lwdgh.runs.pictures import Picture

_MOST_CLASSES = 12
_LONGEST_NAME = 24  # letters
_RIGHT, _CONFIDENT = "#7fb2d9", "#d95f02"


def draw(answers: Answers, title: str) -> Picture:
    """Draws it: on the left who was taken for whom, on the right the reliability diagram.

    Args:
      answers: of all tasks.
      title: what was evaluated.

    Returns:
      A PNG, and its (width, height) in pixels.
    """
    figure = Figure(figsize=(13, 6.2), dpi=90)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, parse_math=False)
    grid = figure.add_gridspec(
        1, 2, width_ratios=(1.2, 1), left=0.17, right=0.97, bottom=0.25, top=0.87, wspace=0.3
    )
    _matrix(figure.add_subplot(grid[0]), answers)
    parts = grid[1].subgridspec(2, 1, height_ratios=(4, 1), hspace=0.12)
    reliability = figure.add_subplot(parts[0])
    _reliability(reliability, figure.add_subplot(parts[1], sharex=reliability), answers)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for the letter
        figure.savefig(buffer, format="png")
    return buffer.getvalue(), canvas.get_width_height()


def write(picture: Picture, path: str | os.PathLike[str]) -> None:
    """Writes the PNG, whole or not at all."""
    files.write(path, picture[0])


def chosen(answers: Answers) -> list[int]:
    """The classes in the most frequent confusions, as many as the matrix has room for, in order."""
    found: dict[int, None] = {}
    wrong = answers.pairs.wrong
    for pair in zip(wrong.classes.tolist(), wrong.taken_for.tolist()):
        if len({*found, *pair}) > _MOST_CLASSES:
            break
        found |= dict.fromkeys(pair)
    return sorted(found) or list(range(min(_MOST_CLASSES, len(answers.names))))


def shares(answers: Answers, classes: list[int]) -> np.ndarray:
    """Of each class's queries whose task held both, the share taken for each other: [n, n]; 0 of none."""
    pairs, place = answers.pairs, np.full(len(answers.names), -1)
    place[classes] = np.arange(len(classes))
    row, column = place[pairs.classes], place[pairs.taken_for]
    shown = (row >= 0) & (column >= 0)
    matrix = np.zeros([len(classes)] * 2)
    matrix[row[shown], column[shown]] = (pairs.counts / pairs.chances)[shown]
    return matrix


def _matrix(axis: Axes, answers: Answers) -> None:
    classes = chosen(answers)
    matrix, names = shares(answers, classes), [_short(answers.names[c]) for c in classes]
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(matrix):
        if share:
            color = "white" if share > 0.6 else "black"
            text = f"{100 * share:.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    ticks = range(len(classes))
    axis.set_xticks(ticks, names, rotation=45, ha="right", fontsize=8, parse_math=False)
    axis.set_yticks(ticks, names, fontsize=8, parse_math=False)
    axis.set_xlabel("taken for")
    axis.set_ylabel("class")
    n = len(answers.names)
    which = f"the {len(classes)} most confused of {n} classes" if len(classes) < n else "all classes"
    axis.set_title(f"{which}\n% of the queries whose task held both", fontsize=10)


def _reliability(axis: Axes, counts: Axes, answers: Answers) -> None:
    bins, edges = answers.bins, np.arange(N_BINS) / N_BINS
    bar = functools.partial(Axes.bar, width=1 / N_BINS, align="edge", edgecolor="white")
    known = bins.counts > 0
    left, right = edges[known], edges[known] + 1 / N_BINS
    bar(axis, left, bins.accuracy[known], color=_RIGHT, label="share that were right")
    axis.hlines(bins.confidence[known], left, right, _CONFIDENT, linewidth=3, label="mean confidence")
    axis.plot([0, 1], [0, 1], color="#777777", linestyle="--", linewidth=1)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.tick_params(labelbottom=False)
    axis.legend(loc="upper left", fontsize=9)
    axis.set_title(
        f"reliability: ECE {100 * answers.ece:.1f} %\n{100 * answers.confidence:.1f} % confident on average, "
        f"{100 * answers.accuracy:.1f} % right",
        fontsize=10,
    )
    bar(counts, edges, bins.counts / answers.n_queries, color="#999999")
    counts.set(xlabel="confidence", ylabel="share")


def _short(name: str) -> str:
    """A name that fits, its middle left out where it is too long."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
