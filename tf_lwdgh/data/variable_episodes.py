# SPDX-License-Identifier: Apache-2.0
"""Tasks of varying ways and shots: Meta-Dataset's sampling (Triantafillou et al. 2020, section 3.2).

For one task, with n_c the images of class c:
  N ~ uniform{min_ways … min(max_ways_upper_bound, classes of the group)};
  q = min(max_num_query, min_c ⌊n_c / 2⌋) queries of every class, r_c = n_c - q remain;
  S = min(max_support_set_size, Σ_c ⌈β min(max_support_size_contrib_per_class, r_c)⌉), β ~ uniform(0, 1];
  k_c = min(r_c, 1 + ⌊(S - N) w_c / Σ w⌋), w_c = n_c exp(a_c), a_c ~ uniform[min_log_weight, max_log_weight).
Classes are drawn of one group (`class_groups`); below a node of a graph N is not drawn, but all of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lwdgh import config as gin_config
from tf_lwdgh.data.class_groups import Table, groups
from tf_lwdgh.data.mixtures import Spec
from tf_lwdgh.data.random_streams import (
    CLASSES,
    DATASET,
    IMAGES,
    ORDER,
    SHAPE,
    WEIGHTS,
    draw,
    draw_few,
    split_key,
    task_key,
    uniform,
)


class VariableIndices(NamedTuple):
    """The make-up of one task of varying shape."""

    class_ids: tf.Tensor  # [N] int32: class ids of the data set; position i is label i
    support_sizes: tf.Tensor  # [N] int32: K_c, the support images of each class
    n_query: tf.Tensor  # scalar int32: q, the query images of every class
    image_indices: tf.Tensor  # [ΣK_c + N*q] int32: within each class; support class by class, then query


@gin_config.configurable
@dataclasses.dataclass(frozen=True)
class VariableEpisodes:
    """Tasks whose ways and shots vary, in place of EpisodeConfig's one shape. The defaults are the published.

    Attributes:
      min_ways: the least number of classes in a task, at least 2.
      max_ways_upper_bound: the largest.
      max_num_query: the largest number of query images a class.
      max_support_set_size: the largest number of support images in a task.
      max_support_size_contrib_per_class: how many images of a class count, at most, where the size of
        the support set is drawn.
      min_log_weight: the classes' shares of the support set are drawn around their shares of the images,
        each times exp of a number from here …
      max_log_weight: … to here.
      min_examples_in_class: classes with fewer images are left out; at least 2.
      hierarchy: whether the classes of a task are of one superclass, or lie below one node, where the
        data set has such; each must then have min_ways classes.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    min_ways: int = 5
    max_ways_upper_bound: int = 50
    max_num_query: int = 10
    max_support_set_size: int = 500
    max_support_size_contrib_per_class: int = 100
    min_log_weight: float = math.log(0.5)
    max_log_weight: float = math.log(2.0)
    min_examples_in_class: int = 2
    hierarchy: bool = True

    def __post_init__(self) -> None:
        least = {
            "min_ways": 2, "max_ways_upper_bound": self.min_ways, "max_num_query": 1,
            "max_support_set_size": self.max_ways_upper_bound,
            "max_support_size_contrib_per_class": 1, "min_examples_in_class": 2,
        }  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            self._require(name, whole and value >= bound, f"an integer of at least {bound}")
        finite = math.isfinite(self.min_log_weight)
        self._require("min_log_weight", finite, "a finite number")
        ordered = self.min_log_weight <= self.max_log_weight < math.inf
        rule = f"finite and at least min_log_weight, {self.min_log_weight:g}"
        self._require("max_log_weight", ordered, rule)
        self._require("hierarchy", isinstance(self.hierarchy, bool), "True or False")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            binding = f"VariableEpisodes.{name}"
            raise ValueError(
                f"{binding} must be {rule}. Received: {binding} = {getattr(self, name)!r}."
            )


def check(spec: Spec, split: str, config: VariableEpisodes) -> None:
    """Makes sure, before anything runs, that the split (of every set) can fill the tasks.

    Raises:
      ValueError: it cannot.
    """
    groups(spec, split, config)


def sample(
    spec: Spec,
    split: str,
    config: VariableEpisodes,
    *,
    seed: int,
    step: tf.Tensor | int,
    task: tf.Tensor | int,
) -> VariableIndices:
    """Draws one task, without replacement, in the graph; the arguments are those of `episodes.sample`."""
    table = Table.of(groups(spec, split, config))
    root = split_key(seed, split)

    def key(stream: int) -> tf.Tensor:
        return task_key(root, step, task, stream)

    group = tf.searchsorted(tf.constant(table.limits), uniform(key(DATASET), [1]), side="right")[0]
    shape = uniform(key(SHAPE), [2])
    fewest, most = tf.constant(table.fewest)[group], tf.constant(table.most)[group]
    ways = fewest + tf.cast(tf.floor(shape[0] * tf.cast(most - fewest + 1, tf.float64)), tf.int32)
    sizes = tf.constant(table.sizes)[group][None]
    drawn = draw(key(CLASSES), sizes, table.members.shape[1], ways)[0]
    class_ids = tf.gather(tf.constant(table.members)[group], drawn)
    start = spec.classes(split).start
    counts = np.array([spec.images_per_class[c] for c in spec.classes(split)], np.int32)
    images = tf.gather(tf.constant(counts), class_ids - start)
    n_query = tf.minimum(config.max_num_query, tf.reduce_min(images) // 2)
    weights = uniform(key(WEIGHTS), tf.shape(images))
    support_sizes = _support_sizes(config, images, n_query, shape[1], weights)
    places = draw_few(key(IMAGES), key(ORDER), images, support_sizes + n_query)
    column, last = tf.range(tf.shape(places)[1]), support_sizes[:, None]
    support = tf.boolean_mask(places, column < last)
    query = tf.boolean_mask(places, (column >= last) & (column < last + n_query))
    return VariableIndices(class_ids, support_sizes, n_query, tf.concat([support, query], 0))


def _support_sizes(
    config: VariableEpisodes,
    images: tf.Tensor,
    n_query: tf.Tensor,
    size: tf.Tensor,
    weights: tf.Tensor,
) -> tf.Tensor:
    """K_c [N] int32 of classes of `images` [N]; `size` and `weights` [N] are random, in [0, 1)."""
    exact = tf.cast(images, tf.float64)
    remaining = exact - tf.cast(n_query, tf.float64)
    counted = tf.minimum(remaining, float(config.max_support_size_contrib_per_class))
    total = tf.reduce_sum(tf.floor(size * counted) + 1)  # ⌈β x⌉ with β = 1 - size, in distribution
    total = tf.minimum(total, float(config.max_support_set_size))
    span = config.max_log_weight - config.min_log_weight
    shares = exact * tf.exp(config.min_log_weight + span * weights)
    shares /= tf.reduce_sum(shares)
    spare = total - tf.cast(tf.size(images), tf.float64)
    return tf.cast(tf.minimum(remaining, 1 + tf.floor(spare * shares)), tf.int32)
