# SPDX-License-Identifier: Apache-2.0
"""Training loss against the Gradient Conflict Index of meta-batches, with a line (the paper's Figure 2)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from tf_lwdgh import config
from tf_lwdgh.studies.figures import drawing
from tf_lwdgh.studies.figures.base import Figure, FigureMaker, Path, Row, Runs
from tf_lwdgh.studies.probe import Probe, probe
from tf_lwdgh.studies.regression import Line, fit_line


@config.configurable
@dataclasses.dataclass(frozen=True)
class LossAgainstGCI(FigureMaker):
    """A point a meta-batch: Σ GCI over units and tasks, and the mean of the tasks' query losses.

    Of each method its first run is drawn, in a panel of its own.

    Attributes:
      steps: how many meta-batches are probed, at least 3; the paper has 100.
      which: the checkpoint: 'last', 'best' or a step that was kept.
      seed: of the tasks.
      split: whose classes they are of.
    """

    name: str = "loss_against_gci"
    steps: int = 100
    which: str | int = "last"
    seed: int = 0
    split: str = "train"

    reference: ClassVar[str] = "Figure 2 of Cross-Task Gradient Harmonization for Meta-Learning"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("steps", 3)

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        probes = {
            method: probe(
                folders[0],
                data_dir=data_dir,
                steps=self.steps,
                which=self.which,
                seed=self.seed,
                split=self.split,
            )
            for method, folders in self.chosen(runs).items()
        }
        canvas, axes = drawing.panels(len(probes), sharex=True, sharey=True)
        lines, table = {}, []
        for i, (axis, (method, found)) in enumerate(zip(axes, probes.items())):
            gci, loss = found.gci.sum((1, 2)), found.losses.mean(1)
            lines[method] = fit_line(gci, loss)
            _panel(axis, gci, loss, lines[method], drawing.style(i)["color"])
            title = f"{method}, step {found.step}\n{_fit(lines[method])}"
            axis.set_title(title, fontsize=10, loc="left")
            table += _rows(method, gci, loss)
        canvas.supxlabel("GCI of the meta-batch (sum over units and tasks)", fontsize=10)
        canvas.supylabel("loss of the meta-batch (nats)", fontsize=10)
        return Figure(self.name, drawing.png(canvas), _caption(probes, lines), table)


def _panel(axis, gci: np.ndarray, loss: np.ndarray, line: Line, color: str) -> None:
    axis.scatter(gci, loss, s=16, color=color, alpha=0.6, linewidths=0)
    ends = np.array([gci.min(), gci.max()])
    axis.plot(ends, line.at(ends), color="black", linewidth=1.6)


def _fit(line: Line) -> str:
    return f"slope {_slope(line)},  r = {drawing.signed(line.r)}"


def _slope(line: Line) -> str:
    return f"{drawing.signed(line.slope, 4)} ± {line.interval95:.4f}"


def _rows(method: str, gci: np.ndarray, loss: np.ndarray) -> list[Row]:
    return [
        {"method": method, "meta_batch": s, "gci": float(x), "loss": float(y)}
        for s, (x, y) in enumerate(zip(gci, loss))
    ]


def _caption(probes: dict[str, Probe], lines: dict[str, Line]) -> str:
    first = next(iter(probes.values()))
    n, k = first.losses.shape
    fits = "; ".join(
        f"{method} (step {probes[method].step}): slope {_slope(line)} nats per unit of GCI, "
        f"r = {drawing.signed(line.r)}"
        for method, line in lines.items()
    )
    return (
        f"Query loss against GCI of {n} meta-batches of {k} tasks of the split {first.split!r}, drawn for "
        f"this figure (seed {first.seed}), at the checkpoints of each method's first run; nothing was "
        "trained on them. Lines: ordinary least squares; ± is 1.96 standard errors of the slope, "
        f"n = {n}. {fits}."
    )
