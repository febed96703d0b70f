# SPDX-License-Identifier: Apache-2.0
"""One writer: TensorBoard and metrics.jsonl say the same, also after a resume."""

from __future__ import annotations

import glob
import io
import json
import math
import re
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator as event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.data import pipeline
from tf_lwdgh.runs import charts, readback, summaries
from tf_lwdgh.runs.constant_metrics import constant_metrics
from tf_lwdgh.runs.pictures import RIGHT, WRONG, episode_picture
from tf_lwdgh.runs.summaries import RunLog, read_metrics
from tf_lwdgh.runs.tags import FIRST, HIGH, LOW, Tags

ALL = Tags(per_layer=True)


def _events(run_dir):
    accumulator = event_accumulator.EventAccumulator(
        str(run_dir), size_guidance={"tensors": 0}
    )
    return accumulator.Reload()


def _restarted(run_dir, at: int) -> RunLog:
    """A resumed run's log, a second later: TensorBoard reads files in the order of their seconds."""
    time.sleep(1 - time.time() % 1)
    return RunLog(run_dir, resumed_at=at)


def _scalars(run_dir) -> dict[int, dict[str, float]]:
    accumulator, found = _events(run_dir), {}
    for tag in accumulator.Tags()["tensors"]:
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            for event in accumulator.Tensors(tag):
                value = float(tensor_util.make_ndarray(event.tensor_proto))
                found.setdefault(event.step, {})[tag] = value
    return found


def test_tensorboard_and_json_lines_hold_the_same_scalars(tmp_path):
    with RunLog(tmp_path, tags=ALL) as log:
        log.scalars(1, {"train/loss": 1.25, "gci/a": 0.1})
        log.scalars(2, {"train/loss": 1.5})
    lines = {line.pop("step"): line for line in read_metrics(tmp_path)}
    events = _scalars(tmp_path)
    assert lines.keys() == events.keys()
    for step in lines:
        assert events[step] == pytest.approx({ALL.of(name): v for name, v in lines[step].items()})


def test_tensorboard_opens_on_loss_and_accuracy_and_leaves_out_units_and_constants(tmp_path):
    values = {
        "train/loss": 1.5, "val/accuracy": 0.5, "val/interval95": 0.125, "gci/conv1/kernel": 1.0,
        "gci/total": 2.0, "learning_rate/outer": 0.1, "speed/tasks_per_second": 3.0,
    }  # fmt: skip
    with RunLog(tmp_path, tags=Tags(constant=("learning_rate/",))) as log:
        log.scalars(1, values)
    assert read_metrics(tmp_path) == [{"step": 1, **values}]
    assert _scalars(tmp_path)[1] == {
        "0_summary/train/loss": 1.5, "0_summary/val/accuracy": 0.5, "gci/total": 2.0,
        LOW: 0.375, HIGH: 0.625, "speed/tasks_per_second": 3.0,
    }  # fmt: skip
    assert min(_events(tmp_path).Tags()["tensors"]).startswith(FIRST)


CONSTANT = [
    ((), {"learning_rate/outer"}),
    (("Experiment.aggregator = @Mean()", "Experiment.explore = None"),
     {"learning_rate/outer", "update_cosine/", "attention/", "attention_max/", "explore/"}),
    (("LearningRate.decay = 'cosine'",), set()),
    (("ExploreExploit.mode = 'fixed'", "ExploreExploit.transition = 1.0"),
     {"learning_rate/outer", "update_cosine/", "attention/", "attention_max/", "explore/probability",
      "explore/flag"}),
    (("ExploreExploit.p_min = 0.5", "ExploreExploit.p_max = 0.5"),
     {"learning_rate/outer", "explore/probability"}),
    (("ExploreExploit.mode = 'off'", "META_BATCH_SIZE = 1"),
     {"learning_rate/outer", "update_cosine/", "attention/", "attention_max/", "gci/", "conflict_rate/",
      "strong_conflict_rate/", "explore/"}),
]  # fmt: skip


