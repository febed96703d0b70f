"""Draws the ratios of a benchmark's report.

    python -m bench.plots docs/benchmark.json docs/benchmark.png
"""

from __future__ import annotations

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = (("seconds", "time"), ("cpu_seconds", "CPU time"), ("peak_megabytes", "peak memory"))


def draw(report: dict, path: str) -> None:
    """A row a workload, a panel a quantity; bars are rival / ours."""
    loads = report["workloads"]
    figure, axes = plt.subplots(
        len(loads), 3, figsize=(12, 1 + 2.4 * len(loads)), squeeze=False, layout="constrained"
    )
    for row, workload in zip(axes, loads):
        names = list(workload["rivals"])
        for panel, (key, label) in zip(row, PANELS):
            ratios = [workload["rivals"][n]["rival_over_ours"][key] for n in names]
            bars = panel.barh(names, ratios)
            panel.bar_label(bars, fmt="%.2f", padding=2)
            panel.axvline(1, color="black", lw=1)
            panel.set_xlim(0, 1.2 * max(1, *ratios))
            panel.set_title(f"{workload['name']}: {label}, rival / ours")
            panel.invert_yaxis()
        for panel in row[1:]:
            panel.set_yticklabels([])
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    draw(json.loads(pathlib.Path(source).read_text(encoding="utf-8")), target)
