# SPDX-License-Identifier: Apache-2.0
"""What the weights prefer: points and correlations worked out again, task by task."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from tests.studies import probed_runs
from tf_lwdgh.studies.figures import WeightHistory, WeightScatter, weight_history, weight_scatter
from tf_lwdgh.studies.figures.weight_scatter import binned

PROBE = probed_runs.made_up()


@pytest.fixture(autouse=True)
def probed(monkeypatch):
    """What the figures asked to be probed."""
    asked = []

    def probe(run_dir, **settings):
        asked.append((run_dir, settings))
        return PROBE

    class Prober:
        def __init__(self, run_dir, **settings):
            self._about = run_dir, settings

        def at(self, which, **settings):
            run_dir, rest = self._about
            return probe(run_dir, which=which, **rest, **settings)

    monkeypatch.setattr(weight_scatter, "probe", probe)
    monkeypatch.setattr(weight_history, "Prober", Prober)
    return asked


def values(quantity):
    """[S, U, K]."""
    losses = np.stack([PROBE.losses] * 3, axis=1)
    return {"weight": PROBE.weights, "loss": losses, "cosine": PROBE.cosines,
            "gradient_norm": PROBE.gradient_norms}[quantity]  # fmt: skip


def expected(quantity, b, unit, task, *, scaled):
    of_unit = values(quantity)[:, PROBE.units.index(unit)]
    left = of_unit - of_unit.mean(1, keepdims=True)
    return left[b, task] / (left.std() if scaled else 1)


@pytest.mark.parametrize("unit, count", [("", 30 * 3 * 4), ("conv2/kernel", 30 * 4)])
def test_points_are_differences_within_meta_batches(unit, count):
    figure = WeightScatter(unit=unit).draw({"ours": ["run"]}, data_dir="")
    assert len(figure.table) == count
    assert {row["unit"] for row in figure.table} == ({unit} if unit else set(PROBE.units))
    for row in figure.table[:: count // 17]:
        for quantity in ("weight", "gradient_norm", "loss", "cosine"):
            theirs = expected(quantity, row["meta_batch"], row["unit"], row["task"], scaled=not unit)
            assert row[quantity] == pytest.approx(theirs)


@pytest.mark.parametrize("unit", ["", "conv2/kernel"])
def test_the_caption_has_pearsons_r_of_the_points(unit):
    figure = WeightScatter(unit=unit).draw({"ours": ["run"]}, data_dir="")
    weights = [row["weight"] for row in figure.table]
    for quantity, label in weight_scatter.LABELS.items():
        r = scipy.stats.pearsonr([row[quantity] for row in figure.table], weights).statistic
        assert f"{label} r = {r:+.2f} [".replace("-", "−") in figure.caption
    assert ("of the unit conv2/kernel" if unit else "of 3 units together") in figure.caption
    assert "30 meta-batches of 4 tasks" in figure.caption and "LWDGH()" in figure.caption
    assert Image.open(io.BytesIO(figure.png)).size == (3 * 504, 432)


def test_a_row_of_panels_a_method_each_by_its_first_run(probed):
    maker = WeightScatter(steps=7, which=200, seed=3, split="val")
    figure = maker.draw({"a": ["a0", "a1"], "b": ["b0"]}, data_dir="data")
    settings = {"data_dir": "data", "steps": 7, "which": 200, "seed": 3, "split": "val"}
    assert probed == [("a0", settings), ("b0", settings)]
    assert Image.open(io.BytesIO(figure.png)).size == (3 * 504, 2 * 432)


def test_a_unit_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="WeightScatter.unit must be one of conv1/kernel, .*= 'head'"):
        WeightScatter(unit="head").draw({"ours": ["run"]}, data_dir="")


def test_bins_hold_equally_many_points():
    x = np.array([5.0, 1, 2, 4, 3, 6, 0, 7, 9, 8, 11, 10, 13, 12, 15, 14, 17, 16, 19, 18])
    middle, mean = binned(x, 2 * x)
    np.testing.assert_allclose(middle, np.arange(0.5, 20, 2))
    np.testing.assert_allclose(mean, 2 * middle)


def test_the_history_has_every_checkpoint_that_was_kept(probed, tmp_path):
    for step in (400, 200):
        (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    figure = WeightHistory(steps=5).draw({"ours": [tmp_path / "run"]}, data_dir="data")
    assert [settings["which"] for _, settings in probed] == [200, 400]
    assert [(row["step"], row["quantity"]) for row in figure.table] == [
        (step, q) for step in (200, 400) for q in ("gradient_norm", "loss", "cosine")
    ]
    each = []
    for u in range(3):
        w, c = (v[:, u] - v[:, u].mean(1, keepdims=True) for v in (PROBE.weights, PROBE.cosines))
        each.append(scipy.stats.pearsonr(w.ravel(), c.ravel()).statistic)
    (cosine,) = [r for r in figure.table if (r["step"], r["quantity"]) == (400, "cosine")]
    assert cosine["r"] == pytest.approx(np.mean(each)) and cosine["low"] < cosine["r"] < cosine["high"]
    assert "at 2 checkpoints" in figure.caption and "5 meta-batches" in figure.caption
    assert Image.open(io.BytesIO(figure.png)).size == (576, 456)


def test_a_history_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="WeightHistory needs runs with checkpoints"):
        WeightHistory().draw({"ours": [tmp_path]}, data_dir="")
