# SPDX-License-Identifier: Apache-2.0
"""Test tasks and predictions: those of the fixed list, and red where, and only where, they are wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.studies import probed_runs
from tf_lwdgh.data import store
from tf_lwdgh.data.episodes import EpisodeConfig
from tf_lwdgh.data.mixtures import Mixture
from tf_lwdgh.data.store import SPEC_FILE
from tf_lwdgh.data.task_lists import TaskList
from tf_lwdgh.runs.judge import judge
from tf_lwdgh.studies.figures import Predictions, predictions
from tf_lwdgh.studies.figures import prediction_picture as drawing
from tf_lwdgh.studies.figures.prediction_picture import Layout, Task, draw_tasks

RED = np.array([0xC5, 0x1B, 0x1B])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def runs(folder):
    """Two methods with different weights, and a third that is not drawn."""
    one, two = (
        probed_runs.write_run(folder, name, "INNER_LR = 0.2", noise=noise)[0]
        for name, noise in (("one", 0.01), ("two", 1.0))
    )
    return {"first": [one, "no second seed"], "second": [two], "third": ["nowhere"]}


@pytest.fixture(scope="module")
def figure(folder, runs):
    return Predictions(tasks=(1, 3)).draw(runs, data_dir=folder / "data")


def test_accuracies_are_those_that_judging_the_run_gives(folder, runs, figure):
    copy = folder / "copy"
    shutil.copytree(runs["second"][0], copy)
    six = ["Evaluation.n_tasks = 6"]
    result, listed = judge(copy, data_dir=folder / "data", gin_params=six, which="last", show=False)
    for number in (1, 3):
        rows = [r for r in figure.table if (r["task"], r["method"]) == (number, "second")]
        assert len(rows) == 9
        assert np.mean([not r["wrong"] for r in rows]) == pytest.approx(result.accuracies[number])
        assert f"second {100 * result.accuracies[number]:.1f} %" in figure.caption
        names = [f"test-{c - 12}" for c in listed.class_ids[number]]
        assert [r["class_name"] for r in rows] == [name for name in names for _ in range(3)]


def test_the_table_has_a_row_a_query_and_method(figure):
    assert {r["method"] for r in figure.table} == {"first", "second"} and len(figure.table) == 36
    for row in figure.table:
        assert row["wrong"] == (row["prediction"] != row["label"]) and row["prediction"] in range(3)
    assert 0 < sum(r["wrong"] for r in figure.table) < 36
    said = {m: [r["prediction"] for r in figure.table if r["method"] == m] for m in ("first", "second")}
    assert said["first"] != said["second"]
    assert "Test tasks 1, 3 (chosen by number, not by result) of patterns" in figure.caption
    assert "3-way 1-shot" in figure.caption and "2 inner steps" in figure.caption


def reds(png: bytes, layout: Layout, n_tasks: int) -> np.ndarray:
    """Whether there is red under each query: [tasks, N, Q, methods]; and none anywhere else."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert image.shape[:2] == layout.size(n_tasks)[::-1]
    red = np.abs(image - RED).max(-1) < 40
    found = np.zeros([n_tasks, layout.n_way, layout.queries, layout.methods], bool)
    for t, label, i, m in np.ndindex(found.shape):
        left, top = layout.query_corner(drawing.MARGIN + t * layout.task_height, label, i)
        top += drawing.CELL + m * drawing.LINE
        strip = red[top : top + drawing.LINE, left : left + drawing.CELL]
        found[t, label, i, m] = strip.any()
        strip[:] = False
    return found, red


def grey_tasks(n_way=3, shots=1, queries=4, methods=2, n_tasks=2) -> list[Task]:
    """Tasks of grey images, so that all red is writing."""
    r = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_way), queries)
    names = [f"a class with a name of many letters {c}" for c in range(n_way)]
    return [
        Task(
            number=7 * t,
            names=names,
            support=r.uniform(size=(n_way * shots, 6, 6, 1)),
            query=r.uniform(size=(n_way * queries, 6, 6, 1)),
            labels=labels,
            predictions={f"method {m}": r.integers(0, n_way, len(labels)) for m in range(methods)},
        )
        for t in range(n_tasks)
    ]


