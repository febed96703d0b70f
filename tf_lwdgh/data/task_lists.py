# SPDX-License-Identifier: Apache-2.0
"""Fixed tasks in a file, so that two checkpoints, or two programs, are judged on the same ones."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import episodes
from tf_lwdgh.data.episodes import EpisodeConfig, EpisodeIndices, TaskShape
from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.task_files import Tasks, names_of_sets, read_content, refuse_tasks
from tf_lwdgh.data.variable_episodes import VariableEpisodes
from tf_lwdgh.data.variable_task_lists import VariableTaskList


@dataclasses.dataclass(frozen=True, eq=False)
class TaskList(Tasks):
    """n tasks of one shape, of one split of one data set.

    Attributes:
      config: the tasks' shape.
      class_ids: [n, N] int32, of the data set.
      rotations: [n, N] int32 in [0, 4).
      image_indices: [n, N, K+Q] int32, image numbers within the class.
    """

    config: EpisodeConfig
    class_ids: np.ndarray
    rotations: np.ndarray
    image_indices: np.ndarray

    FORMAT: ClassVar[str] = "tf_lwdgh tasks 1"

    def __post_init__(self) -> None:
        pair = (len(self), self.config.n_way)
        shapes = (pair, pair, (*pair, self.config.images_per_class))
        for name, shape in zip(("class_ids", "rotations", "image_indices"), shapes, strict=True):
            array = np.asarray(getattr(self, name), np.int32)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}. Received: {array.shape}.")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.class_ids)

    @classmethod
    def draw(
        cls, spec: Spec, split: str, config: EpisodeConfig, *, seed: int, n_tasks: int
    ) -> TaskList:
        """Draws tasks 0 to n_tasks - 1 of step 0: those of `pipeline.evaluation_tasks`."""
        if n_tasks < 1:
            raise ValueError(f"n_tasks must be at least 1. Received: {n_tasks}.")
        episodes.check(spec, split, config)

        @tf.autograph.experimental.do_not_convert
        def one(task: tf.Tensor) -> EpisodeIndices:
            return episodes.sample(spec, split, config, seed=seed, step=0, task=task)

        indices = tf.data.Dataset.range(n_tasks).map(one).batch(n_tasks).get_single_element()
        arrays = (tensor.numpy() for tensor in indices)
        return cls(spec.name, spec.fingerprint, split, config, seed, *arrays)

    def first(self, n_tasks: int) -> TaskList:
        """The first n_tasks of the list, all where it has fewer."""
        arrays = ("class_ids", "rotations", "image_indices")
        return dataclasses.replace(self, **{name: getattr(self, name)[:n_tasks] for name in arrays})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TaskList:
        """Reads what `write` wrote.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it is no task list, or its content does not match its sha256.
        """
        return _made(cls, EpisodeConfig, read_content(path, {cls.FORMAT: cls}))

    def indices(self) -> tf.data.Dataset:
        listed = EpisodeIndices(self.class_ids, self.rotations, self.image_indices)
        return tf.data.Dataset.from_tensor_slices(listed)

    def shape(self) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in ("n_way", "k_shot", "n_query")}

    def datasets(self, spec: Spec) -> list[str]:
        """Which data set of a mixture each task is of; [] where there is one only."""
        return names_of_sets(spec, self.class_ids, self.split)

    def _check_ranges(self, spec: Spec) -> None:
        classes = spec.classes(self.split)
        turns = episodes.N_ROTATIONS if self.config.rotations else 1
        known = (self.class_ids >= classes.start) & (self.class_ids < classes.stop)
        known &= (self.rotations >= 0) & (self.rotations < turns)
        refuse_tasks(~known, f"classes of split {self.split!r} and fewer than {turns} rotations")
        if isinstance(spec, Mixture):
            several = spec.dataset_of_tasks(self.class_ids, self.split) < 0
            refuse_tasks(several, "classes of one data set")
        sizes = np.asarray(spec.images_per_class)[self.class_ids][..., None]
        known = (self.image_indices >= 0) & (self.image_indices < sizes)
        refuse_tasks(~known, "image numbers below the class's number of images")
        pairs = np.sort(self.class_ids * episodes.N_ROTATIONS + self.rotations, axis=-1)
        refuse_tasks(np.diff(pairs) == 0, "no class twice")
        refuse_tasks(np.diff(np.sort(self.image_indices)) == 0, "no image of a class twice")

    def _lists(self) -> dict[str, list]:
        return {
            "class_ids": self.class_ids.tolist(),
            "rotations": self.rotations.tolist(),
            "image_indices": self.image_indices.tolist(),
        }


_KINDS = {TaskList.FORMAT: (TaskList, EpisodeConfig), VariableTaskList.FORMAT: (VariableTaskList, VariableEpisodes)}


def draw(spec: Spec, split: str, config: TaskShape, *, seed: int, n_tasks: int) -> Tasks:
    """Draws tasks 0 to n_tasks - 1 of step 0, of one shape or of varying ones."""
    kind = VariableTaskList if isinstance(config, VariableEpisodes) else TaskList
    return kind.draw(spec, split, config, seed=seed, n_tasks=n_tasks)


def read(path: str | os.PathLike[str]) -> Tasks:
    """Reads what `Tasks.write` wrote, of one shape or of varying ones.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no task list, or its content does not match its sha256.
    """
    content = read_content(path, _KINDS)
    return _made(*_KINDS[content["format"]], content)


def _made(kind: type[Tasks], shape: type, content: dict[str, Any]) -> Tasks:
    rest = {k: v for k, v in content.items() if k not in ("format", "settings")}
    return kind(config=shape(**content["settings"]), **rest)
