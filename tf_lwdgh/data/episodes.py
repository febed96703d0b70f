# SPDX-License-Identifier: Apache-2.0
"""Which images make up task t of step s: a pure function of its arguments."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lwdgh import config as gin_config
from tf_lwdgh.data import variable_episodes
from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.random_streams import (  # noqa: F401  (the streams of other rooms' draws)
    AUGMENTATION,
    CLASSES,
    DATASET,
    IMAGES,
    LABELS,
    draw,
    split_key,
    task_key,
    uniform,
)
from tf_lwdgh.data.variable_episodes import VariableEpisodes, VariableIndices

N_ROTATIONS = 4  # 0, 90, 180 and 270 degrees


class EpisodeIndices(NamedTuple):
    """The make-up of one task: of each class the first K images are support, the others query."""

    class_ids: tf.Tensor  # [N] int32: class ids of the data set; position i is label i
    rotations: tf.Tensor  # [N] int32 in [0, 4): quarter turns, anticlockwise
    image_indices: tf.Tensor  # [N, K+Q] int32: image numbers within each class


@gin_config.configurable
@dataclasses.dataclass(frozen=True)
class EpisodeConfig:
    """The shape of a task.

    Attributes:
      n_way: classes in a task, N >= 2.
      k_shot: support images a class, K >= 1.
      n_query: query images a class, Q >= 1.
      rotations: every class also counts turned by 90, 180 and 270 degrees: four times as many
        classes (usual with Omniglot). A task may hold the same class under two rotations.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    n_way: int = 5
    k_shot: int = 1
    n_query: int = 15
    rotations: bool = False

    def __post_init__(self) -> None:
        for name, least in (("n_way", 2), ("k_shot", 1), ("n_query", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"EpisodeConfig.{name} must be an integer of at least {least}. "
                    f"Received: EpisodeConfig.{name} = {value!r}."
                )
        if not isinstance(self.rotations, bool):
            raise ValueError(
                "EpisodeConfig.rotations must be True or False. "
                f"Received: EpisodeConfig.rotations = {self.rotations!r}."
            )

    @property
    def images_per_class(self) -> int:
        """K+Q."""
        return self.k_shot + self.n_query

    @property
    def images_per_task(self) -> int:
        """N(K+Q)."""
        return self.n_way * self.images_per_class


TaskShape = EpisodeConfig | VariableEpisodes


def check(spec: Spec, split: str, config: TaskShape, binding: str = "EpisodeConfig") -> None:
    """Makes sure, before anything runs, that the split (of every set) can fill every possible task.

    Args:
      spec: the data set's or mixture's description.
      split: 'train', 'val' or 'test'.
      config: the tasks' shape.
      binding: whose attributes in gin a shape that does not vary is told by.

    Raises:
      ValueError: the split has fewer classes than n_way, or a class fewer than k_shot + n_query
        images; or as `variable_episodes.check`.
    """
    if isinstance(config, VariableEpisodes):
        variable_episodes.check(spec, split, config)
        return
    if isinstance(spec, Mixture):
        for part in spec.specs:
            check(part, split, config, binding)
        return
    classes, available = spec.classes(split), n_classes(spec, split, config)
    if config.n_way > available:
        turned = f" ({len(classes)} x {N_ROTATIONS} rotations)" if config.rotations else ""
        raise ValueError(
            f"{binding}.n_way must be at most the number of classes: split {split!r} of data "
            f"set {spec.name!r} has {available}{turned}. "
            f"Received: {binding}.n_way = {config.n_way}."
        )
    short = [c for c in classes if spec.images_per_class[c] < config.images_per_class]
    if short:
        names, counts = spec.class_names, spec.images_per_class
        sizes = ", ".join(f"class {names[c]!r} has {counts[c]}" for c in short[:3])
        more = f" and {len(short) - 3} more classes are short" if len(short) > 3 else ""
        raise ValueError(
            f"{binding}.k_shot + {binding}.n_query must be at most the number of images of "
            f"every class: in split {split!r} of data set {spec.name!r} {sizes}{more}. Received: "
            f"{binding}.k_shot = {config.k_shot}, {binding}.n_query = {config.n_query}, "
            f"which need {config.images_per_class}."
        )


def n_classes(spec: Spec, split: str, config: EpisodeConfig) -> int:
    """The classes of a split, of a mixture those of all sets; four times as many with rotations."""
    return len(spec.classes(split)) * (N_ROTATIONS if config.rotations else 1)


def sample(
    spec: Spec,
    split: str,
    config: TaskShape,
    *,
    seed: int,
    step: tf.Tensor | int,
    task: tf.Tensor | int,
) -> EpisodeIndices | VariableIndices:
    """Draws one task, without replacement, in the graph.

    N of the split's classes (of its (class, rotation) pairs, with rotations) and K+Q images of each
    are drawn uniformly, in uniform order. Classes may differ in size. Of a mixture the data set is
    drawn first, by its share, and then N of its classes. Tasks of varying shape are those of
    `variable_episodes.sample`.

    Args:
      spec: the data set, or a mixture.
      split: 'train', 'val' or 'test'.
      config: the task's shape.
      seed: any Python integer.
      step: scalar integer tensor, the meta-step.
      task: scalar integer tensor, the task's number within its step.

    Raises:
      ValueError: the split cannot fill such a task.
    """
    if isinstance(config, VariableEpisodes):
        return variable_episodes.sample(spec, split, config, seed=seed, step=step, task=task)
    check(spec, split, config)
    key = split_key(seed, split)
    classes = spec.classes(split)
    turns = N_ROTATIONS if config.rotations else 1
    start, count, most = 0, len(classes), len(classes)
    if isinstance(spec, Mixture):
        start, count, most = _of_one_set(spec, split, task_key(key, step, task, DATASET))
    drawn = draw(
        task_key(key, step, task, CLASSES),
        tf.reshape(count * turns, [1]),
        most * turns,
        config.n_way,
    )[0]
    position = start + drawn % count
    sizes = tf.constant([spec.images_per_class[c] for c in classes], tf.int32)
    images = draw(
        task_key(key, step, task, IMAGES),
        tf.gather(sizes, position),
        max(spec.images_per_class[c] for c in classes),
        config.images_per_class,
    )
    return EpisodeIndices(position + classes.start, drawn // count, images)


def _of_one_set(spec: Mixture, split: str, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, int]:
    """Draws a set of a mixture: its first class, counted from the split's, and its number of classes.

    Returns:
      Two scalars int32, and the number of classes of the largest set.
    """
    limits = tf.constant(np.cumsum(spec.shares)[:-1])
    drawn = tf.searchsorted(limits, uniform(key, [1]), side="right")[0]
    parts, first = spec.parts(split), spec.classes(split).start
    starts = tf.constant([part.start - first for part in parts])
    counts = [len(part) for part in parts]
    return starts[drawn], tf.constant(counts)[drawn], max(counts)
