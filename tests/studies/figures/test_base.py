# SPDX-License-Identifier: Apache-2.0
"""What all figures share: they are found, set by gin, and choose their methods."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from tf_lwdgh import config
from tf_lwdgh.studies import figures
from tf_lwdgh.studies.figures import FigureMaker, drawing


def test_every_file_with_a_figure_is_found():
    assert set(figures.ALL) >= {
        "LossAgainstGCI", "LossCurves", "Predictions", "WeightHistory", "WeightScatter",
    }  # fmt: skip
    names = [maker().name for maker in figures.ALL.values()]
    assert len(set(names)) == len(names)
    for maker in figures.ALL.values():
        assert issubclass(maker, FigureMaker) and maker.reference and maker.__doc__


def test_gin_sets_a_figure():
    @config.configurable
    @dataclasses.dataclass(frozen=True)
    class Holder:
        figures: tuple = ()

    config.parse([], ["Holder.figures = [@LossCurves()]", "LossCurves.band = 'sd'",
                      "LossCurves.methods = ['b', 'a']", "LossCurves.name = 'figure-4'"])  # fmt: skip
    (curves,) = Holder().figures
    assert (curves.band, list(curves.methods), curves.name) == ("sd", ["b", "a"], "figure-4")


RUNS = {"a": ["a0", "a1"], "b": ["b0"], "c": []}


def test_methods_are_chosen_by_name_and_in_order():
    assert figures.WeightScatter(methods=("b", "a")).chosen(RUNS) == {"b": ["b0"], "a": ["a0", "a1"]}
    assert list(figures.WeightScatter().chosen({"b": ["b0"], "a": ["a0"]})) == ["b", "a"]


@pytest.mark.parametrize(
    "maker, runs, message",
    [
        (figures.WeightScatter(methods=["d"]), RUNS, "WeightScatter.methods must be of.*'a', 'b', 'c'"),
        (figures.LossCurves(), {"a": ["a0"]}, r"LossCurves needs.*at least 2 methods.*1 \('a'\)"),
        (figures.Predictions(methods=["b"]), RUNS, r"Predictions needs.*at least 2 methods.*1 \('b'\)"),
        (figures.LossAgainstGCI(), {}, r"LossAgainstGCI needs.*at least 1 methods.*0 \(none\)"),
        (figures.LossCurves(), RUNS, "LossCurves needs a run of every method. Received: none of 'c'"),
    ],
)
def test_runs_that_do_not_make_a_figure_are_refused(maker, runs, message):
    with pytest.raises(ValueError, match=message):
        maker.draw(runs, data_dir="data")


@pytest.mark.parametrize(
    "maker, settings, message",
    [
        ("LossCurves", {"name": "a/b"}, "LossCurves.name must be a file's name.*'a/b'"),
        ("LossCurves", {"methods": "maml"}, "LossCurves.methods must be a list of names"),
        ("LossCurves", {"methods": ["a", "a"]}, "LossCurves.methods must be a list.*none twice"),
        ("LossCurves", {"band": "se"}, "LossCurves.band must be one of range, sd, none.*'se'"),
        ("LossCurves", {"epochs": 0}, "LossCurves.epochs must be an integer of at least 1.*= 0"),
        ("LossAgainstGCI", {"steps": 2}, "LossAgainstGCI.steps must be an integer of at least 3"),
        ("WeightScatter", {"steps": 1.5}, "WeightScatter.steps must be an integer of at least 2"),
        ("WeightHistory", {"steps": 1}, "WeightHistory.steps must be an integer of at least 2"),
        ("Predictions", {"tasks": (0, 0)}, "Predictions.tasks must list numbers.*none twice"),
        ("Predictions", {"tasks": ()}, "Predictions.tasks must list numbers"),
        ("Predictions", {"which": "first"}, "Predictions.which must be one of best, last.*'first'"),
    ],
)
def test_settings_that_break_a_rule_are_refused(maker, settings, message):
    with pytest.raises(ValueError, match=message):
        figures.ALL[maker](**settings)


def test_a_canvas_has_the_panels_and_pixels_it_was_asked_for():
    canvas, axes = drawing.panels(4, columns=3, size=(2.0, 1.5))
    assert len(axes) == 4 and len(canvas.axes) == 6
    image = Image.open(io.BytesIO(drawing.png(canvas)))
    assert image.size == (6 * 120, 3 * 120)
    assert np.asarray(image.convert("RGB")).std() > 0


def test_signs_are_true_minus_signs():
    assert (drawing.signed(-0.123), drawing.signed(2, 0)) == ("−0.12", "+2")
