# SPDX-License-Identifier: Apache-2.0
"""The picture of test tasks and predictions: support sets, and under every query what each method says.

Drawn pixel by pixel: Matplotlib takes many seconds for hundreds of small images and labels.
"""

from __future__ import annotations

import dataclasses
import functools
import io

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, TEXT, PALE = "#222222", "#c51b1b", "#222222", "#555555"
# Pixels.
CELL, LINE, GAP, MARGIN = 64, 17, 8, 14
_LEAST_CELL, _LEAST_WIDTH = 24, 560  # of an image of the support set; of the columns beside the labels
_LABELS = 190  # the column on the left
_HEAD = 34  # a task's title
_SUPPORT_NAME = 22


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One task with its predictions.

    Attributes:
      number: in the list of tasks.
      names: of the N classes.
      support: [N*K, H, W, C], class by class.
      query: [N*Q, H, W, C], class by class.
      labels: [N*Q], in [0, N).
      predictions: [N*Q] of each method.
    """

    number: int
    names: list[str]
    support: np.ndarray
    query: np.ndarray
    labels: np.ndarray
    predictions: dict[str, np.ndarray]

    @property
    def n_way(self) -> int:
        """N."""
        return len(self.names)

    def accuracy(self, method: str) -> float:
        """In [0, 1]."""
        return float(np.mean(self.predictions[method] == self.labels))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of a task stands; all tasks have one shape."""

    n_way: int
    shots: int
    queries: int
    methods: int

    @classmethod
    def of(cls, task: Task) -> Layout:
        """The layout of tasks like this one."""
        shots, queries = (len(x) // task.n_way for x in (task.support, task.query))
        return cls(task.n_way, shots, queries, len(task.predictions))

    @property
    def width(self) -> int:
        """Of a row of queries or of the support set, whichever needs more."""
        support = self.n_way * (self.shots * (_LEAST_CELL + GAP // 2) + GAP)
        return max(self.queries * (CELL + GAP), support, _LEAST_WIDTH)

    @property
    def group(self) -> int:
        """The width that a class has in the support set's row."""
        return self.width // self.n_way

    @property
    def support_cell(self) -> int:
        """The side of an image of the support set: a query's, unless there are too many."""
        return min(CELL, (self.group - GAP) // self.shots - GAP // 2)

    @property
    def row(self) -> int:
        """The height of a row of queries."""
        return CELL + self.methods * LINE + GAP

    @property
    def rows_below(self) -> int:
        """From a task's top to its first row of queries."""
        return _HEAD + _SUPPORT_NAME + self.support_cell + 2 * GAP

    @property
    def task_height(self) -> int:
        """Of one task."""
        return self.rows_below + self.n_way * self.row + MARGIN

    def size(self, tasks: int) -> tuple[int, int]:
        """Of the picture: width, height."""
        return _LABELS + self.width + 2 * MARGIN, tasks * self.task_height + MARGIN

    def support_corner(self, top: int, label: int, shot: int) -> tuple[int, int]:
        """Left and top of an image of the support set."""
        left = MARGIN + _LABELS + label * self.group + shot * (self.support_cell + GAP // 2)
        return left, top + _HEAD + _SUPPORT_NAME

    def query_corner(self, top: int, label: int, i: int) -> tuple[int, int]:
        """Left and top of query i of a class."""
        left = MARGIN + _LABELS + i * (CELL + GAP)
        return left, top + self.rows_below + label * self.row


def draw_tasks(tasks: list[Task]) -> bytes:
    """Draws the tasks below each other, as PNG."""
    layout = Layout.of(tasks[0])
    picture = Image.new("RGB", layout.size(len(tasks)), "white")
    draw = ImageDraw.Draw(picture)
    for i, task in enumerate(tasks):
        top = MARGIN + i * layout.task_height
        _head(draw, task, top)
        _support(picture, draw, task, layout, top)
        _queries(picture, draw, task, layout, top)
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, which has all signs that are used here."""
    family = font_manager.FontProperties("DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(family), size)


def pixels(image: np.ndarray, low: float, high: float, side: int = CELL) -> Image.Image:
    """An image [H, W, C] of any range as a square."""
    unit = np.clip((image - low) / max(high - low, 1e-8), 0, 1)
    unit = np.repeat(unit, 3, -1) if unit.shape[-1] == 1 else unit
    whole = Image.fromarray(np.round(255 * unit).astype(np.uint8))
    return whole.resize((side, side), Image.Resampling.BICUBIC)


def cut(text: str, width: int, size: int) -> str:
    """A text that fits, its end left out where it is too long."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _head(draw: ImageDraw.ImageDraw, task: Task, top: int) -> None:
    """The task's number, and each method's accuracy."""
    draw.text((MARGIN, top), f"Test task {task.number}", TEXT, font(17, True))
    accuracies = "      ".join(
        f"{method}: {100 * task.accuracy(method):.1f} % of {len(task.labels)} queries right"
        for method in task.predictions
    )
    draw.text((MARGIN + _LABELS, top + 2), accuracies, TEXT, font(15))


def _support(picture, draw: ImageDraw.ImageDraw, task: Task, layout: Layout, top: int) -> None:
    side = layout.support_cell
    draw.text((MARGIN, top + _HEAD + _SUPPORT_NAME + side // 2), "support set", PALE, font(13), "lm")
    images = task.support.reshape(layout.n_way, layout.shots, *task.support.shape[1:])
    low, high = _range(task)
    for label in range(layout.n_way):
        left, y = layout.support_corner(top, label, 0)
        name = cut(_class(task, label), layout.group - GAP, 13)
        draw.text((left, y - 5), name, TEXT, font(13), "ls")
        for shot in range(layout.shots):
            corner = layout.support_corner(top, label, shot)
            picture.paste(pixels(images[label, shot], low, high, side), corner)


def _queries(picture, draw: ImageDraw.ImageDraw, task: Task, layout: Layout, top: int) -> None:
    images = task.query.reshape(layout.n_way, layout.queries, *task.query.shape[1:])
    low, high = _range(task)
    for label in range(layout.n_way):
        _, y = layout.query_corner(top, label, 0)
        draw.text((MARGIN, y + 8), cut(_class(task, label), _LABELS - GAP, 13), TEXT, font(13))
        for m, method in enumerate(task.predictions):
            at = (MARGIN + _LABELS - GAP, y + CELL + m * LINE + LINE // 2)
            draw.text(at, cut(method, _LABELS - GAP, 12), PALE, font(12), "rm")
        for i in range(layout.queries):
            corner = layout.query_corner(top, label, i)
            picture.paste(pixels(images[label, i], low, high), corner)
            said = [int(p.reshape(layout.n_way, -1)[label, i]) for p in task.predictions.values()]
            _write_predictions(draw, said, label, corner)


def _write_predictions(draw: ImageDraw.ImageDraw, said: list[int], label: int, corner: tuple[int, int]) -> None:
    """A line a method below the query; wrong ones red, with a cross for those who see no red."""
    left, top = corner
    for m, guess in enumerate(said):
        at = (left + CELL // 2, top + CELL + m * LINE + LINE // 2)
        if guess == label:
            draw.text(at, str(guess), RIGHT, font(13), "mm")
        else:
            draw.text(at, f"✗ {guess}", WRONG, font(13, True), "mm")


def _class(task: Task, label: int) -> str:
    return f"class {label}: {task.names[label]}"


def _range(task: Task) -> tuple[float, float]:
    both = (task.support, task.query)
    return min(float(x.min()) for x in both), max(float(x.max()) for x in both)
