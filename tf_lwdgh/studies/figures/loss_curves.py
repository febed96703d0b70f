# SPDX-License-Identifier: Apache-2.0
"""Training loss by epoch of two or more methods (the paper's Figure 4)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from matplotlib.ticker import MaxNLocator

from tf_lwdgh import config
from tf_lwdgh.outer.meta_step import OuterLoop
from tf_lwdgh.runs import experiment, summaries
from tf_lwdgh.studies.figures import drawing
from tf_lwdgh.studies.figures.base import Figure, FigureMaker, Path, Row, Runs

BANDS = {
    "range": "from the lowest to the highest seed",
    "sd": "one standard deviation over the seeds (ddof = 1) to either side",
    "none": "",
}


@config.configurable
@dataclasses.dataclass(frozen=True)
class LossCurves(FigureMaker):
    """The mean over seeds of the training loss of each epoch, with a band where there is more than one.

    Attributes:
      band: what the band is: 'range' (lowest to highest seed), 'sd' (± one standard deviation over the
        seeds) or 'none'.
      epochs: how many of the first epochs are drawn; None: all that every seed of a method has whole.
    """

    name: str = "loss_curves"
    band: str = "range"
    epochs: int | None = None

    least_methods: ClassVar[int] = 2
    reference: ClassVar[str] = "Figure 4 of Cross-Task Gradient Harmonization for Meta-Learning"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("band", self.band in BANDS, f"must be one of {', '.join(BANDS)}")
        if self.epochs is not None:
            self.require_whole("epochs", 1)

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        curves = {m: self._losses(folders) for m, folders in self.chosen(runs).items()}
        canvas, (axis,) = drawing.panels(1, size=(7.0, 4.4))
        table: list[Row] = []
        for i, (method, losses) in enumerate(curves.items()):
            rows = self._rows(method, losses)
            self._curve(axis, rows, i)
            table += rows
        axis.set_xlabel("epoch")
        axis.set_ylabel("training loss (query set, nats)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.02)
        axis.legend(frameon=False)
        return Figure(self.name, drawing.png(canvas), self._caption(curves), table)

    def _losses(self, folders: list[Path]) -> np.ndarray:
        """The losses of a method: [seeds, epochs]."""
        each = [epoch_losses(folder) for folder in folders]
        shortest = min(len(losses) for losses in each)
        if not shortest:
            raise ValueError(
                f"{type(self).__name__} needs runs of at least one whole epoch. "
                f"Received: {str(folders[[len(x) for x in each].index(0)])!r}."
            )
        return np.stack([losses[:shortest] for losses in each])[:, : self.epochs]

    def _rows(self, method: str, losses: np.ndarray) -> list[Row]:
        """A row an epoch, counted from 1; 'low' and 'high' are the band's."""
        mean = losses.mean(0)
        low = high = mean
        if len(losses) > 1 and self.band == "range":
            low, high = losses.min(0), losses.max(0)
        elif len(losses) > 1 and self.band == "sd":
            deviation = losses.std(0, ddof=1)
            low, high = mean - deviation, mean + deviation
        return [
            {"method": method, "epoch": e + 1, "n_seeds": len(losses), "loss": float(mean[e]),
             "low": float(low[e]), "high": float(high[e])}
            for e in range(len(mean))
        ]  # fmt: skip

    def _curve(self, axis, rows: list[Row], i: int) -> None:
        epochs, loss, low, high = ([row[name] for row in rows] for name in ("epoch", "loss", "low", "high"))
        seeds = rows[0]["n_seeds"]
        label = f"{rows[0]['method']} ({seeds} seed{'s' if seeds > 1 else ''})"
        marker = {"marker": drawing.MARKERS[i % len(drawing.MARKERS)], "markersize": 4}
        few = marker if len(epochs) <= 30 else {}
        axis.plot(epochs, loss, label=label, linewidth=1.8, **drawing.style(i), **few)
        if seeds > 1 and self.band != "none":
            color = drawing.style(i)["color"]
            axis.fill_between(epochs, low, high, color=color, alpha=0.18, linewidth=0)

    def _caption(self, curves: dict[str, np.ndarray]) -> str:
        seeds = ", ".join(f"{method}: {len(losses)}" for method, losses in curves.items())
        text = (
            "Training loss by epoch: the mean over an epoch's meta-steps of the tasks' query loss, and "
            f"over seeds ({seeds})."
        )
        banded = [m for m, losses in curves.items() if len(losses) > 1]
        if self.band == "none":
            return f"{text} No band is drawn."
        if not banded:
            return f"{text} No band: one seed each."
        alone = "" if len(banded) == len(curves) else " A method with one seed has none."
        return f"{text} Band: {BANDS[self.band]}.{alone}"


def epoch_losses(run_dir: Path) -> np.ndarray:
    """The mean training loss of each whole epoch of a run: [epochs] float64.

    A line of the metrics is the mean over the steps since the line before; where such a window crosses
    an epoch's end, its steps count for the epoch that they are of.

    Raises:
      FileNotFoundError: no such run, or nothing was logged yet.
    """
    experiment.parse_run(run_dir)
    steps_per_epoch = OuterLoop().steps_per_epoch
    lines = summaries.read_metrics(run_dir)
    ends = np.array([line["step"] for line in lines], np.int64)
    losses = np.array([line["train/loss"] for line in lines], np.float64)
    by_step = np.repeat(losses, np.diff(ends, prepend=0))
    whole = len(by_step) // steps_per_epoch
    return by_step[: whole * steps_per_epoch].reshape(whole, steps_per_epoch).mean(1)
