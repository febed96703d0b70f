# SPDX-License-Identifier: Apache-2.0
"""What the weights softmax(-GCI/τ) prefer: tasks with small gradients, with a low loss, or near the mean."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from tf_lwdgh import config
from tf_lwdgh.studies import probe_summary
from tf_lwdgh.studies.figures import drawing
from tf_lwdgh.studies.figures.base import Figure, FigureMaker, Path, Row, Runs
from tf_lwdgh.studies.probe import Probe, probe
from tf_lwdgh.studies.probe_summary import QUANTITIES, Correlation

LABELS = {
    "gradient_norm": "gradient norm",
    "loss": "query loss",
    "cosine": "cosine with the mean",
}
_UNITS_OF = {"gradient_norm": "", "loss": " (nats)", "cosine": ""}
_BINS = 10  # in each the weights' mean is marked


@config.configurable
@dataclasses.dataclass(frozen=True)
class WeightScatter(FigureMaker):
    """A task's weight against its gradient's norm, its loss and its cosine, within meta-batches.

    Of each method its first run is drawn, in a row of its own.

    Attributes:
      unit: the unit that is drawn, such as 'conv1/kernel'; empty: all, in each unit's standard deviations.
      steps: how many meta-batches are probed, at least 2.
      which: the checkpoint: 'last', 'best' or a step that was kept.
      seed: of the tasks.
      split: whose classes they are of.
    """

    name: str = "weight_scatter"
    unit: str = ""
    steps: int = 100
    which: str | int = "last"
    seed: int = 0
    split: str = "train"

    reference: ClassVar[str] = "no figure of the paper: it tests the paper's reading of its eq. 4"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("steps", 2)

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        settings: dict[str, Any] = {"steps": self.steps, "which": self.which, "seed": self.seed, "split": self.split}
        chosen = self.chosen(runs)
        probes = {m: probe(f[0], data_dir=data_dir, **settings) for m, f in chosen.items()}
        canvas, axes = drawing.panels(3 * len(probes), sharey="row")
        table: list[Row] = []
        said = {}
        for i, (method, found) in enumerate(probes.items()):
            rows, correlations = self._points(method, found), self._correlations(found)
            for axis, quantity in zip(axes[3 * i :], QUANTITIES):
                self._panel(axis, rows, quantity, correlations[quantity], i)
            axes[3 * i].set_ylabel(f"weight, less its mean{self._scale}", fontsize=9)
            axes[3 * i].set_title(f"{method}, step {found.step}\n", fontsize=10, loc="left")
            said[method] = correlations
            table += rows
        return Figure(self.name, drawing.png(canvas), self._caption(probes, said), table)

    @property
    def _scale(self) -> str:
        return "" if self.unit else " (sd of its unit)"

    def _position(self, found: Probe) -> int:
        self.require("unit", self.unit in found.units, f"must be one of {', '.join(found.units)}")
        return found.units.index(self.unit)

    def _points(self, method: str, found: Probe) -> list[Row]:
        """A row a task in a unit: what is drawn, and where it is from."""
        scaled = probe_summary.centred if self.unit else probe_summary.standardised
        values = {"weight": scaled(found.weights)}
        values |= {q: scaled(probe_summary.compared(found, q)) for q in QUANTITIES}
        units = [self._position(found)] if self.unit else range(len(found.units))
        s, k = found.losses.shape
        return [
            {"method": method, "meta_batch": b, "unit": found.units[u], "task": t,
             **{name: float(v[b, u, t]) for name, v in values.items()}}
            for b in range(s) for u in units for t in range(k)
        ]  # fmt: skip

    def _correlations(self, found: Probe) -> dict[str, Correlation]:
        summary = probe_summary.summarise(found)
        return (summary.units[self.unit] if self.unit else summary.pooled).correlations

    def _panel(self, axis, rows: list[Row], quantity: str, correlation: Correlation, i: int) -> None:
        x, y = (np.array([row[name] for row in rows]) for name in (quantity, "weight"))
        many = len(x) > 1000
        axis.scatter(
            x, y, s=5 if many else 12, alpha=0.15 if many else 0.5, linewidths=0,
            color=drawing.style(i)["color"], rasterized=True,
        )  # fmt: skip
        axis.plot(*binned(x, y), color="black", marker="o", markersize=4, linewidth=1.2)
        axis.axhline(0, color=drawing.GREY, linewidth=0.6)
        scale = self._scale or _UNITS_OF[quantity]
        axis.set_xlabel(f"{LABELS[quantity]}, less its mean{scale}", fontsize=9)
        axis.set_title(str(correlation), fontsize=10, loc="right")

    def _caption(self, probes: dict[str, Probe], said: dict[str, dict[str, Correlation]]) -> str:
        found = next(iter(probes.values()))
        s, k = found.losses.shape
        what = f"of the unit {self.unit}" if self.unit else f"of {len(found.units)} units together"
        scale = "" if self.unit else ", and divided by the unit's standard deviation"
        results = "; ".join(
            f"{method} (step {probes[method].step}, {probes[method].rule}): "
            + ", ".join(f"{LABELS[q]} {c}" for q, c in correlations.items())
            for method, correlations in said.items()
        )
        return (
            f"Weights of eq. 4 {what} against three measures of the same tasks: {s} meta-batches of {k} "
            f"tasks of the split {found.split!r}, drawn for this figure (seed {found.seed}), at the "
            "checkpoints of each method's first run. From every value its meta-batch's mean is taken "
            f"off{scale}. A point is a task{'' if self.unit else ' in a unit'}; black: means of {_BINS} "
            "equally large groups along the horizontal axis. r is Pearson's, in brackets its 95 % "
            f"interval by resampling meta-batches. {results}."
        )


def binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means of x and of y in groups of equally many points along x."""
    order = np.argsort(x, kind="stable")
    groups = np.array_split(order, min(_BINS, len(x)))
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])
