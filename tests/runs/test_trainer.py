# SPDX-License-Identifier: Apache-2.0
"""The trainer: what it leaves behind, and that a stop, a crash or a kill changes nothing."""

from __future__ import annotations

import io
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import readback
from tf_lwdgh.runs.checkpoints import CheckpointError
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.runs.progress import Progress
from tf_lwdgh.runs.summaries import read_metrics
from tf_lwdgh.runs.trainer import Trainer, TrainingDiverged

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data set."""
    path = tmp_path_factory.mktemp("trainer")
    tiny.write_patterns(path / "data")
    return path


@pytest.fixture(scope="module")
def whole(folder):
    """A run that nothing interrupted, and what it printed."""
    printed = io.StringIO()
    _train(folder, "whole", printed=printed)
    return folder / "whole", printed.getvalue()


def _train(folder, name, *gin_params, stop=lambda: False, printed=None):
    trainer = Trainer(tiny.build(folder, *gin_params), str(folder / name))
    progress = Progress(
        total=trainer.assembly.total_steps, done=trainer.at.step, tasks_per_step=3,
        stream=printed or io.StringIO(),
    )  # fmt: skip
    return trainer.run(stop=stop, progress=progress)


def _lines(run_dir):
    """metrics.jsonl without what a clock measured."""
    return [
        {k: v for k, v in line.items() if not k.startswith("speed/")}
        for line in read_metrics(run_dir)
    ]


def test_every_step_has_one_line_with_the_promised_scalars(whole):
    lines = _lines(whole[0])
    assert [line["step"] for line in lines] == list(range(1, 13))
    for key in ("train/loss", "train/accuracy", "gci/conv1/kernel", "gci/total", "learning_rate/outer",
                "attention_max/conv1/kernel", "explore/probability", "explore/flag",
                "gradient_norm/conv1/kernel", "gradient_norm/total", "update_cosine/conv1/kernel",
                "conflict_rate/conv1/kernel", "conflict_rate/total", "strong_conflict_rate/total"):  # fmt: skip
        assert all(key in line for line in lines), key
    assert [line["step"] for line in lines if "val/accuracy" in line] == [4, 8, 12]


def test_the_run_folder_holds_what_it_should(whole):
    run_dir = whole[0]
    assert {"config.gin", "operative.gin", "metrics.jsonl", "checkpoints", "best", "result"} <= {
        p.name for p in run_dir.iterdir()
    }
    assert sorted(os.listdir(run_dir / "checkpoints")) == ["step-00000008", "step-00000012"]
    (best,) = os.listdir(run_dir / "best")
    values = {line["step"]: line["val/accuracy"] for line in _lines(run_dir) if "val/accuracy" in line}
    first_best = min(s for s, v in values.items() if v == max(values.values()))
    assert best == f"step-{first_best:08d}"


def test_plain_lines_are_printed_where_there_is_no_terminal(whole):
    lines = whole[1].splitlines()
    (last,) = [line for line in lines if line.startswith("step 12/12: ")]
    assert "loss " in last and "accuracy " in last and "tasks/s" in last and "left" in last
    assert any(line.startswith("step 12: validation accuracy") for line in lines)


@pytest.mark.parametrize("name", ["config.gin", "operative.gin"])
def test_a_saved_config_builds_the_same_experiment(whole, folder, name):
    config.parse([str(whole[0] / name)])
    assembly = Experiment().build(folder / "data")
    again = tiny.build(folder)
    for part in ("episode", "image", "outer", "dataset"):
        assert getattr(assembly, part) == getattr(again, part)
    assert assembly.experiment.aggregator == again.experiment.aggregator
    assert assembly.experiment.explore == again.experiment.explore
    assert assembly.learner == again.learner


def test_the_step_is_traced_once(folder):
    trainer = Trainer(tiny.build(folder, "TrainerConfig.validate_every = 0"), str(folder / "traced"))
    trainer.run(progress=Progress(total=12, tasks_per_step=3, stream=io.StringIO()))
    assert trainer.meta_step.traces == 1


def test_a_stopped_run_goes_on_to_the_bit(folder, whole):
    asked = iter([False, False, False, False, True])
    at = _train(folder, "stopped", stop=lambda: next(asked))
    assert at.step == 5
    _train(folder, "stopped")
    assert _lines(folder / "stopped") == _lines(whole[0])


def test_a_finished_run_has_nothing_left_to_do(folder, whole):
    printed = io.StringIO()
    before = (whole[0] / "metrics.jsonl").read_bytes()
    _train(folder, "whole", printed=printed)
    assert "all 12 steps are done" in printed.getvalue()
    said = printed.getvalue()
    assert f"Experiment.start = '{whole[0]}'" in said and "epochs" not in said  # it explores
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_a_damaged_newest_checkpoint_costs_time_but_changes_nothing(folder, whole, caplog):
    run_dir = folder / "damaged"
    shutil.copytree(whole[0], run_dir)
    data = run_dir / "checkpoints" / "step-00000012" / "state.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    _train(folder, "damaged")
    assert "step-00000012 is not whole" in caplog.text
    assert _lines(run_dir) == _lines(whole[0])


def test_only_damaged_checkpoints_stop_the_run_before_anything_is_touched(folder, whole):
    run_dir = folder / "all_damaged"
    shutil.copytree(whole[0], run_dir)
    for path in run_dir.glob("checkpoints/*/state.index"):
        path.unlink()
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        _train(folder, "all_damaged")
    assert _lines(run_dir) == _lines(whole[0])


def test_changed_settings_are_refused_with_both_values(folder, whole):
    with pytest.raises(ValueError, match=r"LWDGH.temperature: was 1.0, now 2.0"):
        _train(folder, "whole", "LWDGH.temperature = 2.0")


def test_a_changed_data_set_is_refused(folder, whole, tmp_path):
    tiny.write_patterns(tmp_path / "data", images=13)
    shutil.copytree(whole[0], tmp_path / "whole")
    with pytest.raises(ValueError, match="started on another data set: its fingerprint was"):
        _train(tmp_path, "whole")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(folder):
    trainer = Trainer(tiny.build(folder), str(folder / "diverged"))
    step = trainer.meta_step

    def spoiled(episodes, number):
        metrics = dict(step(episodes, number))
        if int(number) == 5:
            metrics["train/loss"] = tf.constant(np.nan)
        return metrics

    trainer.meta_step = spoiled
    progress = Progress(total=12, tasks_per_step=3, stream=io.StringIO())
    with pytest.raises(TrainingDiverged, match="step 6 .*The checkpoint of step 4 is intact"):
        trainer.run(progress=progress)
    assert Trainer(tiny.build(folder), str(folder / "diverged")).at.step == 4
    assert [line["step"] for line in _lines(folder / "diverged")] == [1, 2, 3, 4, 5]


def test_windows_end_where_something_is_due(folder):
    trainer = Trainer(
        tiny.build(folder, "TrainerConfig.log_every = 3", "TrainerConfig.checkpoint_every = 5"),
        str(folder / "windows"),
    )
    ends, step = [], 0
    while step < 12:
        step = trainer._next_boundary(step)
        ends.append(step)
    assert ends == [3, 4, 5, 6, 8, 9, 10, 12]


def test_what_histograms_wait_for_is_bounded_without_validation(folder, monkeypatch):
    waited, histograms = [], readback.histograms
    monkeypatch.setattr(readback, "histograms", lambda kept: waited.append(len(kept)) or histograms(kept))
    _train(folder, "unjudged", "TrainerConfig.validate_every = 0", "TrainerConfig.checkpoint_every = 3")
    assert waited == [3] * 4


def test_no_number_of_a_step_stays_in_tensorflow(folder, monkeypatch):
    """Each Python number that is made a tensor takes 650 bytes for ever; NumPy's do not."""
    made, constant = [], tf.constant

    def noted(value, *rest, **named):
        if tf.executing_eagerly():
            made.append(value)
        return constant(value, *rest, **named)

    trainer = Trainer(tiny.build(folder), str(folder / "constants"))
    monkeypatch.setattr(tf, "constant", noted)
    trainer.run(progress=Progress(total=12, tasks_per_step=3, stream=io.StringIO()))
    assert {int(v) for v in made if np.ndim(v) == 0} >= set(range(12))
    assert not [v for v in made if type(v) in (int, float)]