@pytest.mark.parametrize("shape", [{}, {"shots": 5, "queries": 15, "n_way": 5}, {"queries": 1, "n_tasks": 1}])
def test_red_is_under_the_wrong_predictions_and_nowhere_else(shape):
    tasks = grey_tasks(**shape)
    found, left_over = reds(draw_tasks(tasks), Layout.of(tasks[0]), len(tasks))
    for t, label, i, m in np.ndindex(found.shape):
        guesses = tasks[t].predictions[f"method {m}"].reshape(found.shape[1:3])
        assert found[t, label, i, m] == (guesses[label, i] != label)
    assert not left_over.any()


@pytest.mark.parametrize("shots, queries", [(1, 15), (5, 15), (20, 15), (5, 1)])
def test_support_images_stand_apart_and_within_the_picture(shots, queries):
    layout = Layout(5, shots, queries, 2)
    corners = [layout.support_corner(0, c, i)[0] for c in range(5) for i in range(shots)]
    assert min(np.diff(corners)) > layout.support_cell >= 24
    assert corners[-1] + layout.support_cell < layout.size(1)[0]
    assert layout.size(1)[0] < 1400 or shots > 5


def test_images_are_drawn_where_the_layout_says():
    (task,) = grey_tasks(n_tasks=1)
    picture = np.asarray(Image.open(io.BytesIO(draw_tasks([task]))).convert("RGB"))
    layout = Layout.of(task)
    low, high = min(task.support.min(), task.query.min()), max(task.support.max(), task.query.max())
    left, top = layout.query_corner(drawing.MARGIN, 2, 3)
    cell = picture[top : top + drawing.CELL, left : left + drawing.CELL]
    np.testing.assert_array_equal(cell, np.asarray(drawing.pixels(task.query[11], low, high)))
    left, top = layout.support_corner(drawing.MARGIN, 1, 0)
    cell = picture[top : top + layout.support_cell, left : left + layout.support_cell]
    side = layout.support_cell
    np.testing.assert_array_equal(cell, np.asarray(drawing.pixels(task.support[1], low, high, side)))


def test_long_names_are_cut_and_short_ones_kept():
    assert drawing.cut("short", 200, 13) == "short"
    cut = drawing.cut("a name that goes on and on and on", 90, 13)
    assert cut.endswith("…") and drawing.font(13).getlength(cut) <= 90


def test_classes_of_a_mixture_keep_their_names(tmp_path):
    """Ids run through the train classes of one set, of the other, then through val and test alike."""
    tiny.write_patterns(tmp_path, "a", classes=4)
    tiny.write_patterns(tmp_path, "b", classes=3)
    specs = [store.DatasetSpec.load(tmp_path / name) for name in "ab"]
    specs = [dataclasses.replace(s, class_names=tuple(f"{s.name}-{n}" for n in s.class_names)) for s in specs]
    mixture = Mixture(("a", "b"), tuple(specs), (1.0, 1.0))
    listed = TaskList.draw(mixture, "test", EpisodeConfig(3, 1, 2), seed=0, n_tasks=12)
    names = predictions._class_names(mixture, listed)
    for task, dataset in zip(names, listed.datasets(mixture), strict=True):
        assert all(name.startswith(f"{dataset}-test-") for name in task)
    assert {name for task in names for name in task} == {
        *(f"a-test-{i}" for i in range(4)), *(f"b-test-{i}" for i in range(3))
    }  # fmt: skip


def test_a_data_set_without_test_classes_is_refused(folder, runs):
    without = folder / "without" / "patterns"
    shutil.copytree(folder / "data" / "patterns", without)
    spec = json.loads((without / SPEC_FILE).read_text())
    first = spec["classes_per_split"]["TRAIN"] + spec["classes_per_split"]["VALID"]
    spec["classes_per_split"]["TEST"] = 0
    del spec["tf_lwdgh"]["class_checksums"]
    for name in ("images_per_class", "class_names"):
        spec[name] = {k: v for k, v in spec[name].items() if int(k) < first}
    (without / SPEC_FILE).write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="split 'test' of data set 'patterns' has 0"):
        Predictions().draw(runs, data_dir=folder / "without")


def test_runs_on_other_tasks_are_refused(folder, runs):
    other = probed_runs.write_run(folder, "other", "K_SHOT = 2")[0]
    with pytest.raises(ValueError, match="same EpisodeConfig.k_shot: the list has 1. Received: 2"):
        Predictions().draw({**runs, "second": [other]}, data_dir=folder / "data")


def test_a_run_that_is_not_there_is_refused(folder, runs):
    with pytest.raises(FileNotFoundError, match="--run_dir must be a folder.*nowhere"):
        Predictions(methods=["third", "first"]).draw(runs, data_dir=folder / "data")
