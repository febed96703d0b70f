# SPDX-License-Identifier: Apache-2.0
"""A picture of the tasks' conflict: a heatmap of every unit's cosines, over the tasks' weights.

Red pairs of tasks conflict (cosine −1), blue ones agree (1), white ones have nothing to do with each
other.
Drawn pixel by pixel: Matplotlib takes 2 ms for each number in a cell, 6 s for 40 units of 8 tasks.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from tf_lwdgh.runs import readback
from tf_lwdgh.runs.pictures import Picture, Size

COLORS = "RdBu"
_MOST_NUMBERED = 8  # tasks, up to which the cells hold their numbers
_ASPECT = 1.5  # width to height of the whole picture, about
_TEXT, _PALE, _BAR, _MEAN = "#222222", "#555555", "#555555", "#e08214"
# Pixels.
_CELL, _LEAST_SIDE, _MOST_SIDE = 36, 180, 288  # of a heatmap
_BARS, _NAME, _GAP = 40, 34, 16
_HEAD, _SCALE, _LEAST_WIDTH = 76, 78, 470

Arrays = Mapping[str, np.ndarray]


class _Layout(NamedTuple):
    """How many panels lie side by side, and how large each is."""

    columns: int
    rows: int
    side: int  # of a heatmap, and a strip of bars' width
    n_tasks: int
    has_cosines: bool
    has_weights: bool

    @property
    def bars_below(self) -> int:
        """From a panel's top to that of its bars."""
        return self.side + 6 if self.has_cosines else 0

    @property
    def step(self) -> tuple[int, int]:
        """From panel to panel."""
        bars = _BARS if self.has_weights else 0
        return self.side + _GAP, _NAME + self.bars_below + bars + _GAP

    @property
    def size(self) -> tuple[int, int]:
        """Of the picture."""
        width = self.columns * self.step[0] + _GAP + (_SCALE if self.has_cosines else 0)
        return max(_LEAST_WIDTH, width), _HEAD + self.rows * self.step[1]

    def corner(self, i: int) -> tuple[int, int]:
        """Left and top of panel i, below its name."""
        row, column = divmod(i, self.columns)
        return _GAP + column * self.step[0], _HEAD + row * self.step[1] + _NAME


def conflict_of_step(step: int, metrics: readback.Metrics) -> tuple[str, bytes, Size] | None:
    """The conflict in one meta-step, as far as it was measured; None where nothing was.

    Args:
      step: its number, counted from 1.
      metrics: what the meta-step returned.

    Returns:
      A tag for TensorBoard, a PNG, and its size.
    """
    cosines, weights = readback.by_unit(metrics, "cosines"), readback.by_unit(metrics, "attention")
    if not cosines and not weights:
        return None
    explored = float(metrics.get("explore/flag", 0)) > 0
    note = ": explored, the update is the mean" if explored else ""
    tag = "conflict/cosines" if cosines else "conflict/attention"
    return tag, *conflict_picture(cosines, weights, f"meta-step {step}{note}")


def conflict_picture(cosines: Arrays, weights: Arrays, title: str) -> Picture:
    """Draws a grid with one panel a unit.

    Args:
      cosines: [K, K] of each unit, of every pair of its K tasks; may be empty.
      weights: [K] of each unit, what each task weighs in the update; may be empty.
      title: the first line above the picture; the others explain the panels.

    Returns:
      A PNG, and its (width, height) in pixels.

    Raises:
      ValueError: there is neither.
    """
    units = list(cosines) or list(weights)
    if not units:
        raise ValueError("conflict_picture needs cosines or weights of some unit. Received: none.")
    layout = _lay_out(cosines, weights, units)
    picture = Image.new("RGB", layout.size, "white")
    draw = ImageDraw.Draw(picture)
    span = _span(weights, layout.n_tasks)
    for i, unit in enumerate(units):
        left, top = layout.corner(i)
        _write_name(draw, unit, left, top, layout.side)
        if unit in cosines:
            _heatmap(picture, draw, cosines[unit], left, top, layout.side)
        if unit in weights:
            _bars(draw, weights[unit], left, top + layout.bars_below, layout.side, span)
    _explain(draw, title, layout, span)
    if cosines:
        _scale(picture, draw, layout)
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue(), picture.size


def _lay_out(cosines: Arrays, weights: Arrays, units: list[str]) -> _Layout:
    n_tasks = len((cosines or weights)[units[0]])
    side = min(max(_CELL * n_tasks, _LEAST_SIDE), _MOST_SIDE)
    if n_tasks <= side:
        side -= side % n_tasks  # so that all cells are equally large
    one = _Layout(1, 1, side, n_tasks, bool(cosines), bool(weights))
    wide, high = one.step
    columns = math.ceil(math.sqrt(_ASPECT * len(units) * high / wide))
    columns = min(len(units), max(2, columns))
    return one._replace(columns=columns, rows=math.ceil(len(units) / columns))


