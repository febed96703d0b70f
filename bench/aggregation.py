# SPDX-License-Identifier: Apache-2.0
"""Milliseconds of one aggregation, ours and TorchJD's, on the same gradients [K, D] as one unit.

    python -m bench.aggregation --peer_python .venv-torchjd/bin/python --out docs/aggregation_speed.json

D is Convnet4's 32,901. TorchJD solves its small problems outside PyTorch (quadprog, ECOS), one task or matrix
at a time; ours are operations of the graph, for all units at once (--units times them on that many units).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tf_lwdgh import aggregators
from tf_lwdgh.aggregators.task_gradients import TaskGradients
from tf_lwdgh.types import Clock

ROOT = pathlib.Path(__file__).resolve().parents[1]


def ours(name: str, matrix: np.ndarray, units: int, repeats: int) -> dict[str, float]:
    """One of our aggregators, on D split into units of one size."""
    aggregator, tasks = aggregators.ALL[name](), len(matrix)
    aggregator.check(tasks)
    parts = [tf.constant(part) for part in np.array_split(matrix, units, axis=1)]
    named = {str(i): [i] for i in range(units)}

    @tf.function(autograph=False)
    def run(rows: list[tf.Tensor], step: tf.Tensor) -> list[tf.Tensor]:
        losses = tf.ones([tasks])
        clock = Clock(step, steps_per_epoch=1, epochs=1, seed=0)
        return aggregator(TaskGradients(rows, losses=losses, units=named), clock).gradients

    seconds = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        [x.numpy() for x in run(parts, tf.constant(i))]
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 20:
            break
    return {"milliseconds": 1000 * statistics.median(seconds[1:] or seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer_python", help="of an environment with torch and torchjd[full]")
    parser.add_argument("--tasks", default="4,16,64", help="by commas")
    parser.add_argument("--size", type=int, default=32_901, help="D")
    parser.add_argument("--units", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", default="aggregation_speed.json")
    args = parser.parse_args()
    report: dict[str, object] = {"size": args.size, "units": args.units, "ours": {}, "torchjd": {}}
    for tasks in map(int, args.tasks.split(",")):
        matrix = np.random.default_rng(0).normal(size=(tasks, args.size)).astype(np.float32)
        if args.peer_python:
            report["torchjd"][tasks] = _peer(args, matrix)
        report["ours"][tasks] = {name: ours(name, matrix, args.units, args.repeats) for name in aggregators.ALL}
        pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        for name, value in report["ours"][tasks].items():
            theirs = report["torchjd"].get(tasks, {}).get(name, {}).get("milliseconds")
            shown = "" if theirs is None else f", TorchJD {theirs:.1f} ms"
            print(f"K={tasks} {name}: {value['milliseconds']:.1f} ms{shown}", flush=True)


def _peer(args: argparse.Namespace, matrix: np.ndarray) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "J.npy")
        np.save(path, matrix)
        script = str(ROOT / "bench/peers/torchjd_aggregation.py")
        line = [args.peer_python, script, path, str(args.repeats)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
