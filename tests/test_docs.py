# SPDX-License-Identifier: Apache-2.0
"""The documents' Python runs: the methods that they define learn, aggregate, train, evaluate and export."""

import pathlib
import re
import sys

import numpy as np
import tensorflow as tf

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.runs.judge import judge
from tf_lwdgh.runs.trainer import Trainer
from tf_lwdgh.serving import saved_models
from tf_lwdgh.types import Clock

DOCS = pathlib.Path(__file__).parent.parent / "docs"
MINE = """
import my_methods
Experiment.aggregator = @Median()
Experiment.learner = @OneRate()
OneRate.inner_loop = @InnerLoop()
OneRate.batch_norm = %BATCH_NORM
"""


def snippets(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_documented_methods_work_from_a_module_of_the_users_own(tmp_path, monkeypatch):
    median, by_length, one_rate, data_set = snippets("extending.md")
    (tmp_path / "my_methods.py").write_text(median + by_length + one_rate, encoding="utf-8")
    (tmp_path / "mine.gin").write_text(MINE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    tiny.write_patterns(tmp_path / "data")
    config.parse([tiny.write_gin(tmp_path), "mine.gin"], ["EPOCHS = 1"])
    assembly = Experiment().build(tmp_path / "data")
    rate = assembly.parameters.own["rate"]
    before = float(rate.numpy())
    Trainer(assembly, str(tmp_path / "run")).run()
    assert float(rate.numpy()) != before
    result, _ = judge(tmp_path / "run", data_dir=tmp_path / "data", gin_params=["Evaluation.n_tasks = 3"], show=False)
    assert "OneRate with 2 inner steps" in str(result)
    config.clear()
    saved_models.save(saved_models.from_run(str(tmp_path / "run"), "best"), str(tmp_path / "out"))
    assert (tmp_path / "out/saved_model.pb").exists()
    check_aggregators(sys.modules["my_methods"])
    exec(compile(data_set, "extending.md", "exec"), {})
    assert (tmp_path / "data/noise/dataset_spec.json").exists()


def check_aggregators(module):
    rows = np.random.default_rng(0).normal(size=(5, 4))
    tasks = TaskGradients([tf.constant(rows)], losses=tf.ones([5]), units={"all": [0]})
    clock = Clock(tf.constant(0), steps_per_epoch=1, epochs=1, seed=0)
    (middle,) = module.Median()(tasks, clock).gradients
    np.testing.assert_allclose(middle, np.median(rows, 0))
    (even,) = module.ByLength()(tasks, clock).gradients
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(even, (rows / lengths).mean(0) * lengths.mean())


def test_documents_name_functions_that_exist():
    """Every `module.function` or `file.py` in the documents is there."""
    root = DOCS.parent
    for path in DOCS.glob("*.md"):
        for name in re.findall(r"`((?:tf_lwdgh|tests|tools|docs|gin|bench)/[\w./]+)`", path.read_text()):
            assert (root / name).exists(), f"{path.name} names {name}, which is not there"