@pytest.mark.parametrize(("params", "expected"), CONSTANT, ids=range(len(CONSTANT)))
def test_what_cannot_change_is_known_by_the_settings_and_does_not(params, expected, tmp_path):
    """Four steps of each experiment: what is said to be constant is, whatever its name begins with."""
    short = ("convnet4.fused = False", "convnet4.blocks = 1", "InnerLoop.second_order = False")
    assembly = tiny.build(tmp_path, *params, *short)
    n_tasks = assembly.outer.meta_batch_size
    found = set(constant_metrics(assembly.experiment, n_tasks))
    assert found == expected
    source = assembly.source("train")
    batches = pipeline.meta_batches(source, assembly.episode, meta_batch_size=n_tasks, seed=0, end_step=4)
    window = [assembly.meta_step(b, tf.constant(i, tf.int64)) for i, b in enumerate(batches)]
    arrays = readback.read(window)
    for start in found:
        of_start = {name: a for name, a in arrays.items() if name.startswith(start)}
        absent = {"attention_max/"} | ({"attention/", "explore/"} if not assembly.meta_step.explore else set())
        assert of_start or start in absent, start
        for name, array in of_start.items():
            np.testing.assert_allclose(array, np.full_like(array, array.flat[0]), atol=2e-6, err_msg=name)


def test_a_resume_drops_what_came_after_the_checkpoint_everywhere(tmp_path):
    with RunLog(tmp_path) as log:
        for step in range(1, 6):
            log.scalars(step, {"train/loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "train/l')  # killed within a line
    with _restarted(tmp_path, at=3) as log:
        log.scalars(4, {"train/loss": 40.0})
    assert [(m["step"], m["train/loss"]) for m in read_metrics(tmp_path)] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0),
    ]  # fmt: skip
    assert {s: v["0_summary/train/loss"] for s, v in _scalars(tmp_path).items()} == {1: 1, 2: 2, 3: 3, 4: 40}


