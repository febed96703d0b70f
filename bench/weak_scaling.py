# SPDX-License-Identifier: Apache-2.0
"""Our step's time as processes of one machine join in, each with tasks of its own: apart, and as one run.

    python -m bench.weak_scaling --out docs/weak_scaling.json

Processes that share the machine's cores slow each other down whether they talk or not; so each number of them
runs both apart (default strategy) and joined (multi_worker, over loopback), taking turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench import workloads
from bench.process import Command, Process
from tests.outer.processes import free_ports

FLAGS = ("--without_cosines", "--intra_op", "1", "--inter_op", "1")


def commands(count: int, joined: bool) -> list[Command]:
    """One for each process."""
    if not joined:
        return [Command(sys.executable, "bench.ours", FLAGS)] * count
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    cluster = {"worker": addresses}
    told = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(count)]
    flags = (*FLAGS, "--multi_worker")
    return [Command(sys.executable, "bench.ours", flags, env=(("TF_CONFIG", json.dumps(t)),)) for t in told]


def step(processes: Sequence[Process]) -> dict[str, float]:
    """One step of all of them at once: the slowest's seconds, and CPU seconds of all."""
    with ThreadPoolExecutor(len(processes)) as pool:
        answers = list(pool.map(lambda p: p.ask("run"), processes))
    return {
        "seconds": max(a["seconds"] for a in answers),
        "cpu_seconds": sum(a["cpu_seconds"] for a in answers),
    }


def measure(workload: str, count: int, repeats: int, log: str) -> dict[str, object]:
    """So many processes, apart and joined."""
    w = workloads.parse(workload)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = os.path.join(folder, "arrays.npz")
        np.savez(path, **workloads.weights(w, 0), **workloads.episodes(w, 0, None))

        def started(joined: bool) -> list[Process]:
            made = [c.start(workload, path, "float32", log) for c in commands(count, joined)]
            return [stack.enter_context(p) for p in made]

        kinds = {"apart": started(False), "joined": started(True)}
        for processes in kinds.values():
            for _ in range(2):  # the first builds the graph
                step(processes)
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind, processes in kinds.items():
                runs[kind].append(step(processes))
    found: dict[str, object] = {"processes": count, "load": os.getloadavg()[0]}
    for kind, steps in runs.items():
        found[kind] = {key: statistics.median(s[key] for s in steps) for key in steps[0]}
    pairs = zip(runs["joined"], runs["apart"])
    return found | {"joined_over_apart": statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="W1,tasks=1")
    parser.add_argument("--processes", default="1 2 4", help="how many, by spaces")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default="weak_scaling.json")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    report = {"workload": args.workload, "cores": len(os.sched_getaffinity(0)), "points": []}
    for count in map(int, args.processes.split()):
        point = measure(args.workload, count, args.repeats, str(out.with_suffix(".log")))
        print(point, file=sys.stderr, flush=True)
        report["points"].append(point)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
