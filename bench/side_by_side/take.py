# SPDX-License-Identifier: Apache-2.0
"""Writes the runs that a program has trained, see `bench.side_by_side`, as run folders of their study."""

from __future__ import annotations

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from bench.side_by_side.export import arguments, build, jobs_of
from tf_lwdgh.runs.config import TrainerConfig
from tf_lwdgh.runs.trainer import Trainer
from tf_lwdgh.studies.jobs import Job


class Trained:
    """What came back in a folder."""

    def __init__(self, folder: str) -> None:
        def read(name: str) -> dict:
            return json.loads(pathlib.Path(folder, name).read_text(encoding="utf-8"))

        self.about, self.ran = read("about.json"), read("ran.json")
        self.metrics = np.load(os.path.join(folder, "metrics.npz"))["metrics"]  # [windows, n, S]
        self._kept = np.load(os.path.join(folder, "kept.npz"))
        self.steps = sorted({int(name.split("_")[0]) for name in self._kept})

    def place(self, job: Job) -> tuple[int, int]:
        """The numbers of its method and seed."""
        return self.about["methods"].index(job.method), self.about["seeds"].index(job.seed)

    def variables(self, job: Job, step: int) -> list[np.ndarray]:
        """A run's variables after so many steps."""
        method, seed = self.place(job)
        row = method * len(self.about["seeds"]) + seed
        return [self._kept[f"{step}_{i}"][row] for i in range(self.about["variables"])]

    def values(self, job: Job, window: int) -> dict[str, float]:
        """A run's metrics, means over a window; a step's seconds are its share of the program's."""
        method, seed = self.place(job)
        names = {name: i for i, (name, of) in enumerate(self.about["names"]) if of == method}
        found = {name: float(self.metrics[window, i, seed]) for name, i in names.items()}
        runs = len(self.about["methods"]) * len(self.about["seeds"])
        return found | {"speed/tasks_per_second": self.about["tasks"] * runs / self.ran["seconds"]}


def write(job: Job, trained: Trained, data_dir: str) -> None:
    """Writes a run's folder: settings, metrics and checkpoints."""
    assembly = build(job, data_dir)
    trainer = Trainer(assembly, job.run_dir, TrainerConfig())
    with trainer._log() as log:
        trainer._introduce(log)
        for window in range(len(trained.metrics)):
            step = (window + 1) * trained.ran["window"]
            log.scalars(step, trained.values(job, window))
            if step in trained.steps:
                for variable, value in zip(assembly.parameters.variables_trained, trained.variables(job, step)):
                    variable.assign(value)
                trainer.at.step = step
                log.flush(durable=True)
                trainer.last.save(step, trainer._state, trainer._manifest())


def main() -> None:
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--out", required=True, help="the study's folder")
    args = parser.parse_args()
    trained = Trained(args.folder)
    for job in jobs_of(args, args.out):
        if job.method not in trained.about["methods"]:
            continue
        if os.path.exists(job.run_dir):
            raise FileExistsError(f"--out holds that run already: {job.run_dir!r}.")
        write(job, trained, args.data_dir)
        print(f"{job.name}: {trained.steps[-1]} steps, {job.run_dir}")


if __name__ == "__main__":
    main()
