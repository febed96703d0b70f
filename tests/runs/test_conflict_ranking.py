# SPDX-License-Identifier: Apache-2.0
"""Ranking layers by conflict: counts worked out by hand, and a run that was trained."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.learners import Recon
from tf_lwdgh.runs import conflict_ranking
from tf_lwdgh.runs.conflict_ranking import GROUP, layer_rates
from tf_lwdgh.runs.experiment import CONFIG_FILE, Experiment
from tf_lwdgh.runs.summaries import METRICS_FILE
from tf_lwdgh.runs.trainer import Trainer

LAYER_OF = {
    "conv1/kernel": "conv1",
    "norm1/gamma": "norm1",
    "norm1/beta": "norm1",
    "head/kernel": "head",
}


def line(step, **rates):
    return {"step": step, "train/loss": 1.0, **{f"{GROUP}/{k}": v for k, v in rates.items()}}


def of_layers(step, conv1, head):
    return line(step, conv1=conv1, head=head, total=9.0)


def test_windows_count_by_their_steps():
    """2 steps at 0.5, then 6 at 0.1: 1.6 of 8; what ends after the first 8 steps doesn't count."""
    lines = [of_layers(2, 0.5, 0.0), of_layers(8, 0.1, 0.3), of_layers(10, 1.0, 1.0)]
    rates, counted = layer_rates(lines, LAYER_OF, 9)
    assert rates == pytest.approx({"conv1": 0.2, "head": 0.225}) and counted == 8


def test_a_layer_gets_the_mean_over_its_variables_and_other_units_are_left_out():
    own = {"inner_lr/conv1/kernel": 1.0, "total": 1.0}
    values = {"conv1/kernel": 0.3, "norm1/gamma": 0.4, "norm1/beta": 0.1, "head/kernel": 0.2}
    rates, _ = layer_rates([line(4, **values, **own)], LAYER_OF, 4)
    assert rates == pytest.approx({"conv1": 0.3, "norm1": 0.25, "head": 0.2})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the run has to reach step 5 first. Received: step 0"),
        ([of_layers(4, 0, 0)], "the run has to reach step 5 first. Received: step 4"),
        ([of_layers(6, 0, 0)], "TrainerConfig.log_every.*Received: a first line at step 6"),
        ([{"step": 5}], "ConflictReport.cosines = True.*Received: units none"),
        ([line(5, model=0.1)], "whose unit is 'layer' or 'variable'. Received: units model"),
        ([of_layers(5, None, 0)], f"step 5 of the metrics has no {GROUP}/conv1"),
    ],
)
def test_metrics_that_cannot_be_ranked_are_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        layer_rates(lines, LAYER_OF, 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The settings and metrics of a run of 12 steps of 3 tasks, as training writes them."""
    folder = tmp_path_factory.mktemp("ranking")
    tiny.build(folder)
    run_dir = folder / "run"
    run_dir.mkdir()
    (run_dir / CONFIG_FILE).write_text(config.full_text())
    rates = {"conv1/kernel": 0.0, "conv2/kernel": 0.6, "norm2/gamma": 0.9}
    rates |= {"head/kernel": 0.2, "head/bias": 0.3}
    lines = [line(s, **rates) for s in range(1, 4)] + [line(12, **dict.fromkeys(rates, 1.0))]
    (run_dir / METRICS_FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    config.clear()
    return run_dir


def test_the_layers_that_can_move_are_ranked_over_the_first_quarter(run):
    ranking = conflict_ranking.of_run(run)
    assert [layer.name for layer in ranking.layers] == ["conv2", "head", "conv1"]  # and no norm2
    assert [layer.pairs for layer in ranking.layers] == pytest.approx([5.4, 2.25, 0])  # of 3 · 3
    assert (ranking.steps, ranking.threshold) == (3, -0.1)
    later = conflict_ranking.of_run(run, share=1.0)
    assert later.layers[0].rate == pytest.approx((3 * 0.6 + 9) / 12) and later.steps == 12
    with pytest.raises(ValueError, match=r"--share must be in \(0, 1\]. Received: 0"):
        conflict_ranking.of_run(run, share=0)


@pytest.mark.parametrize("control", ["ranked", "random"])
def test_the_bindings_build_what_they_say(control):
    if control == "ranked":
        bindings = conflict_ranking.bindings(["conv2", "head"])
    else:
        bindings = conflict_ranking.random_bindings(2, seed=5)
    config.parse(["gin/base.gin", "gin/learners/recon.gin"], bindings)
    learner = Experiment().learner
    assert isinstance(learner, Recon) and learner.control == control
    expected = {"ranked": (("conv2", "head"), None, 0), "random": ((), 2, 5)}[control]
    assert (learner.layers, learner.n_layers) == expected[:2]
    assert control == "ranked" or learner.seed == 5


def tool(*flags):
    """What tools/rank_layers.py prints."""
    path = pathlib.Path(__file__).parents[2] / "tools" / "rank_layers.py"
    spec = importlib.util.spec_from_file_location("rank_layers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rank(module.parse(list(flags)))


def test_the_tool_prints_the_ranking_and_the_bindings(run):
    text = tool(f"--run_dir={run}", "--count=2").splitlines()
    assert text[0] == "pairs of tasks with a cosine below -0.1, in 3 meta-steps:"
    assert text[1].split() == ["conv2", "5", "60.00", "%"]
    assert "--gin_param=\"Recon.layers = ('conv2', 'head')\"" in text
    control = tool(f"--run_dir={run}", "--count=2", "--random", "--seed=7")
    assert '--gin_param="Recon.seed = 7"' in control
    with pytest.raises(ValueError, match="--count must be 1 to 3.*Received: 4"):
        tool(f"--run_dir={run}", "--count=4")


@pytest.mark.slow
def test_a_run_that_was_trained_can_be_ranked(tmp_path):
    assembly = tiny.build(
        tmp_path, "EPOCHS = 1", "TrainerConfig.validate_every = 0", "LWDGH.unit = 'layer'",
        "convnet4.fused = False",
    )
    Trainer(assembly, str(tmp_path / "run")).run()
    config.clear()
    command = [sys.executable, "tools/rank_layers.py", f"--run_dir={tmp_path / 'run'}", "--count=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *ranked = done.stdout.partition("\n\n")[0].splitlines()
    assert header.endswith("in 1 meta-steps:")
    assert {row.split()[0] for row in ranked} == {"conv1", "conv2", "head"}
    rates = [float(row.split()[2]) for row in ranked]
    assert rates == sorted(rates, reverse=True) and all(0 <= r <= 100 for r in rates)
