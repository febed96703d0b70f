# SPDX-License-Identifier: Apache-2.0
"""Fixed tasks of varying shape: each with its own ways, shots and queries."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import variable_episodes
from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.task_files import Tasks, names_of_sets, refuse_tasks
from tf_lwdgh.data.variable_episodes import VariableEpisodes, VariableIndices

VARIABLE = "variable"  # stands where a number of ways, shots or queries does


@dataclasses.dataclass(frozen=True, eq=False)
class VariableTaskList(Tasks):
    """n tasks of varying shape, of one split of one data set.

    Attributes:
      config: as what they were drawn.
      class_ids: of each task [N] int32, of the data set.
      support_sizes: of each task [N] int32, the support images of each class.
      n_query: [n] int32, of each task the query images of every class.
      image_indices: of each task [ΣK_c + N*q] int32, image numbers within the class, in the order of
        VariableIndices.
    """

    config: VariableEpisodes
    class_ids: tuple[np.ndarray, ...]
    support_sizes: tuple[np.ndarray, ...]
    n_query: np.ndarray
    image_indices: tuple[np.ndarray, ...]

    FORMAT: ClassVar[str] = "tf_lwdgh variable tasks 1"

    def __post_init__(self) -> None:
        for name in ("class_ids", "support_sizes", "image_indices"):
            arrays = tuple(np.asarray(task, np.int32) for task in getattr(self, name))
            object.__setattr__(self, name, arrays)
        object.__setattr__(self, "n_query", np.asarray(self.n_query, np.int32))
        lengths = {len(getattr(self, n)) for n in ("class_ids", "support_sizes", "image_indices")}
        if lengths != {len(self.n_query)}:
            raise ValueError(f"every list must be of the same tasks. Received: lengths {lengths}.")
        for i, (classes, sizes, q, images) in enumerate(self._tasks()):
            if len(sizes) != len(classes) or len(images) != sizes.sum() + len(classes) * q:
                raise ValueError(
                    "every task must hold as many support sizes as classes, and as many images as those "
                    f"and n_query make. Received: task {i} does not."
                )

    def __len__(self) -> int:
        return len(self.n_query)

    def _tasks(self) -> zip:
        return zip(self.class_ids, self.support_sizes, self.n_query, self.image_indices)

    @classmethod
    def draw(
        cls, spec: Spec, split: str, config: VariableEpisodes, *, seed: int, n_tasks: int
    ) -> VariableTaskList:
        """Draws tasks 0 to n_tasks - 1 of step 0: those of `pipeline.evaluation_tasks`."""

        @tf.autograph.experimental.do_not_convert
        def one(task: tf.Tensor) -> VariableIndices:
            return variable_episodes.sample(spec, split, config, seed=seed, step=0, task=task)

        drawn = zip(*tf.data.Dataset.range(n_tasks).map(one).as_numpy_iterator(), strict=True)
        return cls(spec.name, spec.fingerprint, split, config, seed, *drawn)

    def indices(self) -> tf.data.Dataset:
        def flat(arrays: tuple[np.ndarray, ...]) -> tuple[tf.Tensor, tf.Tensor]:
            starts = np.cumsum([0, *map(len, arrays)])
            return tf.constant(np.concatenate(arrays)), tf.constant(starts, tf.int32)

        parts = [flat(a) for a in (self.class_ids, self.support_sizes, self.image_indices)]
        n_query = tf.constant(self.n_query)

        @tf.autograph.experimental.do_not_convert
        def one(task: tf.Tensor) -> VariableIndices:
            classes, sizes, images = (v[starts[task] : starts[task + 1]] for v, starts in parts)
            return VariableIndices(classes, sizes, n_query[task], images)

        return tf.data.Dataset.range(len(self)).map(one)

    def shape(self) -> dict[str, Any]:
        ways = np.array([len(c) for c in self.class_ids])
        support = np.array([s.sum() for s in self.support_sizes])
        return {
            "n_way": VARIABLE, "k_shot": VARIABLE, "n_query": VARIABLE,
            "mean_ways": float(ways.mean()), "mean_support": float(support.mean()),
            "mean_shots": float((support / ways).mean()), "mean_queries": float(self.n_query.mean()),
        }  # fmt: skip

    def datasets(self, spec: Spec) -> list[str]:
        """Which data set of a mixture each task is of; [] where there is one only."""
        return names_of_sets(spec, np.array([c[:1] for c in self.class_ids]), self.split)

    def _check_ranges(self, spec: Spec) -> None:
        known, counts = spec.classes(self.split), np.asarray(spec.images_per_class)

        def wrong(holds) -> np.ndarray:
            return np.array([not holds(*task) for task in self._tasks()])

        def images_fit(classes, sizes, q, images) -> bool:
            owner = _owners(classes, sizes, q)
            pairs = set(zip(owner.tolist(), images.tolist()))
            fit = (images >= 0).all() and (images < counts[owner]).all()
            return bool(fit) and len(pairs) == len(images)

        inside = wrong(lambda c, *_: ((c >= known.start) & (c < known.stop)).all())
        refuse_tasks(inside, f"classes of split {self.split!r}")
        if isinstance(spec, Mixture):
            sets = [spec.dataset_of_tasks(c[None], self.split)[0] for c in self.class_ids]
            refuse_tasks(np.array(sets) < 0, "classes of one data set")
        refuse_tasks(wrong(lambda c, *_: len(set(c.tolist())) == len(c) > 1), "no class twice")
        refuse_tasks(wrong(lambda _, k, q, __: q > 0 and (k > 0).all()), "images of every class")
        rule = "image numbers below the class's number of images, and no image twice"
        refuse_tasks(wrong(images_fit), rule)

    def _lists(self) -> dict[str, list]:
        def plain(arrays: tuple[np.ndarray, ...]) -> list[list[int]]:
            return [a.tolist() for a in arrays]

        return {
            "class_ids": plain(self.class_ids),
            "support_sizes": plain(self.support_sizes),
            "n_query": self.n_query.tolist(),
            "image_indices": plain(self.image_indices),
        }


def _owners(classes: np.ndarray, sizes: np.ndarray, n_query: int) -> np.ndarray:
    """The class of each image of a task."""
    return np.concatenate([np.repeat(classes, sizes), np.repeat(classes, n_query)])
