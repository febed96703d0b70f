# SPDX-License-Identifier: Apache-2.0
"""The loss curves: epochs from windows of any length, means and bands over seeds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.studies import probed_runs
from tf_lwdgh import config
from tf_lwdgh.runs.experiment import CONFIG_FILE
from tf_lwdgh.studies.figures import LossCurves
from tf_lwdgh.studies.figures.loss_curves import epoch_losses


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """A maker of runs of 4 steps an epoch with these metrics."""
    folder = tmp_path_factory.mktemp("curves")

    def make(name, ends, losses):
        run_dir = folder / name
        run_dir.mkdir()
        config.parse([tiny.write_gin(folder)])
        (run_dir / CONFIG_FILE).write_text(config.full_text(), encoding="utf-8")
        probed_runs.write_metrics(run_dir, ends, losses)
        return run_dir

    return make


def test_an_epoch_is_the_mean_over_its_steps_however_the_windows_lie(write):
    """Windows of 3, 3, 2 and 1 steps; the second has 1 step in the first epoch."""
    run_dir = write("windows", [3, 6, 8, 9], [1.0, 3.0, 5.0, 9.0])
    np.testing.assert_allclose(epoch_losses(run_dir), [(3 * 1 + 3) / 4, (2 * 3 + 2 * 5) / 4])


@pytest.fixture(scope="module")
def runs(write):
    """Three seeds of one method, of which one is an epoch ahead, and one seed of another."""
    r = np.random.default_rng(0)
    several = [
        write(f"a{seed}", range(1, 9 + 4 * (seed == 2)), r.uniform(1, 2, 8 + 4 * (seed == 2))) for seed in range(3)
    ]
    return {"a": several, "b": [write("b0", range(1, 13), r.uniform(1, 2, 12))]}


def expected(runs):
    return np.stack([epoch_losses(folder)[:2] for folder in runs["a"]])


@pytest.mark.parametrize("band", ["range", "sd", "none"])
def test_the_table_has_the_mean_and_the_band_over_seeds(runs, band):
    figure = LossCurves(band=band).draw(runs, data_dir="")
    losses = expected(runs)
    rows = [row for row in figure.table if row["method"] == "a"]
    assert [row["epoch"] for row in rows] == [1, 2] and {row["n_seeds"] for row in rows} == {3}
    for e, row in enumerate(rows):
        mean, sd = np.mean(losses[:, e]), np.sqrt(np.sum((losses[:, e] - losses[:, e].mean()) ** 2) / 2)
        low, high = {"range": (losses[:, e].min(), losses[:, e].max()), "sd": (mean - sd, mean + sd),
                     "none": (mean, mean)}[band]  # fmt: skip
        assert (row["loss"], row["low"], row["high"]) == pytest.approx((mean, low, high))
    alone = [row for row in figure.table if row["method"] == "b"]
    assert len(alone) == 3 and all(row["low"] == row["loss"] == row["high"] for row in alone)


def test_the_caption_says_what_the_band_is_and_who_has_none(runs):
    def caption(runs, **settings):
        return LossCurves(**settings).draw(runs, data_dir="").caption

    assert "a: 3, b: 1" in caption(runs)
    assert "Band: from the lowest to the highest seed. A method with one seed has none." in caption(runs)
    assert "one standard deviation over the seeds (ddof = 1)" in caption(runs, band="sd")
    assert "No band is drawn" in caption(runs, band="none")
    assert "No band: one seed each" in caption({m: folders[:1] for m, folders in runs.items()})


def test_the_picture_is_of_the_expected_size_and_the_first_epochs_can_be_chosen(runs):
    figure = LossCurves(epochs=1, methods=["b", "a"]).draw(runs, data_dir="")
    assert [(row["method"], row["epoch"]) for row in figure.table] == [("b", 1), ("a", 1)]
    assert Image.open(io.BytesIO(figure.png)).size == (840, 528)
    assert figure.name == "loss_curves"


def test_a_band_is_drawn_where_there_are_seeds(runs):
    def paints(runs, **settings):
        png = LossCurves(**settings).draw(runs, data_dir="").png
        image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        pale = 255 - 0.18 * (255 - np.array([0x00, 0x72, 0xB2]))
        return (np.abs(image - pale).max(-1) < 4).sum() > 500

    assert paints(runs) and not paints(runs, band="none")
    assert not paints({m: folders[:1] for m, folders in runs.items()})


def test_a_run_without_a_whole_epoch_or_without_metrics_is_refused(runs, write, tmp_path):
    short = write("short", [3], [1.0])
    with pytest.raises(ValueError, match="LossCurves needs runs of at least one whole epoch.*short"):
        LossCurves().draw({**runs, "b": [short]}, data_dir="")
    with pytest.raises(FileNotFoundError, match="--run_dir must be a folder"):
        LossCurves().draw({**runs, "b": [tmp_path / "nowhere"]}, data_dir="")
