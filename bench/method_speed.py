# SPDX-License-Identifier: Apache-2.0
"""Seconds of a meta-step of every learner (with the mean) and every aggregator (with MAML), beside MAML + mean.

    python -m bench.method_speed --out docs/method_speed.json
    python -m bench.method_speed --learners="prototypical_network snail" --aggregators= --out=some.json

All in one process, in turn with the baseline (A B A B …), on W1's shape: Convnet4, 84×84, four tasks of 5-way
1-shot with 15 queries, and on one set of tasks. A learner has the settings of its gin fragment, its network and
its training tasks too, but for the number of tasks. A prediction learns one task's support set, with the inner
steps of an evaluation, and answers its 75 queries. What an aggregator adds is milliseconds where a step is
seconds, and would drown in a step's noise: aggregation and conflict report are timed alone, on the outer
gradients of MAML, in turn with the mean's, and the difference is set against the baseline's step.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import pathlib
import statistics
import time
from collections.abc import Collection

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from bench import workloads
from tf_lwdgh import aggregators, config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.outer.evaluation import Evaluation, Evaluator
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.outer_gradients import Outcome, outer_gradients
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.types import Clock, Episode

ROOT = pathlib.Path(__file__).resolve().parents[1]
_CLASSES, _IMAGES = 64, 600  # of mini-ImageNet's training split, for learners whose tasks depend on them


class Contestant:
    """One method, ready to be stepped."""

    def __init__(self, name: str, w: workloads.Workload) -> None:
        keras.utils.set_random_seed(0)
        files = [ROOT / "gin/mini_convnet4.gin", ROOT / f"gin/learners/{name}.gin"]
        config.parse([str(f) for f in files], [f"convnet4.filters = {w.filters}"])
        experiment = Experiment()
        learner = experiment.learner.for_classes(_CLASSES)
        model = experiment.backbone(image_size=w.image_size, channels=w.channels, n_way=w.n_way)
        parameters = MetaParameters(model, learner)
        self.step = MetaStep(
            parameters=parameters,
            aggregator=aggregators.Mean(),
            optimizer=keras.optimizers.Adam(0.001),
            settings=OuterLoop(meta_batch_size=w.tasks),
            seed=0,
        )
        self.episodes = _tasks(dataclasses.replace(w, **learner.training_shape(_CLASSES, _IMAGES)))
        self.task = _tasks(dataclasses.replace(w, tasks=1))
        self.evaluator = Evaluator(parameters, inner_steps=Evaluation().inner_steps)
        self.inner_steps = learner.inner_steps()
        self.weights = sum(v.shape.num_elements() for v in parameters.variables_trained)

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

    def predicting_seconds(self) -> float:
        """Of learning one task and answering its queries."""
        start = time.perf_counter()
        self.evaluator(self.task)["predictions"].numpy()
        return time.perf_counter() - start


def _tasks(w: workloads.Workload) -> Episode:
    arrays = workloads.episodes(w, 0)
    names = ("support_x", "support_y", "query_x", "query_y")
    class_ids = tf.tile(tf.range(w.n_way)[None], [w.tasks, 1])
    return Episode(*(tf.constant(arrays[n]) for n in names), class_ids)


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
    other.predicting_seconds(), baseline.predicting_seconds()
    predictions = [(baseline.predicting_seconds(), other.predicting_seconds()) for _ in range(repeats)]
    return {
        "baseline_seconds": statistics.median(a for a, _ in pairs),
        "seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "baseline_prediction_seconds": statistics.median(a for a, _ in predictions),
        "prediction_seconds": statistics.median(b for _, b in predictions),
        "prediction_ratio": statistics.median(b / a for a, b in predictions),
        "first_step_seconds": first,
        "inner_steps": other.inner_steps,
        "weights": other.weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="W1")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--learners", help="names of gin/learners/, by spaces; by default all")
    parser.add_argument("--aggregators", help="names of classes, by spaces; by default all")
    parser.add_argument("--out", default="method_speed.json")
    args = parser.parse_args()
    w = workloads.parse(args.workload)
    Threads().apply(w.tasks)
    baseline = Contestant("maml", w)
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

    learners = sorted(path.stem for path in (ROOT / "gin/learners").glob("*.gin"))
    for name in _chosen(args.aggregators, aggregators.ALL):
        try:
            other = Aggregation(aggregators.ALL[name](), units, outcome)
        except ValueError as error:  # such as Krum with too few tasks
            keep("aggregators", name, {"refused": str(error)})
            continue
        keep("aggregators", name, added(mean, other, step_seconds, 10 * args.repeats))
    for name in _chosen(args.learners, learners):
        keep("learners", name, in_turn(baseline, Contestant(name, w), args.repeats))
        gc.collect()


def _chosen(words: str | None, names: Collection[str]) -> list[str]:
    chosen = list(names) if words is None else words.split()
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}. Known: {', '.join(names)}.")
    return chosen


if __name__ == "__main__":
    main()
