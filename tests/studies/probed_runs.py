# SPDX-License-Identifier: Apache-2.0
"""Run folders as training leaves them, made without training; and probes made up from random numbers."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import checkpoints
from tf_lwdgh.runs.checkpoints import CheckpointFolder
from tf_lwdgh.runs.experiment import CONFIG_FILE
from tf_lwdgh.runs.summaries import METRICS_FILE
from tf_lwdgh.studies.probe import Probe


def write_run(
    folder: pathlib.Path, name: str, *gin_params: str, steps: Sequence[int] = (8,), noise: float = 0.05
) -> tuple[pathlib.Path, list[np.ndarray]]:
    """Writes settings and checkpoints, whose weights are the initial ones under noise of this deviation.

    Returns:
      The run's folder, and the last checkpoint's values of the network's variables.
    """
    assembly = tiny.build(folder, *gin_params)
    run_dir, model = folder / name, assembly.parameters.model
    kept = CheckpointFolder(run_dir / "checkpoints", keep=len(steps))
    generator = np.random.default_rng(0)
    for step in steps:
        for variable in model.variables:
            value = np.asarray(variable) + generator.normal(0, noise, variable.shape)
            variable.assign(value.astype(np.float32))
        state = checkpoints.meta_variables(assembly.parameters)
        kept.save(step, state, {"best_accuracy": 0.5, "settings": config.settings()})
    (run_dir / CONFIG_FILE).write_text(config.full_text(), encoding="utf-8")
    config.clear()
    return run_dir, [np.array(v, np.float64) for v in model.variables]


def write_metrics(run_dir: pathlib.Path, ends: Sequence[int], losses: Sequence[float]) -> None:
    """Writes lines that end at these steps."""
    lines = [json.dumps({"step": s, "train/loss": x}) + "\n" for s, x in zip(ends, losses)]
    (run_dir / METRICS_FILE).write_text("".join(lines), encoding="utf-8")


def made_up(n_batches: int = 30, n_units: int = 3, n_tasks: int = 4, seed: int = 0, step: int = 8) -> Probe:
    """A probe of random numbers: units of unlike scale, and losses that shift from batch to batch."""
    r = np.random.default_rng(seed)
    shape = (n_batches, n_units, n_tasks)
    scale = 10.0 ** np.arange(n_units)[:, None]
    norms, cosines = scale * r.gamma(4, 1, shape), r.uniform(-1, 1, shape)
    scores = np.exp(0.3 * r.normal(size=shape) + 0.5 * cosines - 0.2 * norms / scale)
    return Probe(
        run_dir="made/up",
        step=step,
        split="train",
        seed=0,
        rule="LWDGH()",
        units=tuple(f"conv{u + 1}/kernel" for u in range(n_units)),
        losses=r.normal(size=(n_batches, n_tasks)) + 3 * r.normal(size=(n_batches, 1)),
        gradient_norms=norms,
        gci=norms * (1 - cosines),
        cosines=cosines,
        weights=scores / scores.sum(-1, keepdims=True),
        update_norms=r.gamma(4, 1, shape[:2]),
        mean_norms=r.gamma(4, 1, shape[:2]),
    )
