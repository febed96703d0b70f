"""One writer: TensorBoard and metrics.jsonl say the same, also after a resume."""

from __future__ import annotations

import glob
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator as event_accumulator
from tensorboard.util import tensor_util

from tf_lwdgh.runs import readback, summaries
from tf_lwdgh.runs.pictures import RIGHT, WRONG, episode_picture
from tf_lwdgh.runs.summaries import RunLog, read_metrics


def _events(run_dir):
    accumulator = event_accumulator.EventAccumulator(
        str(run_dir / "tensorboard"), size_guidance={"tensors": 0}
    )
    return accumulator.Reload()


def _scalars(run_dir) -> dict[int, dict[str, float]]:
    accumulator, found = _events(run_dir), {}
    for tag in accumulator.SummaryMetadata("train/loss") and accumulator.Tags()["tensors"]:
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            for event in accumulator.Tensors(tag):
                value = float(tensor_util.make_ndarray(event.tensor_proto))
                found.setdefault(event.step, {})[tag] = value
    return found


def test_tensorboard_and_json_lines_hold_the_same_scalars(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(1, {"train/loss": 1.25, "gci/a": 0.1})
        log.scalars(2, {"train/loss": 1.5})
    lines = {line.pop("step"): line for line in read_metrics(tmp_path)}
    events = _scalars(tmp_path)
    assert lines.keys() == events.keys()
    for step in lines:
        assert events[step] == pytest.approx(lines[step])


def test_a_resume_drops_what_came_after_the_checkpoint_everywhere(tmp_path):
    with RunLog(tmp_path) as log:
        for step in range(1, 6):
            log.scalars(step, {"train/loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "train/l')  # killed within a line
    with RunLog(tmp_path, resumed_at=3) as log:
        log.scalars(4, {"train/loss": 40.0})
    assert [(m["step"], m["train/loss"]) for m in read_metrics(tmp_path)] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0),
    ]  # fmt: skip
    assert {s: v["train/loss"] for s, v in _scalars(tmp_path).items()} == {1: 1, 2: 2, 3: 3, 4: 40}


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


def test_histograms_images_text_and_hparams_reach_tensorboard(tmp_path):
    png, size = episode_picture(*_episode(), n_way=2)
    with RunLog(tmp_path) as log:
        log.histograms(3, {"weights/a": np.array([0.25, 0.5, 0.25])})
        log.image(3, "val/episode", png, size)
        log.text(0, "config/full", "    A.b = 1")
        log.hparams({"InnerLoop.steps": 5, "Experiment.aggregator": "Mean"}, "r")
    accumulator = _events(tmp_path)
    plugins = {
        tag: accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        for tag in accumulator.Tags()["tensors"]
    }
    assert plugins["weights/a"] == "histograms"
    assert plugins["val/episode"] == "images"
    assert plugins["config/full"] == "text"
    assert "_hparams_/session_start_info" in plugins
    buckets = tensor_util.make_ndarray(accumulator.Tensors("weights/a")[0].tensor_proto)
    assert buckets[:, 2].sum() == 3
    assert glob.glob(str(tmp_path / "tensorboard" / "events.*"))


def test_hparams_are_values_and_name_what_usually_differs():
    values = summaries.hparam_values(
        {"Experiment.aggregator": "@LWDGH()", "InnerLoop.steps": "5", "LearningRate.rate": "0.1"}
    )
    assert values["Experiment.aggregator"] == "LWDGH"
    assert values["InnerLoop.steps"] == 5
    assert values["LearningRate.rate"] == 0.1
    assert list(values)[0] == "Experiment.aggregator"


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


def test_scalars_are_means_over_the_window_and_weights_means_of_the_largest():
    arrays = {"train/loss": np.array([1.0, 2.0]), "weights/a": np.array([[0.25, 0.75], [0.5, 0.5]])}
    assert readback.scalars(arrays) == {"train/loss": 1.5, "weights_max/a": 0.625}
