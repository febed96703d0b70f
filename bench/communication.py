# SPDX-License-Identifier: Apache-2.0
"""What the replicas of a run send each other in a meta-step, on paper: bytes by method and model.

    python -m bench.communication

tests/outer/test_multi_worker.py holds `all_reduces` against the graphs that are built.
"""

from __future__ import annotations

import dataclasses

METHODS = ("mean", "lwdgh", "gram", "gather")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
      parameters: D, numbers that the outer loop trains.
      harmonized: of these, those in units of conflict.
      units: U.
      tasks: T, of one replica.
      replicas: R; K = R T.
      statistics: numbers of BatchNorm's averages.
      size: bytes of a number.
    """

    parameters: int
    harmonized: int
    units: int
    tasks: int
    replicas: int
    statistics: int = 0
    size: int = 4


def all_reduces(method: str, s: Setting, *, cosines: bool = False) -> list[int]:
    """The bytes of each all-reduce of a meta-step, as they lie in one replica's memory.

    Args:
      method: 'mean'; 'lwdgh'; 'gram', any aggregator that needs the tasks' inner products; or 'gather',
        the trimmed mean, which needs all values of a coordinate.
      s: the run.
      cosines: ConflictReport.cosines, which needs the inner products too.
    """
    all_tasks = s.replicas * s.tasks
    gradient, of_tasks = s.parameters * s.size, s.units * all_tasks * s.size
    found = [gradient, of_tasks, 2 * 4]  # ḡ; GCI; loss and accuracy, in float32
    if s.statistics:
        found.append(s.statistics * s.size)
    if method in ("lwdgh", "gram"):
        found.append(gradient)  # the weighted sum
    if method == "gram":
        found.append(all_tasks * s.size)  # losses
    if method == "gather":
        found += [s.tasks * gradient] * s.replicas
    if method == "gram" or cosines:
        found.append(of_tasks)  # norms
        found += [s.tasks * s.harmonized * s.size] * s.replicas
        found.append(s.units * all_tasks**2 * 8)  # inner products, in float64
    return found


def sent(method: str, s: Setting, *, cosines: bool = False) -> float:
    """Bytes that each replica sends in a meta-step, all-reduces going round a ring: 2(R − 1)/R of each."""
    return 2 * (s.replicas - 1) / s.replicas * sum(all_reduces(method, s, cosines=cosines))


def shown(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):  # noqa: B007  (it is used after the loop)
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "TB"
    return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.2g} {unit}"


# Convnet4 and Resnet12 on 84×84 images, 5-way, each variable a unit: D, in units, U, statistics.
MODELS = {"Convnet4 of 32 filters": (32_901, 32_773, 14, 256), "Resnet12": (7_999_365, 7_999_365, 50, 7_680)}


def main() -> None:
    for model, (parameters, harmonized, units, statistics) in MODELS.items():
        print(f"\n| {model}, T = 4: replicas | {' | '.join(METHODS)} | lwdgh with cosines |")
        print("|---" * (len(METHODS) + 2) + "|")
        for replicas in (2, 4, 8, 32, 128, 1024):
            s = Setting(parameters, harmonized, units, 4, replicas, statistics)
            row = [shown(sent(m, s)) for m in METHODS] + [shown(sent("lwdgh", s, cosines=True))]
            print(f"| {replicas:,} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
