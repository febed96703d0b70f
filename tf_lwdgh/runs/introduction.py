# SPDX-License-Identifier: Apache-2.0
"""What a run is, as a Markdown list: its data, model, learner, aggregator and command."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tf_lwdgh.data.episodes import TaskShape
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.data.store import SPLITS
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.runs.experiment import Assembly
from tf_lwdgh.runs.summaries import explores


def markdown(assembly: Assembly, settings: Mapping[str, str], command: str) -> str:
    """The list. TensorBoard breaks the words of a table's narrow columns.

    Args:
      assembly: the run's parts.
      settings: the values in use, of `config.settings`.
      command: what started it.
    """
    outer, image = assembly.outer, assembly.image
    rows = {
        "data set": _data(assembly.spec),
        "tasks": _tasks(assembly),
        "images": f"{image.image_size}×{image.image_size}, channels: {image.channels}",
        "model": _model(assembly, settings),
        "learner": type(assembly.learner).__name__ + _steps(assembly),
        "aggregator": type(assembly.experiment.aggregator).__name__ + _explore(settings),
        "outer loop": f"{outer.epochs} epochs of {outer.steps_per_epoch} meta-steps of "
        f"{outer.meta_batch_size} tasks, {_name(settings, 'optimizer')}",
        "seed": str(assembly.experiment.seed),
        "command": f"`{command}`",
    }
    return "\n".join(f"- **{name}**: {value}" for name, value in rows.items())


def _data(spec: Spec) -> str:
    def part(split: str) -> str:
        classes = spec.classes(split)
        images = sum(spec.images_per_class[c] for c in classes)
        return f"{split} {len(classes):,} classes, {images:,} images"

    parts = "; ".join(part(split) for split in SPLITS)
    return f"{spec.name}: {parts}; fingerprint {spec.fingerprint[:12]}"


def _tasks(assembly: Assembly) -> str:
    shape, training = assembly.shape, assembly.training_episode
    return _shape(shape) + ("" if training == shape else f"; in training {_shape(training)}")


def _shape(shape: TaskShape) -> str:
    if isinstance(shape, VariableEpisodes):
        return f"varying ways and shots, {shape.min_ways} to {shape.max_ways_upper_bound} ways"
    return f"{shape.n_way}-way {shape.k_shot}-shot, {shape.n_query} queries a class"


def _model(assembly: Assembly, settings: Mapping[str, str]) -> str:
    own = sum(int(np.prod(v.shape)) for v in assembly.parameters.own.values())
    more = f", and {own:,} of the learner's own" if own else ""
    count = assembly.keras_model.count_params()
    return f"{_name(settings, 'backbone')}, {count:,} parameters{more}"


def _steps(assembly: Assembly) -> str:
    steps = assembly.learner.inner_steps(None)
    return "" if steps is None else f", {steps} inner steps"


def _explore(settings: Mapping[str, str]) -> str:
    return " + explore-exploit (EE)" if explores(settings) else ""


def _name(settings: Mapping[str, str], part: str) -> str:
    return settings.get(f"Experiment.{part}", "").strip("@()'")
