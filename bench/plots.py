# SPDX-License-Identifier: Apache-2.0
"""Draws the ratios of one or more reports, all workloads in one picture.

From the root of the repository:

    python -m bench.plots docs/benchmark.json … docs/benchmark.png
"""

from __future__ import annotations

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = (("seconds", "time"), ("cpu_seconds", "CPU time"), ("peak_megabytes", "peak memory"))


def draw(loads: list[dict], path: str) -> None:
    """A row a workload, a panel a quantity; bars are rival / ours, to the right where ours needs less."""
    figure, axes = plt.subplots(len(loads), 3, figsize=(12, 1 + 2.4 * len(loads)), squeeze=False, layout="constrained")
    for row, workload in zip(axes, loads):
        names = list(workload["rivals"])
        for panel, (key, label) in zip(row, PANELS):
            ratios = [workload["rivals"][n]["rival_over_ours"][key] for n in names]
            bars = panel.barh(names, [r - 1 for r in ratios], left=1)
            panel.bar_label(bars, [f"{r:.2f}" for r in ratios], padding=2)
            panel.axvline(1, color="black", lw=1)
            panel.set_xscale("log")
            panel.set_xlim(0.6 * min(1, *ratios), 2 * max(1, *ratios))
            ticks = [t for t in (0.5, 1, 2, 4, 10, 20, 50) if t < 2 * max(1, *ratios)]
            panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
            panel.minorticks_off()
            panel.set_title(f"{workload['name']}: {label}, rival / ours")
            panel.invert_yaxis()
        for panel in row[1:]:
            panel.set_yticklabels([])
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    *sources, target = sys.argv[1:]
    reports = [json.loads(pathlib.Path(s).read_text(encoding="utf-8")) for s in sources]
    draw([w for report in reports for w in report["workloads"]], target)
