# SPDX-License-Identifier: Apache-2.0
"""Our step's time and peak memory against tasks, shots, queries and inner steps, in both memory modes.

From the root of the repository:

    python -m bench.scaling --out docs/scaling.json --plot docs/scaling.png
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from bench import workloads
from bench.process import Command

AXES = {
    "tasks": (1, 2, 4, 8),
    "k_shot": (1, 3, 5),
    "n_query": (5, 15, 30),
    "inner_steps": (2, 5, 10, 20),
}
MODES = ("store", "recompute")


def measure(base: str, change: str, mode: str, repeats: int, log: str, images: str) -> dict[str, float]:
    """One setting in a process of its own."""
    text = ",".join(filter(None, (base, change)))
    w = workloads.parse(text)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "arrays.npz")
        episodes = workloads.episodes(w, 0, workloads.fitting(w, images))
        np.savez(path, **workloads.weights(w, 0), **episodes)
        command = Command(sys.executable, "bench.ours", ("--memory", mode))
        with command.start(text, path, "float32", log) as process:
            first = process.ask("run")
            process.ask("run")
            runs = [process.ask("run") for _ in range(repeats)]
            return {
                "seconds": statistics.median(r["seconds"] for r in runs),
                "cpu_seconds": statistics.median(r["cpu_seconds"] for r in runs),
                "first_step_seconds": first["seconds"],
                "first_step_cpu_seconds": first["cpu_seconds"],
                "peak_megabytes": process.peak_megabytes(),
                "gflop": workloads.flops(w) / 1e9,
                "load": os.getloadavg()[0],
            }


def plot(report: dict, path: str) -> None:
    """Rows: CPU seconds and memory; a column an axis."""
    drawn = list(dict.fromkeys(p["axis"] for p in report["points"]))
    width = 1 + 3 * len(drawn)
    figure, axes = plt.subplots(2, len(drawn), figsize=(width, 6), sharey="row", squeeze=False, layout="constrained")
    rows = (("cpu_seconds", "CPU seconds a step"), ("peak_megabytes", "peak memory, MB"))
    for column, axis in enumerate(drawn):
        for row, (key, label) in enumerate(rows):
            panel = axes[row, column]
            for mode in MODES:
                points = [p for p in report["points"] if p["axis"] == axis and p["mode"] == mode]
                panel.plot([p["value"] for p in points], [p[key] for p in points], "o-", label=mode)
            panel.set_xlabel(axis)
            panel.set_xlim(left=0)
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label)
    for row, (key, _) in enumerate(rows):
        axes[row, 0].set_ylim(0, 1.05 * max(p[key] for p in report["points"]))
    axes[0, 0].legend(title="memory")
    figure.suptitle(f"{report['base']}: cost against work")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="W1")
    parser.add_argument("--axes", default=" ".join(AXES), help="which, by spaces")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", default="", help="files of bench.images, by spaces; else random")
    parser.add_argument("--out", default="scaling.json")
    parser.add_argument("--plot", default="scaling.png")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    report = {"base": args.base, "points": []}
    known: dict[tuple, dict] = {}
    for axis in args.axes.split():
        for value in AXES[axis]:
            for mode in MODES:
                usual = value == getattr(workloads.parse(args.base), axis)
                change = "" if usual else f"{axis}={value}"
                if (change, mode) not in known:
                    log = str(out.with_suffix(".log"))
                    known[change, mode] = measure(args.base, change, mode, args.repeats, log, args.images)
                point = {"axis": axis, "value": value, "mode": mode, **known[change, mode]}
                print(point, file=sys.stderr, flush=True)
                report["points"].append(point)
                out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(report, args.plot)


if __name__ == "__main__":
    main()
