# SPDX-License-Identifier: Apache-2.0
"""Writes the program of a study's setting, see `bench.side_by_side`, and all that it needs, into one folder."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from bench.side_by_side.program import SideBySide, State, Tasks
from tf_lwdgh import config
from tf_lwdgh.data import episodes
from tf_lwdgh.data.mixed_source import MixedSource, Source
from tf_lwdgh.runs.experiment import Assembly, Experiment
from tf_lwdgh.studies import conduct, jobs
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.types import Clock

HERE = pathlib.Path(__file__).resolve().parent


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options that `take` shares."""
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gin_file", action="append", required=True, help="of the study")
    parser.add_argument("--gin_param", action="append", default=[], help="of the study")
    parser.add_argument("--cell_param", action="append", default=[], help="on top of every run")
    parser.add_argument("--data_dir", default="data")
    return parser


def jobs_of(args: argparse.Namespace, out: str, only: str = "*") -> list[Job]:
    """The jobs of the study's only setting."""
    study = conduct.from_gin(args.gin_file, args.gin_param, cell_params=args.cell_param)
    found = jobs.make(study, only=only, data_dir=args.data_dir, out=out)
    if len({job.setting for job in found}) != 1:
        raise ValueError("one setting at a time: --gin_param='Study.settings = [@one/Setting()]'.")
    return found


def build(job: Job, data_dir: str) -> Assembly:
    """The job's experiment; its meta-step is made while its settings stand."""
    config.parse(job.gin_files, job.gin_params)
    assembly = Experiment().build(data_dir, splits=("train",))
    _ = assembly.meta_step
    return assembly


def tasks_of(assembly: Assembly, source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [steps, T, N(K+Q)] int32 and support labels [steps, T, NK] uint8 of a run's training tasks."""
    e, n_tasks, noise = assembly.episode, assembly.outer.meta_batch_size, assembly.label_noise
    key = episodes.split_key(seed, "train")

    def one(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place = {"step": number // n_tasks, "task": number % n_tasks}
        drawn = episodes.sample(source.spec, "train", e, seed=seed, **place)
        labels = tf.repeat(tf.range(e.n_way), e.k_shot)
        if noise.on:
            labels = noise.apply(labels, e.n_way, episodes.task_key(key, stream=episodes.LABELS, **place))
        rows = tf.reshape(source.rows(drawn.class_ids, drawn.image_indices), [-1])
        return tf.cast(rows, tf.int32), tf.cast(labels, tf.uint8)

    dataset = tf.data.Dataset.range(assembly.total_steps * n_tasks).map(one, tf.data.AUTOTUNE).batch(n_tasks)
    rows, labels = zip(*dataset.as_numpy_iterator())
    return np.stack(rows), np.stack(labels)


def explores_of(assembly: Assembly, seed: int) -> np.ndarray:
    """Whether each step explores, [steps] bool."""
    explore, outer = assembly.meta_step.explore, assembly.outer
    if explore is None:
        return np.zeros(assembly.total_steps, bool)

    def one(step: tf.Tensor) -> tf.Tensor:
        clock = Clock(step, steps_per_epoch=outer.steps_per_epoch, epochs=outer.epochs, seed=seed)
        return explore.draw(clock, explore.probability(clock.epoch, clock.epochs))

    return np.array(list(tf.data.Dataset.range(assembly.total_steps).map(one).as_numpy_iterator()))


def pixels_of(source: Source) -> np.ndarray:
    """All images, [M, H, W, C] uint8, in the order of the source's rows."""
    if isinstance(source, MixedSource):
        return np.concatenate([pixels_of(part) for part in source.parts])
    numbers = tf.data.Dataset.range(len(source)).batch(2000)
    return np.concatenate([source.gather(rows).numpy() for rows in numbers])


def main() -> None:
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--only", default="*", help="a pattern of methods' names")
    args = parser.parse_args()
    found = jobs_of(args, args.folder, args.only)
    methods, seeds = list(dict.fromkeys(j.method for j in found)), sorted({j.seed for j in found})
    made = [build(next(j for j in found if j.method == m and j.seed == seeds[0]), args.data_dir) for m in methods]
    others = [build(next(j for j in found if j.seed == seed), args.data_dir) for seed in seeds[1:]]
    a, source = made[0], made[0].source("train")
    program = SideBySide(made, len(seeds))
    initial = zip(*([np.asarray(v) for v in of.parameters.variables_trained] for of in (a, *others)))
    variables = [np.stack([*of_seeds] * len(methods)) for of_seeds in initial]
    rows, labels = zip(*(tasks_of(a, source, seed) for seed in seeds))
    pixels = pixels_of(source)
    explores = np.stack([explores_of(m, seed) for m in made for seed in seeds], 1)
    tasks = {"rows": np.stack(rows, 1), "labels": np.stack(labels, 1), "explores": explores}

    count = len(variables)

    def flat(*given: tf.Tensor) -> list[tf.Tensor]:
        state = State(*(list(given[k * count : (k + 1) * count]) for k in range(3)))
        return tf.nest.flatten(program(Tasks(*given[3 * count : -1]), state, given[-1]))

    specs = [tf.TensorSpec(v.shape, v.dtype) for v in variables] * 3
    specs += [tf.TensorSpec(pixels.shape, tf.uint8)]
    specs += [tf.TensorSpec(tasks[k].shape[1:], d) for k, d in zip(tasks, (tf.int32, tf.int32, tf.bool))]
    specs += [tf.TensorSpec([], tf.int32)]
    compiled = tf.function(flat, jit_compile=True, autograph=False)
    text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized", platform_name="CPU")
    outputs = tf.nest.flatten(compiled.get_concrete_function(*specs).structured_outputs)

    os.makedirs(args.folder, exist_ok=True)
    pathlib.Path(args.folder, "program.mlirbc").write_bytes(text)
    np.savez(os.path.join(args.folder, "variables.npz"), *variables)
    np.savez(os.path.join(args.folder, "tasks.npz"), **tasks)
    np.save(os.path.join(args.folder, "pixels.npy"), pixels)
    about = {
        "methods": methods, "seeds": seeds, "steps": a.total_steps, "tasks": a.outer.meta_batch_size,
        "variables": count, "outputs": [(x.shape.as_list(), x.dtype.name) for x in outputs],
        "names": program.names, "snapshot": program.snapshot,
    }  # fmt: skip
    pathlib.Path(args.folder, "about.json").write_text(json.dumps(about), encoding="utf-8")
    shutil.copy(HERE / "run.py", args.folder)
    print(f"{len(methods)} methods x {len(seeds)} seeds: {args.folder}")


if __name__ == "__main__":
    main()
