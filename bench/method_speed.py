"""Seconds of a meta-step of every aggregator (with MAML) and every learner (with the mean), beside MAML + mean.

    python -m bench.method_speed --out docs/method_speed.json

All in one process, in turn with the baseline (A B A B …), on W1's shape: Convnet4, 84×84, four tasks of 5-way
1-shot with 15 queries. A learner has the settings of its gin fragment, but for `--inner_steps` where given.
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
from tf_lwdgh.learners.meta_parameters import MetaParameters
from tf_lwdgh.networks.backbones import convnet4
from tf_lwdgh.outer.meta_step import MetaStep, OuterLoop
from tf_lwdgh.outer.threads import Threads
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.types import Episode

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Contestant:
    """One method, ready to be stepped."""

    def __init__(self, learner_file: str, aggregator, w: workloads.Workload) -> None:
        keras.utils.set_random_seed(0)
        files = [ROOT / "gin/mini_convnet4.gin", ROOT / "gin/learners" / learner_file]
        config.parse([str(f) for f in files])
        learner = Experiment().learner
        model = convnet4(
            image_size=w.image_size, channels=w.channels, n_way=w.n_way, filters=w.filters
        )
        self.step = MetaStep(
            parameters=MetaParameters(model, learner),
            aggregator=aggregator,
            optimizer=keras.optimizers.Adam(0.001),
            settings=OuterLoop(meta_batch_size=w.tasks),
            seed=0,
        )
        arrays = workloads.episodes(w, 0)
        names = ("support_x", "support_y", "query_x", "query_y")
        self.episodes = Episode(*(tf.constant(arrays[n]) for n in names))
        self.inner_steps = learner.inner_steps()

    def seconds(self) -> float:
        """Of one meta-step, to the end of its update."""
        start = time.perf_counter()
        out = self.step(self.episodes, tf.constant(0, tf.int64))
        out["train/loss"].numpy()
        self.step.parameters.variables_trained[-1].numpy()
        return time.perf_counter() - start


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
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", default="method_speed.json")
    args = parser.parse_args()
    w = workloads.parse(args.workload)
    Threads().apply(w.tasks)
    baseline = Contestant("maml.gin", aggregators.Mean(), w)
    baseline.seconds()
    report: dict[str, object] = {"workload": args.workload, "cores": len(os.sched_getaffinity(0))}
    for kind, makers in (("aggregators", _aggregators(w)), ("learners", _learners(w))):
        report[kind] = {}
        for name, make in makers.items():
            try:
                other = make()
            except ValueError as error:  # such as Krum with too few tasks
                report[kind][name] = {"refused": str(error)}
                continue
            report[kind][name] = in_turn(baseline, other, args.repeats)
            print(kind, name, report[kind][name], flush=True)
            gc.collect()
            pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _aggregators(w: workloads.Workload) -> dict[str, object]:
    return {
        name: lambda cls=cls: Contestant("maml.gin", cls(), w)
        for name, cls in aggregators.ALL.items()
    }


def _learners(w: workloads.Workload) -> dict[str, object]:
    files = sorted(p.name for p in (ROOT / "gin/learners").glob("*.gin"))
    return {f: lambda f=f: Contestant(f, aggregators.Mean(), w) for f in files}


if __name__ == "__main__":
    main()
