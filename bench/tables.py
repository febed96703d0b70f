# SPDX-License-Identifier: Apache-2.0
"""Prints the benchmarks' reports as Markdown tables.

From the root of the repository:

    python -m bench.tables docs/benchmark.json docs/scaling.json docs/method_speed.json
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
    """One line a workload: its GFLOP, our seconds, and the share of the products timed after it."""
    lines = [
        "| | GFLOP a step | ours, s | GFLOP/s | the product: NumPy / TensorFlow | share |",
        "|---|---|---|---|---|---|",
    ]
    for w, peak in zip(report["workloads"], report["peak_gflops"]):
        rate = w["gflop"] / w["ours_seconds"]
        products = peak["numpy"], peak["tensorflow"]
        lines.append(
            f"| {w['name']} | {w['gflop']:,.1f} | {w['ours_seconds']:.3f} | {rate:.0f} "
            f"| {' / '.join(f'{p:.0f}' for p in products)} "
            f"| {' / '.join(f'{100 * rate / p:.0f} %' for p in products)} |"
        )
    return lines


def scaling(report: dict) -> list[str]:
    """One line an axis and memory mode of a report of bench.scaling."""
    lines = [
        "| axis | memory | seconds a step | CPU seconds | GFLOP a CPU second | peak MB | first step, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for axis, mode in dict.fromkeys((p["axis"], p["mode"]) for p in report["points"]):
        points = [p for p in report["points"] if (p["axis"], p["mode"]) == (axis, mode)]
        columns = (
            [f"{p['seconds']:.2f}" for p in points],
            [f"{p['cpu_seconds']:.2f}" for p in points],
            [f"{p['gflop'] / p['cpu_seconds']:.0f}" for p in points],
            [f"{p['peak_megabytes']:,.0f}" for p in points],
            [f"{p['first_step_seconds']:.0f}" for p in points],
        )
        values = ", ".join(str(p["value"]) for p in points)
        cells = " | ".join(" · ".join(column) for column in columns)
        lines.append(f"| `{axis}` {values} | {mode} | {cells} |")
    return lines


def added(report: dict) -> list[str]:
    """What the aggregators of a report of bench.method_speed add to the baseline's step."""
    lines = [
        "| aggregator | aggregation and report, ms | more than the mean's, ms | of the step |",
        "|---|---|---|---|",
    ]
    for name, x in report["aggregators"].items():
        if "refused" in x:
            continue
        extra = x["milliseconds"] - x["mean_milliseconds"]
        lines.append(f"| {name} | {x['milliseconds']:.1f} | {extra:+.1f} | {100 * (x['ratio'] - 1):+.1f} % |")
    return lines


def learners(report: dict) -> list[str]:
    """The learners of a report of bench.method_speed beside its baseline."""
    lines = [
        "| learner | inner steps | seconds, MAML / it | ratio | first step, s |",
        "|---|---|---|---|---|",
    ]
    for name, x in report["learners"].items():
        lines.append(
            f"| `{name}` | {x['inner_steps']} | {x['baseline_seconds']:.2f} / {x['seconds']:.2f} "
            f"| **{x['ratio']:.2f}** | {x['first_step_seconds']:.0f} |"
        )
    return lines


def aggregation(report: dict) -> list[str]:
    """One line an aggregator of a report of bench.aggregation: ours / TorchJD's by number of tasks."""
    counts = list(report["ours"])
    lines = [
        f"| ms, ours / TorchJD | {' | '.join(f'{k} tasks' for k in counts)} |",
        "|---" * (len(counts) + 1) + "|",
    ]

    def cell(name: str, tasks: str) -> str:
        both = (report[side].get(tasks, {}).get(name, {}) for side in ("ours", "torchjd"))
        return " / ".join(f"{x['milliseconds']:.1f}" if "milliseconds" in x else "–" for x in both)

    rows_of = report["ours"][counts[0]]
    return [*lines, *(f"| {name} | {' | '.join(cell(name, k) for k in counts)} |" for name in rows_of)]


def tables(report: dict) -> list[list[str]]:
    """Those of a report, by what it holds."""
    if "points" in report:
        return [scaling(report)]
    if "learners" in report:
        return [added(report), learners(report)]
    if "torchjd" in report:
        return [aggregation(report)]
    return [rows(report), shares(report)]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        found = tables(json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
        print("\n\n".join("\n".join(table) for table in found) + "\n")