def test_a_run_that_starts_anew_drops_all_lines(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(1, {"train/loss": 1.0})
    RunLog(tmp_path).__exit__()
    assert read_metrics(tmp_path) == []


def test_a_value_that_is_not_finite_is_null_in_json(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(1, {"val/loss": math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda c: pytest.fail(c)) == {"step": 1, "val/loss": None}


def test_histograms_images_text_and_charts_reach_tensorboard(tmp_path):
    png, size = episode_picture(*_episode(), n_way=2)
    with RunLog(tmp_path, tags=ALL) as log:
        log.scalars(3, {"gci/a": 1.0})
        log.histograms(3, {"attention/a": np.array([0.25, 0.5, 0.25]), "gci/a": np.ones(2)})
        log.image(3, "val/episode", png, size)
        log.text(0, "config/full", "    A.b = 1")
        log.charts(charts.layout(ALL))
    accumulator = _events(tmp_path)
    plugins = {
        tag: accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        for tag in accumulator.Tags()["tensors"]
    }
    assert plugins["attention/a"] == plugins["gci_histogram/a"] == "histograms"
    assert plugins["gci/a"] == "scalars"
    assert plugins["val/episode"] == "images"
    assert plugins["config/full"] == "text"
    assert plugins["custom_scalars__config__"] == "custom_scalars"
    buckets = tensor_util.make_ndarray(accumulator.Tensors("attention/a")[0].tensor_proto)
    assert buckets[:, 2].sum() == 3
    assert glob.glob(str(tmp_path / "events.*"))


def test_the_hparams_page_has_a_folder_of_its_own_with_the_results_and_no_list_of_columns(tmp_path):
    with RunLog(tmp_path) as log:
        log.hparams({"InnerLoop.steps": 5, "Experiment.aggregator": "Mean"}, "r")
        log.scalars(4, {"train/loss": 1.0})
        log.result(4, {"result/best_accuracy": 0.5})
        log.result(8, {"result/best_accuracy": 0.75})
    found = event_accumulator.EventAccumulator(str(tmp_path / "result")).Reload()
    assert set(found.Tags()["tensors"]) == {"_hparams_/session_start_info", "result/best_accuracy"}
    last = found.Tensors("result/best_accuracy")[-1]
    assert last.step == 8 and float(tensor_util.make_ndarray(last.tensor_proto)) == 0.75
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.group_name == "r"
    assert start.hparams["InnerLoop.steps"].number_value == 5
    assert start.hparams["Experiment.aggregator"].string_value == "Mean"
    assert set(_events(tmp_path).Tags()["tensors"]) == {"0_summary/train/loss"}


def test_results_after_the_checkpoint_are_dropped_on_a_resume(tmp_path):
    with RunLog(tmp_path) as log:
        for step in (4, 8):
            log.result(step, {"result/best_accuracy": step / 10})
    with _restarted(tmp_path, at=4) as log:
        log.result(6, {"result/best_accuracy": 0.6})
    found = event_accumulator.EventAccumulator(str(tmp_path / "result")).Reload()
    assert [e.step for e in found.Tensors("result/best_accuracy")] == [4, 6]


def test_hparams_are_what_the_files_and_the_command_bound_as_values(tmp_path):
    tiny.build(tmp_path, "LWDGH.temperature = 0.5", "InnerLoop.inner_lr = {'head': 0.1}")
    values = summaries.hparam_values(config.settings(), config.full_text())
    assert values["Experiment.aggregator"] == "LWDGH"
    assert values["explore"] is True and "Experiment.explore" not in values
    assert values["Experiment.optimizer"] == "Adam"
    assert values["EpisodeConfig.n_way"] == 3  # a macro
    assert values["LWDGH.temperature"] == 0.5
    assert values["InnerLoop.inner_lr"] == "{'head': 0.1}"
    assert values["InnerLoop.second_order"] is True
    assert list(values) == sorted(values)  # as TensorBoard sorts them
    assert "LWDGH.scale" not in values  # a default
    assert "DatasetConfig.name" in values and "Evaluation.inner_steps" not in values
    assert not any("resnet12" in name for name in values)


def test_a_part_in_use_only_in_some_runs_is_a_hparam_of_those_alone(tmp_path):
    def values(*params):
        tiny.build(tmp_path, *params)
        return summaries.hparam_values(config.settings(), config.full_text())

    plain = ("Experiment.aggregator = @Mean()", "Experiment.explore = None")
    mean = values(*plain, "LWDGH.unit = 'layer'")
    assert mean["Experiment.aggregator"] == "Mean" and mean["explore"] is False
    assert not any(name.startswith(("LWDGH.", "ExploreExploit.")) for name in mean)
    assert "ExploreExploit.transition" in values()


def test_the_seed_is_a_hparam_even_where_nothing_binds_it():
    settings = {"Experiment.seed": "0", "InnerLoop.steps": "5"}
    assert summaries.hparam_values(settings, "") == {"Experiment.seed": 0, "explore": False}


def test_hparams_tell_lwdgh_from_lwdgh_with_explore_exploit(tmp_path):
    def values(*params):
        tiny.build(tmp_path, *params)
        return summaries.hparam_values(config.settings(), config.full_text())

    found = [values(), values("Experiment.explore = None"), values("ExploreExploit.mode = 'off'")]
    assert [v["explore"] for v in found] == [True, False, False]
    assert {v["Experiment.aggregator"] for v in found} == {"LWDGH"}


def test_every_chart_shows_something_that_a_meta_step_or_a_validation_logs():
    tags = [
        "train/accuracy", "val/accuracy", "train/loss", "val/loss", "learning_rate/outer",
        "explore/probability", "speed/tasks_per_second", "update_cosine/conv1/kernel",
        "attention_max/conv1/kernel",
    ]  # fmt: skip
    for group in ("gci", "conflict_rate", "strong_conflict_rate", "gradient_norm"):
        tags += [f"{group}/total", f"{group}/conv1/kernel"]
    tags = [ALL.of(tag) for tag in (*tags, "update_cosine/total", "attention_max/total")]
    (band,), shown = _charts(ALL, tags)
    assert all(shown)
    assert sorted(sum(shown, [])) == sorted(tags)  # each in one chart
    assert (band.value, band.lower, band.upper) == ("0_summary/val/accuracy", LOW, HIGH)


def _charts(tags, names):
    """The series of the chart with a band, and of each other chart those of some tags that it shows."""
    found = [chart for category in charts.layout(tags).category for chart in category.chart]
    bands = [chart.margin.series for chart in found if chart.HasField("margin")]
    lines = [
        [n for n in names if any(re.match(pattern, n) for pattern in chart.multiline.tag)]
        for chart in found if chart.HasField("multiline")
    ]  # fmt: skip
    return bands[0], lines


def test_there_is_no_chart_of_what_is_not_shown():
    plain = charts.layout(Tags(constant=("learning_rate/outer", "explore/")))
    _, progress = plain.category
    titles = {chart.title for chart in progress.chart}
    assert "accuracy" in titles and not {"outer learning rate", "probability of exploring"} & titles


def _episode():
    images = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)
    return images[:2], images[2:], np.array([0, 1, 1, 0])


def test_the_picture_frames_right_green_and_wrong_red():
    png, (width, height) = episode_picture(*_episode(), n_way=2)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert pixels.shape == (height, width, 3)
    for color in (RIGHT, WRONG):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == wanted).all(-1).sum() > 50


def test_a_picture_of_right_answers_has_no_red():
    support, query, _ = _episode()
    png, _ = episode_picture(support, query, np.array([0, 0, 1, 1]), n_way=2)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert not (pixels == [int(WRONG[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).any()


def _arrays(loss, norm=(1.0, 1.0)):
    return {"train/loss": np.array(loss), "gradient_norm/total": np.array(norm)}


def test_a_loss_that_is_not_finite_names_the_step_and_the_window():
    with pytest.raises(readback.NonFiniteError, match="train/loss is nan at step 12 .*steps 11 to 12"):
        readback.check_finite(_arrays([1.0, math.nan]), 11)


def test_an_update_that_is_not_finite_is_found():
    with pytest.raises(readback.NonFiniteError, match="gradient_norm/total is inf at step 1"):
        readback.check_finite(_arrays([1.0, 1.0], [math.inf, 1.0]), 1)


def test_scalars_are_means_over_the_window_weights_means_of_the_largest_and_matrices_left_out():
    arrays = {
        "train/loss": np.array([1.0, 2.0]),
        "attention/a": np.array([[0.25, 0.75], [0.5, 0.5]]),
        "cosines/a": np.ones([2, 2, 2]),
    }
    found = readback.scalars(arrays)
    assert found == {"train/loss": 1.5, "attention_max/a": 0.625, "attention_max/total": 0.625}


def test_weights_and_cosines_of_the_update_have_a_mean_over_the_units():
    arrays = {f"attention/{u}": np.array([[w, 1 - w]]) for u, w in (("a", 0.75), ("b", 0.5))}
    arrays |= {"update_cosine/a": np.array([1.0]), "update_cosine/b": np.array([0.5])}
    found = readback.scalars(arrays)
    assert found["attention_max/total"] == 0.625 and found["update_cosine/total"] == 0.75


def _window():
    """Three meta-steps, of which the first two exploited."""
    return [
        {
            "train/loss": tf.constant(float(i)),
            "explore/flag": tf.constant(float(i == 2)),
            "attention/conv1/kernel": tf.constant([0.25, 0.75]),
            "cosines/conv1/kernel": tf.fill([2, 2], float(i)),
        }
        for i in range(3)
    ]


def test_matrices_are_not_read_with_the_window_nor_made_histograms():
    arrays = readback.read(_window())
    assert set(arrays) == {"train/loss", "explore/flag", "attention/conv1/kernel"}
    assert arrays["attention/conv1/kernel"].shape == (3, 2)
    assert set(readback.histograms([arrays, arrays])) == {"attention/conv1/kernel"}
    assert readback.histograms([{**arrays, "cosines/a": np.ones([3, 2, 2])}]).keys() == {
        "attention/conv1/kernel"
    }


def test_metrics_of_one_step_by_unit():
    found = readback.by_unit(_window()[1], "cosines")
    assert list(found) == ["conv1/kernel"]
    np.testing.assert_array_equal(found["conv1/kernel"], np.ones([2, 2]))


def test_a_picture_shows_the_last_step_that_exploited_else_the_last():
    window = _window()
    assert readback.to_show(window, 11) == (12, window[1])
    assert readback.to_show(window[2:], 13) == (13, window[2])
    plain = [{"train/loss": tf.constant(0.0)}] * 3
    assert readback.to_show(plain, 1)[0] == 3
