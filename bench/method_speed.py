# SPDX-License-Identifier: Apache-2.0
"""Seconds of a meta-step of every learner (with the mean) and every aggregator (with MAML), beside MAML + mean.

    python -m bench.method_speed --out docs/method_speed.json

All in one process, in turn with the baseline (A B A B …), on W1's shape: Convnet4, 84×84, four tasks of 5-way
1-shot with 15 queries, and on one set of tasks. A learner has the settings of its gin fragment, but for the
number of tasks. What an aggregator adds is milliseconds where a step is seconds, and would drown in a step's
noise: aggregation and conflict report are timed alone, on the outer gradients of MAML, in turn with the mean's,
and the difference is set against the baseline's step.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from bench import workloads
from tf_lwdgh import aggregators, config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import Outcome, outer_gradients
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.types import Clock, Episode

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Contestant:
    """One method, ready to be stepped."""

    def __init__(self, learner_file: str, w: workloads.Workload) -> None:
        keras.utils.set_random_seed(0)
        files = [ROOT / "gin/mini_convnet4.gin", ROOT / "gin/learners" / learner_file]
        config.parse([str(f) for f in files])
        learner = Experiment().learner
        model = convnet4(
            image_size=w.image_size, channels=w.channels, n_way=w.n_way, filters=w.filters
        )
        self.step = MetaStep(
            parameters=MetaParameters(model, learner),
            aggregator=aggregators.Mean(),
            optimizer=keras.optimizers.Adam(0.001),
            settings=OuterLoop(meta_batch_size=w.tasks),
            seed=0,
        )
        arrays = workloads.episodes(w, 0)
        names = ("support_x", "support_y", "query_x", "query_y")
        self.episodes = Episode(*(tf.constant(arrays[n]) for n in names))
        self.inner_steps = learner.inner_steps()

    def gradients(self) -> Outcome:
        """The tasks' outer gradients and losses."""
        run = tf.function(lambda e: outer_gradients(self.step.parameters, e), autograph=False)
        return run(self.episodes)

    def seconds(self) -> float:
        """Of one meta-step, to the end of its update."""
        start = time.perf_counter()
        out = self.step(self.episodes, tf.constant(0, tf.int64))
        out["train/loss"].numpy()
        self.step.parameters.variables_trained[-1].numpy()
        return time.perf_counter() - start


class Aggregation:
    """What a meta-step does between the tasks' gradients and the optimizer."""

    def __init__(self, aggregator: Aggregator, units: dict[str, list[int]], outcome: Outcome) -> None:
        aggregator.check(outcome.losses.shape[0])
        self.outcome, self.count = outcome, 0

        @tf.function(autograph=False)
        def run(outcome: Outcome, step: tf.Tensor) -> tuple:
            tasks = TaskGradients(outcome.gradients, losses=outcome.losses, units=units)
            clock = Clock(step, steps_per_epoch=1, epochs=1, seed=0)
            found = aggregator(tasks, clock)
            return found.gradients, ConflictReport().measure(tasks, found.gradients)

        self.run = run
        self.seconds()

    def seconds(self) -> float:
        """Of one aggregation and its report."""
        start = time.perf_counter()
        for x in tf.nest.flatten(self.run(self.outcome, tf.constant(self.count, tf.int64))):
            x.numpy()
        self.count += 1
        return time.perf_counter() - start


def added(mean: Aggregation, other: Aggregation, step_seconds: float, repeats: int) -> dict[str, float]:
    """The medians' difference, and what it makes of the baseline's step."""
    pairs = [(mean.seconds(), other.seconds()) for _ in range(repeats)]
    extra = statistics.median(b for _, b in pairs) - statistics.median(a for a, _ in pairs)
    return {
        "mean_milliseconds": 1000 * statistics.median(a for a, _ in pairs),
        "milliseconds": 1000 * statistics.median(b for _, b in pairs),
        "ratio": 1 + extra / step_seconds,
    }


def in_turn(baseline: Contestant, other: Contestant, repeats: int) -> dict[str, object]:
    """Medians, and the median of the ratios of neighbours."""
    first = other.seconds()
    other.seconds(), baseline.seconds()
    pairs = [(baseline.seconds(), other.seconds()) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    return {
        "baseline_seconds": statistics.median(a for a, _ in pairs),
        "seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "first_step_seconds": first,
        "inner_steps": other.inner_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="W1")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", default="method_speed.json")
    args = parser.parse_args()
    w = workloads.parse(args.workload)
    Threads().apply(w.tasks)
    baseline = Contestant("maml.gin", w)
    outcome, units = baseline.gradients(), baseline.step.units
    baseline.seconds()
    step_seconds = statistics.median(baseline.seconds() for _ in range(args.repeats))
    report: dict[str, object] = {
        "workload": args.workload, "cores": len(os.sched_getaffinity(0)), "step_seconds": step_seconds,
        "aggregators": {}, "learners": {},
    }  # fmt: skip
    mean = Aggregation(aggregators.Mean(), units, outcome)

    def keep(kind: str, name: str, found: dict[str, object]) -> None:
        report[kind][name] = found
        print(kind, name, found, flush=True)
        pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    for name, cls in aggregators.ALL.items():
        try:
            other = Aggregation(cls(), units, outcome)
        except ValueError as error:  # such as Krum with too few tasks
            keep("aggregators", name, {"refused": str(error)})
            continue
        keep("aggregators", name, added(mean, other, step_seconds, 10 * args.repeats))
    for path in sorted((ROOT / "gin/learners").glob("*.gin")):
        keep("learners", path.stem, in_turn(baseline, Contestant(path.name, w), args.repeats))
        gc.collect()


if __name__ == "__main__":
    main()
