# SPDX-License-Identifier: Apache-2.0
"""How figures look: colours that all eyes tell apart, panels in a grid, and the way to PNG."""

from __future__ import annotations

import io
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

# Okabe and Ito's; with a line style and a marker for each, so that grey print does too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#555555"
_DPI = 120


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (4.2, 3.6), **shared: Any
) -> tuple[Canvas, list[Axes]]:
    """A canvas with `count` panels of a size in inches, row by row.

    Args:
      count: how many.
      columns: at most so many side by side.
      size: width and height of one panel, in inches.
      shared: sharex and sharey of Matplotlib.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    canvas = Canvas((columns * size[0], rows * size[1]), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    grid = list(canvas.subplots(rows, columns, squeeze=False, **shared).flat)
    for empty in grid[count:]:
        empty.set_axis_off()
    for axis in grid[:count]:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return canvas, grid[:count]


def style(i: int) -> dict:
    """The colour and the line of the i-th method."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}


def png(canvas: Canvas) -> bytes:
    """The canvas as PNG."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a true minus among them."""
    return f"{value:+.{digits}f}".replace("-", "−")
