"""Prints a benchmark's report as Markdown tables.

    python -m bench.tables docs/benchmark.json
"""

from __future__ import annotations

import json
import pathlib
import sys


def rows(report: dict) -> list[str]:
    """One line a pair: the rival, seconds, ratios, memory and the first step."""
    lines = [
        "| | rival | seconds, ours / rival | ratio | CPU ratio | peak MB, ours / rival "
        "| first step s, ours / rival | float64 difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workload in report["workloads"]:
        for name, pair in workload["rivals"].items():
            ours, rival, ratio = pair["ours"], pair["rival"], pair["rival_over_ours"]
            check = (pair.get("check") or {}).get("float64")
            lines.append(
                f"| {workload['name']} | {name} | {ours['seconds']:.3f} / {rival['seconds']:.3f} "
                f"| **{ratio['seconds']:.2f}** | {ratio['cpu_seconds']:.2f} "
                f"| {ours['peak_megabytes']:,.0f} / {rival['peak_megabytes']:,.0f} "
                f"| {ours['first_step_seconds']:.1f} / {rival['first_step_seconds']:.1f} "
                f"| {'–' if check is None else format(check, '.0e')} |"
            )
    return lines


def shares(report: dict) -> list[str]:
    """One line a workload: its GFLOP, our seconds, and the share of the machine's peak."""
    peak = report["best_peak_gflops"]
    lines = [
        f"| | GFLOP | ours, s | share of {peak:.0f} GFLOP/s |",
        "|---|---|---|---|",
    ]
    for w in report["workloads"]:
        lines.append(
            f"| {w['name']} | {w['gflop']:.1f} | {w['ours_seconds']:.3f} "
            f"| {100 * w['ours_share_of_peak']:.0f} % |"
        )
    return lines


if __name__ == "__main__":
    for path in sys.argv[1:]:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        print("\n".join([*rows(content), "", *shares(content), ""]))
