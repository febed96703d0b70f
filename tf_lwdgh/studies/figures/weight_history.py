# SPDX-License-Identifier: Apache-2.0
"""What the weights softmax(-GCI/τ) prefer in the course of training, at the checkpoints that were kept."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from matplotlib.ticker import MaxNLocator

from tf_lwdgh import config
from tf_lwdgh.studies.figures import drawing
from tf_lwdgh.studies.figures.base import Figure, FigureMaker, Path, Row, Runs
from tf_lwdgh.studies.figures.weight_scatter import LABELS
from tf_lwdgh.studies.probe import Prober, kept_steps
from tf_lwdgh.studies.probe_summary import QUANTITIES, UnitSummary, summarise


@config.configurable
@dataclasses.dataclass(frozen=True)
class WeightHistory(FigureMaker):
    """The correlations of WeightScatter, over all units, by the step of training.

    Of each method its first run is drawn, in a panel of its own; TrainerConfig.keep_checkpoints says
    how many checkpoints a run keeps.

    Attributes:
      steps: how many meta-batches are probed at each checkpoint, at least 2.
      seed: of the tasks.
      split: whose classes they are of.
    """

    name: str = "weight_history"
    steps: int = 50
    seed: int = 0
    split: str = "train"

    reference: ClassVar[str] = "no figure of the paper: it tests the paper's reading of its eq. 4"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("steps", 2)

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        chosen = self.chosen(runs)
        canvas, axes = drawing.panels(len(chosen), size=(4.8, 3.8), sharex=True, sharey=True)
        table: list[Row] = []
        for axis, (method, folders) in zip(axes, chosen.items()):
            rows = self._rows(method, folders[0], data_dir)
            _panel(axis, rows)
            axis.set_title(method, fontsize=10)
            table += rows
        axes[0].legend(frameon=False, fontsize=8)
        canvas.supxlabel("meta-steps", fontsize=10)
        canvas.supylabel("correlation with the weight", fontsize=10)
        return Figure(self.name, drawing.png(canvas), self._caption(table), table)

    def _rows(self, method: str, run_dir: Path, data_dir: Path) -> list[Row]:
        """A row a checkpoint and quantity."""
        kept = kept_steps(run_dir)
        if not kept:
            raise FileNotFoundError(
                f"{type(self).__name__} needs runs with checkpoints. Received: {str(run_dir)!r}, which has none."
            )
        rows = []
        prober = Prober(run_dir, data_dir=data_dir, seed=self.seed, split=self.split)
        for step in kept:
            rows += _of_checkpoint(method, step, summarise(prober.at(step, steps=self.steps)).pooled)
        return rows

    def _caption(self, table: list[Row]) -> str:
        checkpoints = {(row["method"], row["step"]) for row in table}
        return (
            "Correlation, within meta-batches and over all units, of the weights of eq. 4 with three "
            f"measures of the tasks, at {len(checkpoints)} checkpoints of the methods' first runs. "
            f"Each is of {self.steps} meta-batches of the split {self.split!r}, the same for all "
            f"(seed {self.seed}). Bars: 95 % intervals by resampling meta-batches."
        )


def _of_checkpoint(method: str, step: int, summary: UnitSummary) -> list[Row]:
    return [
        {"method": method, "step": step, "quantity": q, **summary.correlations[q]._asdict(),
         "largest_weight": summary.largest_weight, "effective_step": summary.effective_step}
        for q in QUANTITIES
    ]  # fmt: skip


def _panel(axis, rows: list[Row]) -> None:
    apart = 0.008 * (rows[-1]["step"] - rows[0]["step"])  # so that no bar hides another
    for i, quantity in enumerate(QUANTITIES):
        mine = [row for row in rows if row["quantity"] == quantity]
        steps, r, low, high = ([row[n] for row in mine] for n in ("step", "r", "low", "high"))
        bars = [[a - b for a, b in zip(r, low)], [b - a for a, b in zip(r, high)]]
        axis.errorbar(
            [step + (i - 1) * apart for step in steps], r, bars, label=LABELS[quantity],
            marker=drawing.MARKERS[i], markersize=5, capsize=3, **drawing.style(i),
        )  # fmt: skip
    axis.axhline(0, color=drawing.GREY, linewidth=0.8)
    axis.set_ylim(-1.05, 1.05)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
