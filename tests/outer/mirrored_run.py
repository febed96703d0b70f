# SPDX-License-Identifier: Apache-2.0
"""Trains the tiny experiment on one and on two CPU replicas; prints both runs' losses as JSON.

A program of its own, since the number of logical devices is fixed when TensorFlow starts.
"""

import json
import pathlib
import sys

import tensorflow as tf

from tests import tiny
from tf_lwdgh.runs.trainer import Trainer


def losses(folder: pathlib.Path, strategy: str) -> list[float]:
    """Trains in <folder>/<strategy>, on several replicas in two goes, and reads its log."""
    run_dir = folder / strategy
    params = (
        f"Experiment.strategy = '{strategy}'", "META_BATCH_SIZE = 4", "TrainerConfig.validate_every = 0"
    )  # fmt: skip
    if strategy != "default":
        stops = iter([True])
        Trainer(tiny.build(folder, *params), str(run_dir)).run(stop=lambda: next(stops))
    Trainer(tiny.build(folder, *params), str(run_dir)).run()
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row]


def main(folder: pathlib.Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    report = {strategy: losses(folder, strategy) for strategy in ("default", "mirrored")}
    report["replicas"] = tiny.build(folder, "Experiment.strategy = 'mirrored'",
                                    "META_BATCH_SIZE = 4").strategy.num_replicas_in_sync  # fmt: skip
    try:
        tiny.build(folder, "Experiment.strategy = 'mirrored'", "META_BATCH_SIZE = 3")
    except ValueError as error:
        report["odd"] = str(error)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
