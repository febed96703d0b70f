# SPDX-License-Identifier: Apache-2.0
"""Loss against GCI: a probed run, and the line beside SciPy's."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from tests.studies import probed_runs
from tf_lwdgh.studies.figures import LossAgainstGCI, loss_against_gci
from tf_lwdgh.studies.probe import probe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scatter")


def test_the_points_are_a_probes_and_the_run_is_each_methods_first(folder, monkeypatch):
    run_dir, probes = probed_runs.write_run(folder, "run")[0], []
    spy = lambda *a, **k: probes.append(probe(*a, **k)) or probes[-1]  # noqa: E731
    monkeypatch.setattr(loss_against_gci, "probe", spy)
    maker = LossAgainstGCI(steps=4, seed=2)
    figure = maker.draw({"ours": [run_dir, "not this one"]}, data_dir=folder / "data")
    (found,) = probes
    assert (found.run_dir, found.step, found.seed) == (str(run_dir), 8, 2)
    assert [row["meta_batch"] for row in figure.table] == [0, 1, 2, 3]
    for s, row in enumerate(figure.table):
        total = sum(found.gci[s, u, k] for u in range(len(found.units)) for k in range(3))
        assert row["gci"] == pytest.approx(total) and row["method"] == "ours"
        assert row["loss"] == pytest.approx(sum(found.losses[s]) / 3)


def test_line_interval_and_r_in_the_caption_are_scipys(monkeypatch):
    made = {"one": probed_runs.made_up(100, seed=1), "two": probed_runs.made_up(100, seed=2)}
    monkeypatch.setattr(loss_against_gci, "probe", lambda run_dir, **_: made[run_dir])
    figure = LossAgainstGCI().draw({m: [m] for m in made}, data_dir="")
    for method, found in made.items():
        line = scipy.stats.linregress(found.gci.sum((1, 2)), found.losses.mean(1))
        text = f"slope {line.slope:+.4f} ± {1.96 * line.stderr:.4f} nats per unit of GCI, r = {line.rvalue:+.2f}"
        assert f"{method} (step 8): {text.replace('-', '−')}" in figure.caption
    assert "100 meta-batches of 4 tasks" in figure.caption
    assert "1.96 standard errors of the slope, n = 100" in figure.caption
    image = Image.open(io.BytesIO(figure.png))
    assert image.size == (2 * 504, 432) and np.asarray(image).std() > 0


def test_a_run_that_is_not_there_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="--run_dir must be a folder.*nowhere"):
        LossAgainstGCI().draw({"ours": [folder / "nowhere"]}, data_dir=folder)