def _span(weights: Arrays, n_tasks: int) -> tuple[float, float]:
    """The bars' scale, the same for all units."""
    values = [float(w) for array in weights.values() for w in array if math.isfinite(w)]
    return min([0.0, *values]), max([1.25 / n_tasks, *values])


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _write_name(draw: ImageDraw.ImageDraw, unit: str, left: int, top: int, side: int) -> None:
    """A unit's name above its panel: a line for the layer, one for the variable."""
    lines = [_cut(draw, line, side) for line in unit.rsplit("/", 1)]
    at = (left + side // 2, top - 3)
    draw.text(at, "\n".join(lines), _TEXT, _font(12), "md", spacing=2, align="center")


def _cut(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """A text that fits, its middle left out where it is too long."""
    kept, shown = len(text), text
    while kept > 4 and draw.textlength(shown, _font(12)) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _heatmap(picture: Image.Image, draw, cosines, left: int, top: int, side: int) -> None:
    colors = matplotlib.colormaps[COLORS]((np.asarray(cosines, float) + 1) / 2, bytes=True)
    cells = Image.fromarray(colors[..., :3]).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(cells, (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline="#bbbbbb")
    if len(cosines) > _MOST_NUMBERED:
        return
    cell = side / len(cosines)
    for (row, column), value in np.ndenumerate(cosines):
        at = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
        color = "white" if abs(value) > 0.6 else _TEXT
        draw.text(at, _number(value), color, _font(12), "mm")


def _number(value: float) -> str:
    """Two decimals without a zero in front: −.25; whole numbers as 0, 1 and −1."""
    if not math.isfinite(value):
        return "?"
    hundredths = round(100 * float(value))
    digits = f".{abs(hundredths):02d}" if hundredths % 100 else str(abs(hundredths) // 100)
    return ("−" if hundredths < 0 else "") + digits


def _bars(draw, weights: np.ndarray, left: int, top: int, side: int, span) -> None:
    """A strip of bars, one a task below its column, and a dashed line at the mean's weight."""
    low, high = span

    def y(value: float) -> float:
        return top + _BARS * (high - value) / (high - low)

    edges = np.linspace(left, left + side, len(weights) + 1)
    gap = 1 if edges[1] - edges[0] > 3 else 0
    for begin, end, weight in zip(edges, edges[1:], weights):
        if math.isfinite(weight):
            ends = sorted((y(0), y(float(weight))))
            right = max(begin + gap, end - 1 - gap)
            draw.rectangle((begin + gap, ends[0], right, ends[1]), fill=_BAR)
    draw.line((left, y(0), left + side, y(0)), fill="#999999")
    mean = y(1 / len(weights))
    for x in range(left, left + side, 8):
        draw.line((x, mean, min(x + 4, left + side), mean), fill=_MEAN, width=2)


def _explain(draw: ImageDraw.ImageDraw, title: str, layout: _Layout, span) -> None:
    lines = []
    if layout.has_cosines:
        lines.append(f"cosines of the {layout.n_tasks} tasks' gradients: red conflict, blue agree")
    if layout.has_weights:
        lines.append(
            f"bars: the tasks' weights, {span[0]:.2g} to {span[1]:.2g}; dashed: 1/{layout.n_tasks}"
        )
    draw.text((_GAP, 10), title, _TEXT, _font(15))
    draw.text((_GAP, 34), "\n".join(lines), _PALE, _font(12), spacing=3)


def _scale(picture: Image.Image, draw: ImageDraw.ImageDraw, layout: _Layout) -> None:
    """The colours' scale at the right edge, 1 at its top."""
    left, top = picture.width - _SCALE + 14, _HEAD + _NAME
    tall = min(picture.height - top - _GAP, 300)
    shades = matplotlib.colormaps[COLORS](np.linspace(1, 0, tall), bytes=True)[:, None, :3]
    picture.paste(Image.fromarray(np.repeat(shades, 18, axis=1)), (left, top))
    draw.rectangle((left - 1, top - 1, left + 18, top + tall), outline="#bbbbbb")
    for value in (1.0, 0.5, 0.0, -0.5, -1.0):
        y = top + (1 - value) / 2 * (tall - 1)
        draw.line((left + 18, y, left + 22, y), fill="#999999")
        draw.text((left + 25, y), _number(value), _TEXT, _font(12), "lm")
