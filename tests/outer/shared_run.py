# SPDX-License-Identifier: Apache-2.0
"""Runs of one, two and three processes, one of them killed; what they found is written as JSON.

From the root of the repository:

    python -m tests.outer.shared_run FOLDER
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import runpy
import signal
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tests import tiny
from tests.outer import collective_count, processes, replicas
from tf_lwdgh import command_line, config
from tf_lwdgh.data import pipeline
from tf_lwdgh.outer import strategies
from tf_lwdgh.outer.cluster import losses_said
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.runs.shared_folder import held_for_all
from tf_lwdgh.runs.trainer import Trainer

TINY = (
    "META_BATCH_SIZE = 6", "convnet4.fused = False", "convnet4.blocks = 2",
    "STEPS_PER_EPOCH = 4", "EPOCHS = 2",
)  # fmt: skip
KILLED_AT = 6
CASE = "coupled_sharp"  # own parameters, losses that couple, LWDGH by relative scale, explore-exploit


def build(folder: pathlib.Path, strategy: str, *gin_params: str):
    params = (f"Experiment.strategy = '{strategy}'", *TINY, *gin_params)
    config.parse([str(folder / "tiny.gin")], params)
    return Experiment().build(folder / "data")


def train(folder: pathlib.Path, name: str, strategy: str, stop=lambda: False) -> list[int]:
    """Trains in a folder of this name; the step that this process stands at then."""
    with losses_said():
        assembly = build(folder, strategy)
        with held_for_all(folder / name, assembly.workers):
            return Trainer(assembly, str(folder / name)).run(stop=stop).step


def watch_writes(folder: pathlib.Path) -> list[str]:
    """A list that fills with what this process makes, renames, removes or opens to write in a folder."""
    seen: list[str] = []

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        changes = writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
        if changes and isinstance(args[0], (str, os.PathLike)) and str(folder) in os.fspath(args[0]):
            seen.append(f"{event} {args[0]}")

    sys.addaudithook(hook)
    return seen


def tasks_read(folder: pathlib.Path) -> float:
    """How far what this process reads in two steps is from its part of the whole meta-batches."""
    assembly = build(folder, "multi_worker")
    source = assembly.source("train")
    steps = {"meta_batch_size": 6, "seed": 0, "start_step": 3, "end_step": 5}
    make = functools.partial(pipeline.meta_batches, source, assembly.episode, **steps)
    mine = assembly.workers.share(6)
    distributed = strategies.distribute(assembly.strategy, 6, lambda t, n: make(tasks=t, parts=n))
    worst = 0.0
    for whole, part in zip(make(), distributed):
        for everything, here in zip(whole, part, strict=True):
            expected = everything[mine.start : mine.stop].numpy()
            (found,) = assembly.strategy.experimental_local_results(here)
            assert found.shape == expected.shape, (found.shape, expected.shape)
            worst = max(worst, float(np.abs(found.numpy() - expected).max()))
    return worst


def alone(folder: pathlib.Path, number: int) -> None:
    """One process: the same run and steps on one device."""
    tiny.write_patterns(folder / "data")
    tiny.write_gin(folder)
    train(folder, "alone", "default")
    variables, metrics = replicas.run(tf.distribute.get_strategy(), CASE, 6)
    np.savez(folder / "alone.npz", *variables)
    plain = [{key: value.tolist() for key, value in m.items()} for m in metrics]
    (folder / "alone.json").write_text(json.dumps(plain))


def several(folder: pathlib.Path, number: int) -> None:
    """One of some processes: the steps in float64; refusals; what it reads; of three, also runs."""
    report: dict[str, object] = {}
    strategy = strategies.make("multi_worker")
    count = strategy.num_replicas_in_sync
    with np.load(folder / "alone.npz") as file:
        variables = [file[name] for name in file.files]
    metrics = [{k: np.array(v) for k, v in m.items()} for m in json.loads((folder / "alone.json").read_text())]
    report["steps"] = replicas.difference((variables, metrics), replicas.run(strategy, CASE, 6))
    if count == 2:
        report["all_reduces"] = {}
        for name in collective_count.AGGREGATORS:
            sizes, setting = collective_count.count(strategy, name, 6)
            report["all_reduces"][name] = [sizes, dataclasses.asdict(setting)]
    if count == 3:
        report["read"] = tasks_read(folder)
        for name, params in {
            "uneven": ["META_BATCH_SIZE = 4"], "unlike": [f"Experiment.seed = {number // 2}"],
        }.items():  # fmt: skip
            try:
                build(folder, "multi_worker", *params)
            except ValueError as error:
                report[name] = str(error)
        written = watch_writes(folder / "stopped")
        stops = iter([False, number == 1])  # one asks, all stop
        report["stopped_at"] = train(folder, "stopped", "multi_worker", lambda: next(stops))
        report["ended_at"] = train(folder, "stopped", "multi_worker")
        report["written"] = written
    (folder / f"of-{count}-{number}.json").write_text(json.dumps(report))


def killed(folder: pathlib.Path, number: int) -> None:
    """One of three processes, of which the second is killed."""
    steps = iter(range(1, 100))

    def stop() -> bool:
        if next(steps) == KILLED_AT and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    with command_line.clean_errors("train"):
        train(folder, "killed", "multi_worker", stop)


def command(folder: pathlib.Path, number: int) -> None:
    """One of three processes: the command that goes on with the run."""
    params = [f"--gin_param={p}" for p in ("Experiment.strategy = 'multi_worker'", *TINY)]
    places = [f"--gin_file={folder / 'tiny.gin'}", f"--data_dir={folder / 'data'}"]
    sys.argv = ["train", *places, f"--run_dir={folder / 'killed'}", *params]
    runpy.run_module("tf_lwdgh.train", run_name="__main__", alter_sys=True)


def start(work: Callable[[pathlib.Path, int], None], folder: pathlib.Path, number: int) -> None:
    """Only here, after the fork, may TensorFlow start."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # slower than the steps
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    work(folder, number)


def main(folder: pathlib.Path) -> None:
    goes = {"alone": (1, alone), "of 2": (2, several), "of 3": (3, several)}
    goes |= {"killed": (3, killed), "again": (3, command)}
    report = {}
    for name, (count, work) in goes.items():
        report[name] = processes.together(count, functools.partial(start, work, folder), folder)
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
