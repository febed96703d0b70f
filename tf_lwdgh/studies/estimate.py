# SPDX-License-Identifier: Apache-2.0
"""How long a study takes, told before it begins: a few meta-steps and test tasks, timed.

Nothing but the settings is needed: images are random, of the right shape (EpisodeConfig's, where the tasks'
shapes vary). A study that begins times its baseline alone, though others take 0.3 to 25 times as long
(docs/performance.md); --dry_run times every method.

    python -m tf_lwdgh.studies.estimate '{"gin_files": [...], "gin_params": [...]}'

is what times one cell, in a process of its own, on the cores of one job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence

from tf_lwdgh.runs.progress import duration
from tf_lwdgh.studies import worker
from tf_lwdgh.studies.definition import Study
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.local import Slot

_TIMED_STEPS = 3


def say(todo: Collection[Job], study: Study, shares: Sequence[Slot], *, each: bool = False) -> None:
    """Prints how long jobs take.

    Args:
      todo: the jobs.
      study: whose they are.
      shares: the slots that they run in.
      each: whether every method is timed; else the baseline alone, and the others count as alike.
    """
    seconds = 0.0
    for setting in study.settings:
        here = [j for j in todo if j.setting == setting.name]
        if not here:
            continue
        methods = list(dict.fromkeys(j.method for j in here))
        usual = study.baseline if study.baseline in methods else methods[0]
        for method in methods if each else [usual]:
            mine = [j for j in here if j.method == method or not each]
            timed = time_job(next(j for j in mine if j.method == method), shares[0])
            run = timed["steps"] * timed["step"] + timed["tasks"] * timed["task"]
            seconds += len(mine) * run
            name = ", ".join(filter(None, (method if each else "", setting.name))) or study.title
            print(
                f"{name}: {timed['step']:.3f} s a meta-step on one job's share, "
                f"{timed['steps']} of them: {duration(run)} a run, {len(mine)} runs",
                flush=True,
            )
    alike = "were each as fast as one alone" if each else f"were all as fast as {study.baseline} and each as one alone"
    hours = seconds / len(shares) / 3600
    print(f"all {len(todo)} runs, {len(shares)} at once: about {hours:.1f} hours, {alike}", flush=True)


def time_job(job: Job, share: Slot) -> dict[str, float]:
    """Times a job's meta-step and test task in a process of its own.

    Returns:
      'step' and 'task' in seconds, and how many 'steps' and 'tasks' there are.

    Raises:
      ValueError: its settings are wrong.
    """
    bindings = [*job.gin_params, *job.evaluation]
    spec = {"gin_files": job.gin_files, "gin_params": bindings, "data_dir": os.fspath(job.data_dir)}
    command = [sys.executable, "-m", "tf_lwdgh.studies.estimate", json.dumps(spec)]
    if share.cores:
        command.append(",".join(map(str, sorted(share.cores))))
    variables = {**worker.environment(), **share.variables}
    done = subprocess.run(command, cwd=job.directory, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{job.name}: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _time(gin_files: Sequence[str], gin_params: Sequence[str], data_dir: str) -> dict[str, float]:
    import numpy as np
    import tensorflow as tf

    from tf_lwdgh import config
    from tf_lwdgh.data.dataset_config import DatasetConfig
    from tf_lwdgh.data.episodes import EpisodeConfig
    from tf_lwdgh.outer.evaluation import Evaluation, Evaluator
    from tf_lwdgh.outer.meta_step import OuterLoop
    from tf_lwdgh.outer.task_execution import TaskExecution
    from tf_lwdgh.outer.threads import Threads
    from tf_lwdgh.runs.experiment import Experiment
    from tf_lwdgh.types import Episode

    config.parse(gin_files, gin_params)
    Threads().apply(TaskExecution().at_once(OuterLoop().meta_batch_size))
    # A classifier's step depends on the number of classes, no other's on the data.
    there = all(os.path.isdir(os.path.join(data_dir, name)) for name in DatasetConfig().names)
    assembly = Experiment().build(data_dir if there else None, splits=["train"])
    evaluation = Evaluation()
    image, tasks = assembly.image, assembly.outer.meta_batch_size

    def half(n_way: int, images_per_class: int) -> tuple[tf.Tensor, tf.Tensor]:
        shape = (tasks, n_way * images_per_class, image.image_size, image.image_size, image.channels)
        labels = np.tile(np.repeat(np.arange(n_way), images_per_class), (tasks, 1))
        pixels = np.random.default_rng(0).random(shape, np.float32)
        return tf.constant(pixels), tf.constant(labels, tf.int32)

    def of_shape(episode: EpisodeConfig) -> Episode:
        n_way = episode.n_way
        class_ids = tf.tile(tf.range(n_way)[None], [tasks, 1])
        return Episode(*half(n_way, episode.k_shot), *half(n_way, episode.n_query), class_ids)

    # Tasks of varying shape are timed as tasks of EpisodeConfig's.
    shape = assembly.training_episode
    training = of_shape(shape if isinstance(shape, EpisodeConfig) else assembly.episode)
    test = of_shape(assembly.episode)
    evaluator = Evaluator(assembly.parameters, inner_steps=evaluation.inner_steps)

    def seconds(run) -> float:
        run()  # traces
        start = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            run()
        return (time.perf_counter() - start) / _TIMED_STEPS

    step = seconds(lambda: assembly.meta_step(training, tf.constant(0, tf.int64))["train/loss"].numpy())
    task = seconds(lambda: evaluator(test)["loss"].numpy()) / tasks
    return {
        "step": step, "steps": assembly.total_steps, "task": task, "tasks": evaluation.n_tasks
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 2 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in sys.argv[2].split(",")})
    print(json.dumps(_time(**json.loads(sys.argv[1]))))