def _command(folder, name):
    return [
        sys.executable, "-m", "tf_lwdgh.train", f"--gin_file={folder / 'tiny.gin'}",
        f"--run_dir={folder / name}", f"--data_dir={folder / 'data'}",
        "--gin_param=EPOCHS = 15", "--gin_param=TrainerConfig.checkpoint_every = 3",
    ]  # fmt: skip


@pytest.mark.slow  # the stop above, and twenty kills of tests.faults
def test_a_run_that_is_killed_at_a_random_moment_ends_as_if_nothing_had_been(folder):
    tiny.write_gin(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shared = {"cwd": folder, "env": environment, "stderr": subprocess.PIPE, "text": True}
    calm = subprocess.Popen(_command(folder, "calm"), **shared)  # meanwhile
    generator = random.Random(int.from_bytes(os.urandom(4), "little"))
    _kill_at(folder, environment, generator.randint(1, 50), generator.uniform(0, 0.05))
    for process in (calm, subprocess.Popen(_command(folder, "killed"), **shared)):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert _lines(folder / "killed") == _lines(folder / "calm")
    weights = [_manifest(folder / name)["files"] for name in ("calm", "killed")]
    assert weights[0]["state.data-00000-of-00001"] == weights[1]["state.data-00000-of-00001"]


def _manifest(run_dir):
    newest = sorted((run_dir / "checkpoints").iterdir())[-1]
    return json.loads((newest / "manifest.json").read_text())


def _kill_at(folder, environment, lines: int, delay: float) -> None:
    """Starts the run and kills it once it has logged so many lines, and a moment later."""
    metrics = folder / "killed" / "metrics.jsonl"
    process = subprocess.Popen(
        _command(folder, "killed"), cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
