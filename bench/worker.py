# SPDX-License-Identifier: Apache-2.0
"""What every contestant's process does: read commands as JSON lines, answer each with one.

Needs Python and NumPy alone, so that it runs in each peer's own environment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bench import workloads

Arrays = dict[str, np.ndarray]


class Contestant(Protocol):
    """One way to compute a workload."""

    def gradients(self) -> Arrays:
        """The outer gradient of each task: name -> [T, *shape], named and shaped as tf_lwdgh does."""

    def step(self) -> None:
        """One meta-step: gradients, LWDGH, clipping, Adam; returns when it is done."""

    def adapt(self) -> np.ndarray:
        """Adapts to each task's support set and predicts: logits [T, N*Q, N]."""


Make = Callable[[workloads.Workload, Arrays, argparse.Namespace], Contestant]


def serve(make: Make, versions: dict[str, str], parser: argparse.ArgumentParser | None = None):
    """Answers 'run' (seconds of one step), 'check' (saves gradients or logits) and 'quit'."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--arrays", required=True)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever a framework prints goes to the log.
    workload = workloads.parse(args.workload)
    with np.load(args.arrays) as file:
        arrays = {k: v.astype(args.dtype) if v.dtype.kind == "f" else v for k, v in file.items()}

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(versions=versions | {"python": sys.version.split()[0]})
    contestant = None
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "quit":
            return
        start = time.perf_counter()
        if contestant is None:
            contestant = make(workload, arrays, args)
        if command == "check":
            checked = contestant.adapt() if workload.kind == "adapt" else contestant.gradients()
            np.savez(rest[0], **({"logits": checked} if workload.kind == "adapt" else checked))
        else:
            contestant.adapt() if workload.kind == "adapt" else contestant.step()
        answer(seconds=time.perf_counter() - start)
