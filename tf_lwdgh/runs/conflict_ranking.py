# SPDX-License-Identifier: Apache-2.0
"""Ranks the layers of a run by how often its tasks conflicted in them (Recon, Shi et al. 2023).

Recon counts, over the first quarter of training and for each layer, the pairs of tasks whose
gradients have a cosine below a threshold (ConflictReport.threshold). The rates of such pairs stand
in the run's metrics. A run whose aggregator has unit = 'layer' gives the counts of whole layers, as
Recon's; of one with unit = 'variable' a layer gets the mean over its variables, so that none leads
for having many.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tf_lwdgh.aggregators.conflict_report import ConflictReport
from tf_lwdgh.learners.gradient_learner import GradientLearner
from tf_lwdgh.runs import experiment, summaries

GROUP = "strong_conflict_rate"


class RankedLayer(NamedTuple):
    """A layer and its conflicts."""

    name: str
    rate: float  # the share of pairs of tasks in conflict, in [0, 1]
    pairs: float  # how many those were


class Ranking(NamedTuple):
    """The layers of a run, the one with the most conflicts first."""

    layers: list[RankedLayer]
    steps: int  # the meta-steps that were counted
    threshold: float  # the cosine below which a pair counts


def of_run(run_dir: str | os.PathLike[str], *, share: float = 0.25) -> Ranking:
    """Ranks the layers that the inner loop of a run could move.

    Args:
      run_dir: the folder of a run that has at least that share of its steps behind it.
      share: of the run's steps, from its start on, in (0, 1].

    Raises:
      ValueError: a share out of range, a run that is not so far yet, or metrics without the rates.
      FileNotFoundError: no such run.
    """
    if not 0 < share <= 1:
        raise ValueError(f"--share must be in (0, 1]. Received: {share}.")
    assembly = experiment.from_run(run_dir)
    model = assembly.parameters.model
    steps = max(1, round(share * assembly.total_steps))
    rates, counted = layer_rates(
        summaries.read_metrics(run_dir), dict(zip(model.names, model.layer_names)), steps
    )
    tasks = assembly.outer.meta_batch_size
    pairs = counted * tasks * (tasks - 1) / 2
    movable = _movable(assembly)
    layers = [RankedLayer(n, r, r * pairs) for n, r in rates.items() if n in movable]
    layers.sort(key=lambda layer: -layer.rate)  # stable: in the network's order where equal
    return Ranking(layers, counted, ConflictReport().threshold)


def layer_rates(
    lines: Sequence[Mapping[str, float]], layer_of: Mapping[str, str], steps: int
) -> tuple[dict[str, float], int]:
    """Each layer's share of pairs in conflict over the first steps, and how many steps count.

    Args:
      lines: of metrics.jsonl; each holds the means over the steps since the line before.
      layer_of: each variable's layer.
      steps: how many; of the windows those count that end by then.

    Raises:
      ValueError: the run is not so far, no window ends by then, or a rate is missing.
    """
    last = lines[-1]["step"] if lines else 0
    if last < steps:
        raise ValueError(f"the run has to reach step {steps} first. Received: step {last}.")
    units = _units(lines[0], layer_of)
    sums, before = dict.fromkeys(units, 0.0), 0
    for line in lines:
        if line["step"] > steps:
            break
        for unit in units:
            sums[unit] += (line["step"] - before) * _rate(line, unit)
        before = int(line["step"])
    if not before:
        raise ValueError(
            f"no line of the metrics lies within the first {steps} steps; log more often "
            f"(TrainerConfig.log_every). Received: a first line at step {lines[0]['step']}."
        )
    by_layer: dict[str, list[float]] = {}
    for unit, layer in units.items():
        by_layer.setdefault(layer, []).append(sums[unit] / before)
    return {layer: sum(rates) / len(rates) for layer, rates in by_layer.items()}, before


def bindings(layers: Sequence[str]) -> list[str]:
    """The gin bindings that let the inner loop move these layers alone."""
    chosen = f"Recon.layers = {tuple(layers)!r}"
    return ["Recon.control = 'ranked'", chosen, "Recon.n_layers = None"]


def random_bindings(count: int, seed: int) -> list[str]:
    """The gin bindings of the control: as many layers, drawn at random."""
    return ["Recon.control = 'random'", f"Recon.n_layers = {count}", f"Recon.seed = {seed}"]


def _units(line: Mapping[str, float], layer_of: Mapping[str, str]) -> dict[str, str]:
    """The layer of each unit that the metrics tell of: units are variables or layers."""
    known = {**{layer: layer for layer in layer_of.values()}, **layer_of}
    named = [key.removeprefix(f"{GROUP}/") for key in line if key.startswith(f"{GROUP}/")]
    found = {unit: known[unit] for unit in known if unit in named}
    if not found:
        raise ValueError(
            f"the run's metrics hold no {GROUP!r} of variables or layers. Train with "
            "ConflictReport.cosines = True and an aggregator whose unit is 'layer' or 'variable'. "
            f"Received: units {', '.join(named) or 'none'}."
        )
    return found


def _rate(line: Mapping[str, float], unit: str) -> float:
    rate = line.get(f"{GROUP}/{unit}")
    if rate is None:
        raise ValueError(f"step {line['step']} of the metrics has no {GROUP}/{unit}.")
    return rate


def _movable(assembly: experiment.Assembly) -> set[str]:
    """The layers that the run's inner loop moves; all of them where the learner has none."""
    model, learner = assembly.parameters.model, assembly.learner
    if not isinstance(learner, GradientLearner):
        return set(model.layer_names)
    rates = learner.rates(model)
    return {name for name, rate in zip(model.layer_names, rates) if rate}
