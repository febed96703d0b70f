# SPDX-License-Identifier: Apache-2.0
"""Jobs that train in moments, for tests of what runs them."""

from __future__ import annotations

import dataclasses
import pathlib

from tests import tiny
from tf_lwdgh.studies.jobs import Job

STEPS = 1000
_PARAMS = (
    f"STEPS_PER_EPOCH = {STEPS}", "EPOCHS = 1", "convnet4.blocks = 1", "convnet4.filters = 2",
    "TrainerConfig.validate_every = 0", "TrainerConfig.log_every = 20", "META_BATCH_SIZE = 1",
    "ExploreExploit.mode = 'off'", "Experiment.aggregator = @Mean()",
)  # fmt: skip


def make(folder: pathlib.Path, names: list[str]) -> list[Job]:
    """Jobs of the same settings and seed under different names; their data set lies in `folder`."""
    tiny.write_patterns(folder / "data")
    gin_file = tiny.write_gin(folder)
    return [
        Job(
            setting="", method=name, seed=3, gin_files=(gin_file,),
            gin_params=(*_PARAMS, "Experiment.seed = 3"),
            evaluation=("Evaluation.n_tasks = 20",), checkpoint="last",
            data_dir=str(folder / "data"), out=str(folder / "study"), directory=str(folder),
        )
        for name in names
    ]  # fmt: skip


def with_mistake(job: Job) -> Job:
    """A job that the train command refuses."""
    return dataclasses.replace(job, gin_params=(*job.gin_params, "PCGrad.unit = 'layer'"))
