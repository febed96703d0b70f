# SPDX-License-Identifier: Apache-2.0
"""A picture of an episode: the support set, and the queries with their predictions, wrong ones red."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Size = tuple[int, int]  # width, height
Picture = tuple[bytes, Size]  # a PNG, and its size in pixels
RIGHT, WRONG = "#1b7837", "#c51b1b"
_MOST_SUPPORT, _MOST_QUERIES = 2, 5  # images a class that are shown
_CELL = 1.0  # inches


def episode_picture(
    support: np.ndarray, query: np.ndarray, predictions: np.ndarray, n_way: int, title: str = ""
) -> Picture:
    """Draws an episode, a row a class: some support images, then queries with their predictions.

    Args:
      support: [N*K, H, W, C] images of any range, class by class.
      query: [N*Q, H, W, C], class by class.
      predictions: [N*Q] labels.
      n_way: N.
      title: above the picture.

    Returns:
      A PNG, and its (width, height) in pixels.
    """
    support, query = _rows(support, n_way), _rows(query, n_way)
    predictions = predictions.reshape(n_way, -1)
    low, high = min(support.min(), query.min()), max(support.max(), query.max())
    shots, queries = min(support.shape[1], _MOST_SUPPORT), min(query.shape[1], _MOST_QUERIES)
    figure = Figure(figsize=(_CELL * (shots + queries + 0.6), (_CELL + 0.2) * n_way + 0.7), dpi=100)
    canvas = FigureCanvasAgg(figure)
    widths = [1] * shots + [0.3] + [1] * queries
    axes = figure.subplots(n_way, len(widths), squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.set_axis_off()
    for label in range(n_way):
        for i in range(shots):
            _show(axes[label, i], support[label, i], low, high, f"class {label}", "#333333")
        for i in range(queries):
            guess = int(predictions[label, i])
            color = RIGHT if guess == label else WRONG
            axis = axes[label, shots + 1 + i]
            _show(axis, query[label, i], low, high, f"→ {guess}", color)
            _frame(axis, color)
    figure.suptitle(title or "support | queries → prediction", fontsize=11)
    figure.subplots_adjust(0.02, 0.01, 0.98, 1 - 0.65 / figure.get_figheight(), 0.08, 0.3)
    canvas.draw()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue(), canvas.get_width_height()


def _rows(images: np.ndarray, n_way: int) -> np.ndarray:
    return np.asarray(images, np.float32).reshape(n_way, -1, *images.shape[1:])


def _show(axis, image: np.ndarray, low: float, high: float, text: str, color: str) -> None:
    unit = (image - low) / max(high - low, 1e-8)
    unit = unit[..., 0] if unit.shape[-1] == 1 else unit
    axis.imshow(unit, cmap="gray", vmin=0, vmax=1)
    axis.set_title(text, fontsize=10, color=color, pad=2)


def _frame(axis, color: str) -> None:
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_color(color)
        side.set_linewidth(3)
