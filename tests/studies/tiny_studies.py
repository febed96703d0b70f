# SPDX-License-Identifier: Apache-2.0
"""Studies for tests: of gin text, of fake commands, and of results made up."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys

import numpy as np

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.studies import results
from tf_lwdgh.studies.definition import Study
from tf_lwdgh.studies.jobs import Job

TWO = """
Study.title = 'Two methods'
Study.experiment = ['{experiment}']
Study.gin_params = ['TrainerConfig.validate_every = 0', 'EPOCHS = 2']
Study.baseline = 'mean'
Study.methods = [@mean/Method(), @lwdgh/Method(), @other/Method()]
Study.evaluation = ['Evaluation.n_tasks = 12']
mean/Method.name = 'mean'
mean/Method.gin_files = ['gin/aggregators/mean.gin']
mean/Method.published = '48.17 ± 1.75'
mean/Method.source = 'somewhere'
lwdgh/Method.name = 'LWDGH'
lwdgh/Method.gin_files = ['gin/aggregators/lwdgh.gin']
other/Method.name = 'GNN'
other/Method.published = '50.33 ± 0.36'
other/Method.absent = 'Its learner is not here.'
"""


def write(folder: pathlib.Path, more: str = "") -> str:
    """Writes data set, experiment and study below a folder; the study's path."""
    if not (folder / "data").exists():
        tiny.write_patterns(folder / "data")
    text = TWO.format(experiment=tiny.write_gin(folder)) + more
    path = folder / "study.gin"
    path.write_text(text, encoding="utf-8")
    return str(path)


def study(text: str) -> Study:
    """A study of gin text."""
    config.clear()
    config.gin.parse_config(text)
    return Study()


@dataclasses.dataclass(frozen=True)
class FakeJob(Job):
    """A job whose commands are Python text, with the run's folder as first argument."""

    train: str = ""
    evaluate: str = ""

    def train_command(self, threads: int | None = None) -> list[str]:
        return [sys.executable, "-c", self.train, self.run_dir]

    def evaluate_command(self) -> list[str]:
        return [sys.executable, "-c", self.evaluate, self.run_dir]


# Makes what a training leaves behind: a checkpoint folder, whole by its manifest, and metrics.
TRAIN = """
import hashlib, json, os, sys
run, steps = sys.argv[1], {steps}
folder = os.path.join(run, 'checkpoints', 'step-%08d' % steps)
os.makedirs(folder, exist_ok=True)
settings = {{'OuterLoop.meta_batch_size': '4', 'OuterLoop.steps_per_epoch': '5'}}
manifest = {{'step': steps, 'files': {{}}, 'settings': settings, 'fingerprint': 'f'}}
text = json.dumps(manifest, sort_keys=True, separators=(',', ':'))
manifest['sha256'] = hashlib.sha256(text.encode()).hexdigest()
json.dump(manifest, open(os.path.join(folder, 'manifest.json'), 'w'))
with open(os.path.join(run, 'metrics.jsonl'), 'w') as file:
    for step in range(5, steps + 1, 5):
        line = {{'step': step, 'train/loss': 1 / step, 'gci/total': 2.0, 'speed/tasks_per_second': 8.0}}
        file.write(json.dumps(line) + chr(10))
print('trained', flush=True)
"""
EVALUATE = """
import json, os, sys
folder = os.path.join(sys.argv[1], 'evaluation')
os.makedirs(folder, exist_ok=True)
content = {'checkpoint': 'last checkpoint, step 10', 'accuracies': [0.25, 0.75], 'losses': [1, 2],
           'task_list_sha256': 'abc', 'inner_steps': 1}
json.dump(content, open(os.path.join(folder, 'test.json'), 'w'))
print('judged', flush=True)
"""


def fake_job(
    out: pathlib.Path, method: str = "m", seed: int = 0, *, train: str = TRAIN.format(steps=10),
    evaluate: str = EVALUATE,
) -> FakeJob:  # fmt: skip
    """A job of fake commands."""
    return FakeJob(
        setting="", method=method, seed=seed, gin_files=(), gin_params=(), evaluation=(),
        checkpoint="last", data_dir=str(out), out=str(out), directory=os.getcwd(), train=train,
        evaluate=evaluate,
    )  # fmt: skip


def result(method: str, seed: int, accuracies: np.ndarray, **more) -> results.Result:
    """A result of a run that is done."""
    about = {
        "task_list_sha256": "abc", "dataset": "patterns", "split": "test", "n_way": 5, "k_shot": 1,
        "n_query": 15, "batch_norm": "transductive", "inner_steps": 5, "learner": "MAML",
        "checkpoint": "last checkpoint, step 10",
    }  # fmt: skip
    fields = {"setting": "", "state": results.DONE, "about": about, "steps": 10, **more}
    return results.Result(method=method, seed=seed, accuracies=accuracies, **fields)
