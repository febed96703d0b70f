# SPDX-License-Identifier: Apache-2.0
"""The picture of the tasks' conflict: colours, numbers and bars at their places at any size."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_lwdgh.runs import conflict_picture as drawing
from tf_lwdgh.runs.conflict_picture import COLORS, conflict_of_step, conflict_picture

MEAN = (224, 130, 20)  # the dashed line


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def color(value: float) -> np.ndarray:
    return np.array(matplotlib.colormaps[COLORS]((value + 1) / 2, bytes=True)[:3]).astype(int)


def cosines(n_tasks: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n_tasks, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def panels(n_units: int, n_tasks: int):
    units = [f"block{i}_conv/kernel" for i in range(n_units)]
    weights = np.random.default_rng(1).dirichlet(np.ones(n_tasks), n_units)
    return {u: cosines(n_tasks, i) for i, u in enumerate(units)}, dict(zip(units, weights))


def layout(matrices, weights):
    return drawing._lay_out(matrices, weights, list(matrices))


@pytest.mark.parametrize("n_units, n_tasks", [(1, 1), (14, 4), (40, 8), pytest.param(40, 64, marks=pytest.mark.slow)])
def test_every_cell_has_the_color_of_its_cosine(n_units, n_tasks):
    matrices, weights = panels(n_units, n_tasks)
    png, (width, height) = conflict_picture(matrices, weights, "meta-step 1")
    image = pixels(png)
    assert image.shape == (height, width, 3)
    where = layout(matrices, weights)
    cell = where.side // n_tasks
    assert cell * n_tasks == where.side
    for i in (0, n_units - 1):
        left, top = where.corner(i)
        # A cell's upper left pixel but one; its number stands in the middle.
        inside = image[top : top + where.side, left : left + where.side][1::cell, 1::cell]
        matrix = matrices[f"block{i}_conv/kernel"]
        expected = np.array([[color(value) for value in row] for row in matrix])
        assert np.abs(inside - expected).max() <= 1


def test_more_tasks_than_pixels_are_drawn_all_the_same():
    matrices, weights = panels(3, 300)
    png, (width, height) = conflict_picture(matrices, weights, "")
    assert pixels(png).shape == (height, width, 3)


def test_conflict_is_red_agreement_blue_and_neither_white():
    red, white, blue = color(-1), color(0), color(1)
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0] and white.min() > 240


def test_all_panels_lie_within_the_picture_and_apart():
    matrices, weights = panels(40, 8)
    where = layout(matrices, weights)
    corners = [where.corner(i) for i in range(40)]
    assert len(set(corners)) == 40
    width, height = where.size
    assert max(x for x, _ in corners) + where.side < width - drawing._SCALE + where.side
    assert max(y for _, y in corners) + where.bars_below + drawing._BARS < height
    assert 0.9 < width / height < 2.2
    assert width < 3000 and height < 3000


@pytest.mark.parametrize("n_tasks, numbered", [(8, True), (9, False)])
def test_cells_hold_numbers_up_to_eight_tasks(n_tasks, numbered):
    matrices, _ = panels(1, n_tasks)
    matrices = {u: np.zeros_like(m) for u, m in matrices.items()}  # white, with dark digits
    where = layout(matrices, {})
    left, top = where.corner(0)
    image = pixels(conflict_picture(matrices, {}, "")[0])
    inside = image[top : top + where.side, left : left + where.side]
    assert (inside.max(-1) < 120).any() == numbered


@pytest.mark.parametrize(
    "value, text",
    [(1.0, "1"), (0.999, "1"), (-1.0, "−1"), (0.0, "0"), (-0.001, "0"), (0.254, ".25"),
     (-0.05, "−.05"), (0.5, ".50"), (np.nan, "?")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert drawing._number(value) == text


def bar_heights(weights: np.ndarray) -> np.ndarray:
    """The bars' heights in pixels, from the picture."""
    matrices = {"a": cosines(len(weights))}
    image = pixels(conflict_picture(matrices, {"a": weights}, "")[0])
    where = layout(matrices, {"a": weights})
    left, top = where.corner(0)
    strip = image[top + where.bars_below : top + where.bars_below + drawing._BARS]
    grey = (np.abs(strip - 0x55).max(-1) < 2) | (np.abs(strip - MEAN).max(-1) < 2)
    centres = left + (np.arange(len(weights)) + 0.5) * where.side / len(weights)
    return np.array([grey[:, int(x) - 6 : int(x) + 6].mean() for x in centres]) * drawing._BARS


def test_bars_are_as_high_as_the_weights_say():
    weights = np.array([0.7, 0.1, 0.2])
    np.testing.assert_allclose(bar_heights(weights), drawing._BARS * weights / 0.7, atol=3)


def test_weights_below_zero_reach_below_the_line():
    low, high = drawing._span({"a": np.array([-0.5, 1.5])}, 2)
    assert (low, high) == (-0.5, 1.5)
    assert conflict_picture({}, {"a": np.array([-0.5, 1.5])}, "")[1][1] > 100


def test_long_names_are_cut_in_their_middle_and_others_kept():
    draw = drawing.ImageDraw.Draw(Image.new("RGB", (10, 10)))
    assert drawing._cut(draw, "block1_conv", 180) == "block1_conv"
    cut = drawing._cut(draw, "expanded_conv_10_squeeze_excite_conv_1", 180)
    assert cut.startswith("expanded") and cut.endswith("conv_1") and "…" in cut
    assert draw.textlength(cut, drawing._font(12)) <= 180


def test_values_that_are_not_finite_are_drawn_and_not_raised():
    matrix = np.full([2, 2], np.nan)
    assert conflict_picture({"a": matrix}, {"a": np.array([np.nan, np.inf])}, "")[0]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="needs cosines or weights of some unit"):
        conflict_picture({}, {}, "")


def test_a_meta_steps_metrics_become_a_tagged_picture():
    matrix, weights = tf.constant(cosines(3)), tf.constant([0.2, 0.3, 0.5])
    both = {"cosines/head/bias": matrix, "attention/head/bias": weights}
    assert conflict_of_step(5, both)[0] == "conflict/cosines"
    assert conflict_of_step(5, {"attention/head/bias": weights})[0] == "conflict/attention"
    assert conflict_of_step(5, {"train/loss": tf.constant(1.0)}) is None


def test_the_title_tells_where_the_step_explored():
    metrics = {"cosines/head/bias": tf.constant(cosines(3)), "explore/flag": tf.constant(1.0)}
    exploited = metrics | {"explore/flag": tf.constant(0.0)}
    assert conflict_of_step(5, metrics)[1] != conflict_of_step(5, exploited)[1]
