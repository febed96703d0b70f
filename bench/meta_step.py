# SPDX-License-Identifier: Apache-2.0
"""Ours against the peers, in turn (A B A B …), after a check that they compute the same gradients.

From the root of the repository:

    python -m bench.meta_step --peers_python PATH --out docs/benchmark.json
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from bench import workloads
from bench.process import ROOT, Command, Process

PEERS = {
    "torch_func": ("torch_func", (), False),
    "torch_func_vmap": ("torch_func", ("--vmap",), False),
    "higher": ("higher_loop", (), False),
    "torchopt": ("torchopt_loop", (), False),
    "learn2learn_algorithm": ("learn2learn_loop", (), False),
    "torch_pool": ("torch_pool", (), True),
    "jax_vmap": ("jax_vmap", (), False),
    "easyfsl": ("easyfsl_prototypical", (), False),
}
OURS = {
    "plain": ("--plain",),
    "recompute": ("--memory", "recompute"),
    "one_by_one": ("--memory", "recompute", "--parallel_tasks", "1"),
    "unrolled": ("--mode", "unrolled"),
    "vectorized": ("--mode", "vectorized"),
    "xla": ("--xla",),
    "bfloat16": ("--products", "mixed_bfloat16"),
    "eigen": ("--eigen",),
    "mean": ("--aggregator", "mean"),
    "lwdgh_ee": ("--aggregator", "lwdgh_ee"),
}
# In float64, where rounding cannot flip ReLUs and maxima; Resnet12 is deeper.
TOLERANCE = {"convnet4": 1e-9, "resnet12": 1e-7}
# In float32 flipped ReLUs and maxima alone move a task's gradient: by 10 % in TensorFlow's own operations.
FLOAT32_TOLERANCE = 0.3
BFLOAT16_TOLERANCE = 0.5


def main() -> None:
    args = _arguments()
    report = _about(args)
    logs = pathlib.Path(args.out).with_suffix(".log")
    logs.unlink(missing_ok=True)
    for text in args.workloads.split(" "):
        w = workloads.parse(text)
        with tempfile.TemporaryDirectory() as folder:
            arrays = _write_arrays(w, args, folder)
            bench = Bench(w, text, arrays, folder, str(logs), args)
            report["workloads"].append(bench.run())
        report["peak_gflops"].append(_peak(args.ours_python))
        report["load"].append(os.getloadavg())
        _summarise(report)
        pathlib.Path(args.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default="W1 W1-5 W2 E1", help="of workloads.py, by spaces")
    parser.add_argument("--peers", default="torch_func higher torchopt learn2learn_algorithm "
                        "torch_pool jax_vmap", help=f"of {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--variants", default="", help=f"of ours: {', '.join(OURS)}")
    parser.add_argument("--ours_python", default=sys.executable)
    parser.add_argument("--peers_python", default=".venv-peers/bin/python")
    parser.add_argument("--jax_python", default=".venv-peers-jax/bin/python")
    parser.add_argument("--cores", type=int, help="how many each contestant may use; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", default="", help="files of bench.images, by spaces; else random")
    parser.add_argument("--skip_check", action="store_true", help="for work on the benchmark itself")
    parser.add_argument("--out", default="benchmark.json")
    return parser.parse_args()


def _about(args: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "cores": args.cores or len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "processor": _processor(),
        "repeats": args.repeats,
        "images": [os.path.basename(path) for path in args.images.split()] or "random",
        "load": [os.getloadavg()],
        "peak_gflops": [],
        "workloads": [],
    }


def _processor() -> str:
    rows = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((row.split(":")[1].strip() for row in rows if row.startswith("model name")), "")


def _peak(python: str) -> dict[str, float]:
    done = subprocess.run([python, "-m", "bench.peak"], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _write_arrays(w: workloads.Workload, args: argparse.Namespace, folder: str) -> str:
    path = os.path.join(folder, "arrays.npz")
    images = workloads.fitting(w, args.images)
    arrays = workloads.weights(w, args.seed) | workloads.episodes(w, args.seed, images)
    np.savez(path, **arrays)
    return path


class Bench:
    """One workload: the check, then each rival in turn with ours."""

    def __init__(
        self,
        w: workloads.Workload,
        text: str,
        arrays: str,
        folder: str,
        log: str,
        args: argparse.Namespace,
    ) -> None:
        self.w, self.text, self.arrays, self.folder, self.log = w, text, arrays, folder, log
        self.args = args
        self.ours = Command(args.ours_python, "bench.ours", cores=args.cores)
        self.rivals = {f"ours_{v}": dataclasses.replace(self.ours, flags=OURS[v]) for v in args.variants.split()}
        for name in args.peers.split():
            module, flags, keep = PEERS[name]
            python = args.jax_python if name.startswith("jax") else args.peers_python
            self.rivals[name] = Command(python, f"bench.peers.{module}", flags, keep, args.cores)

    def run(self) -> dict[str, Any]:
        """Its part of the report.

        Raises:
          ValueError: a rival computes something else.
        """
        checks = {} if self.args.skip_check else self._check()
        report = {"name": self.text, "settings": vars(self.w), "gflop": workloads.flops(self.w) / 1e9}
        report["rivals"] = {}
        for name, command in self.rivals.items():
            pair = self._pair(command)
            _print(f"{self.text} ours / {name}", pair)
            report["rivals"][name] = pair | {"check": checks.get(name)}
        return report

    def _start(self, command: Command, dtype: str = "float32") -> Process:
        return command.start(self.text, self.arrays, dtype, self.log)

    def _check(self) -> dict[str, dict[str, float]]:
        reference = self._result(self.ours, "float64")
        own = _difference(self._result(self.ours, "float32"), reference)
        _print(f"{self.text} ours, float32 against float64", own)
        return {n: self._check_one(n, c, reference) for n, c in self.rivals.items()}

    def _check_one(self, name: str, command: Command, reference) -> dict[str, float]:
        limits = {"float64": TOLERANCE[self.w.backbone], "float32": FLOAT32_TOLERANCE}
        if "mixed_bfloat16" in command.flags:
            limits = {"float32": BFLOAT16_TOLERANCE}
        found = {d: _difference(self._result(command, d), reference) for d in limits}
        _print(f"{self.text} {name}, difference", found)
        for dtype, limit in limits.items():
            if not found[dtype] <= limit:
                raise ValueError(
                    f"{self.text}: {name} computes something else: in {dtype} it differs by "
                    f"{found[dtype]:.2e}, more than {limit:.0e}."
                )
        return found

    def _result(self, command: Command, dtype: str) -> dict[str, np.ndarray]:
        path = os.path.join(self.folder, "result.npz")
        with self._start(command, dtype) as process:
            process.ask(f"check {path}")
        with np.load(path) as file:
            return dict(file)

    def _pair(self, rival: Command) -> dict[str, Any]:
        with self._start(self.ours) as a, self._start(rival) as b:
            sides = {"ours": a, "rival": b}
            first = {k: p.ask("run") for k, p in sides.items()}
            for process in sides.values():
                process.ask("run")
            load = [os.getloadavg()[0]]
            runs = {k: [] for k in sides}
            for _ in range(self.args.repeats):
                for k, process in sides.items():
                    runs[k].append(process.ask("run"))
            load.append(os.getloadavg()[0])
            found = {k: self._measured(p, first[k], runs[k]) for k, p in sides.items()}
        ratio = {
            of: found["rival"][of] / found["ours"][of]
            for of in ("seconds", "cpu_seconds", "peak_megabytes", "first_step_seconds")
        }
        return found | {"rival_over_ours": ratio, "load": load}

    def _measured(self, process: Process, first: dict, runs: list[dict]) -> dict[str, Any]:
        seconds = [r["seconds"] for r in runs]
        median = statistics.median(seconds)
        return {
            "seconds": median,
            "all_seconds": seconds,
            "cpu_seconds": statistics.median(r["cpu_seconds"] for r in runs),
            "tasks_per_second": self.w.tasks / median,
            "first_step_seconds": first["seconds"],
            "first_step_cpu_seconds": first["cpu_seconds"],
            "import_seconds": process.start_seconds,
            "peak_megabytes": process.peak_megabytes(),
            "import_megabytes": process.import_megabytes,
            "gflops": workloads.flops(self.w) / median / 1e9,
            "versions": process.versions,
        }


def _difference(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """The largest relative difference of a task's whole gradient (or logits), in norm."""
    worst = 0.0
    if set(found) != set(reference):
        raise ValueError(f"names must agree. Received: {sorted(found)} and {sorted(reference)}.")
    for task in range(len(next(iter(reference.values())))):
        rows = {k: v[task].astype(np.float64) for k, v in reference.items()}
        gap = sum(np.sum((found[k][task] - v) ** 2) for k, v in rows.items())
        worst = max(worst, float(np.sqrt(gap / sum(np.sum(v**2) for v in rows.values()))))
    return worst


def _summarise(report: dict[str, Any]) -> None:
    """The best peak of the run, and the share of it that each workload reaches."""
    best = max(max(rates.values()) for rates in report["peak_gflops"])
    report["best_peak_gflops"] = best
    for w in report["workloads"]:
        times = [r["ours"]["seconds"] for r in w["rivals"].values()]
        if times:
            w["ours_seconds"] = statistics.median(times)
            w["ours_share_of_peak"] = w["gflop"] / w["ours_seconds"] / best


def _print(title: str, values: Any) -> None:
    if isinstance(values, dict) and "rival_over_ours" in values:
        a, b = values["ours"], values["rival"]
        values = (
            f"{a['seconds']:.3f} / {b['seconds']:.3f} s, ratio "
            f"{values['rival_over_ours']['seconds']:.2f} (cpu "
            f"{values['rival_over_ours']['cpu_seconds']:.2f}), memory {a['peak_megabytes']:.0f} / "
            f"{b['peak_megabytes']:.0f} MB (imports {a['import_megabytes']:.0f} / "
            f"{b['import_megabytes']:.0f}), first {a['first_step_seconds']:.1f} / "
            f"{b['first_step_seconds']:.1f} s"
        )
    print(f"{title}: {values}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
