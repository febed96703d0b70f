# SPDX-License-Identifier: Apache-2.0
"""The groups of classes that a task of varying shape may be drawn from, as Meta-Dataset has them.

Triantafillou et al. 2020, section 3.2. A data set without a hierarchy is one group, as is each superclass
of a bi-level one (an alphabet of Omniglot), and the classes below each node of a graph (ImageNet's).
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from tf_lwdgh.data.mixtures import Mixture, Spec
from tf_lwdgh.data.store import DatasetSpec

MOST_BELOW_A_NODE = 392  # a node with more classes below it is no group: the published number


class Limits(Protocol):
    """Those settings of VariableEpisodes that say what is a group."""

    min_ways: int
    max_ways_upper_bound: int
    min_examples_in_class: int
    hierarchy: bool


@dataclasses.dataclass(frozen=True)
class Group:
    """Classes that may be in one task.

    Attributes:
      members: their ids, in the data set's numbering.
      fewest: the least number of ways of a task.
      most: the largest.
      probability: that a task is of this group.
    """

    members: tuple[int, ...]
    fewest: int
    most: int
    probability: float


def groups(spec: Spec, split: str, limits: Limits) -> list[Group]:
    """The groups of a split; of a mixture those of each set, by the sets' shares.

    Within a set all groups are equally likely.

    Raises:
      ValueError: the split cannot fill the tasks; the message names the data set and the binding.
    """
    if not isinstance(spec, Mixture):
        return _of_one(spec, split, limits)
    found = []
    for part, share, ids in zip(spec.specs, spec.shares, spec.parts(split), strict=True):
        shift = ids.start - part.classes(split).start
        for group in _of_one(part, split, limits):
            members = tuple(c + shift for c in group.members)
            probability = share * group.probability
            found.append(dataclasses.replace(group, members=members, probability=probability))
    return found


def _of_one(spec: DatasetSpec, split: str, limits: Limits) -> list[Group]:
    least = limits.min_examples_in_class
    usable = [c for c in spec.classes(split) if spec.images_per_class[c] >= least]
    if len(usable) < limits.min_ways:
        raise ValueError(
            "VariableEpisodes.min_ways must be at most the number of classes that have "
            f"VariableEpisodes.min_examples_in_class = {least} images: split {split!r} of data set "
            f"{spec.name!r} has {len(usable)}. "
            f"Received: VariableEpisodes.min_ways = {limits.min_ways}."
        )
    if limits.hierarchy and spec.nodes:
        found = _below_nodes(spec, usable, limits)
    elif limits.hierarchy and spec.superclasses:
        found = _of_superclasses(spec, split, usable, limits)
    else:
        found = [_uniform(usable, limits)]
    return [dataclasses.replace(group, probability=1 / len(found)) for group in found]


def _uniform(members: list[int], limits: Limits) -> Group:
    """A group whose tasks have any number of ways within the limits."""
    most = min(limits.max_ways_upper_bound, len(members))
    return Group(tuple(members), limits.min_ways, most, 1.0)


def _of_superclasses(
    spec: DatasetSpec, split: str, usable: list[int], limits: Limits
) -> list[Group]:
    members: dict[int, list[int]] = {}
    for c in usable:
        members.setdefault(spec.superclasses[c], []).append(c)
    for i, classes in members.items():
        if len(classes) < limits.min_ways:
            raise ValueError(
                "VariableEpisodes.min_ways must be at most the number of classes of every superclass, "
                f"or VariableEpisodes.hierarchy must be False: in split {split!r} of data set "
                f"{spec.name!r} {spec.superclass_names[i]!r} has {len(classes)}. "
                f"Received: VariableEpisodes.min_ways = {limits.min_ways}."
            )
    return [_uniform(members[i], limits) for i in sorted(members)]


def _below_nodes(spec: DatasetSpec, usable: list[int], limits: Limits) -> list[Group]:
    """A task has all classes below a node, or a draw of as many as it may have."""
    wanted, found = set(usable), []
    for node in spec.nodes:
        below = tuple(c for c in node if c in wanted)
        if limits.min_ways <= len(below) <= MOST_BELOW_A_NODE:
            ways = min(limits.max_ways_upper_bound, len(below))
            found.append(Group(below, ways, ways, 1.0))
    if not found:
        raise ValueError(
            f"VariableEpisodes.min_ways must be at most the number of classes below a node of data set "
            f"{spec.name!r} that has at most {MOST_BELOW_A_NODE}, or VariableEpisodes.hierarchy must be "
            f"False: there is none. Received: VariableEpisodes.min_ways = {limits.min_ways}."
        )
    return found


@dataclasses.dataclass(frozen=True)
class Table:
    """Groups as arrays, for a graph.

    Attributes:
      members: [G, L] int32, the first sizes[g] of row g count.
      sizes: [G] int32.
      fewest: [G] int32.
      most: [G] int32.
      limits: [G - 1] float64, the sums of the probabilities of the first 1, 2, … groups.
    """

    members: np.ndarray
    sizes: np.ndarray
    fewest: np.ndarray
    most: np.ndarray
    limits: np.ndarray

    @classmethod
    def of(cls, found: list[Group]) -> Table:
        """The table of these groups."""
        sizes = np.array([len(g.members) for g in found], np.int32)
        members = np.zeros([len(found), sizes.max()], np.int32)
        for row, group in zip(members, found, strict=True):
            row[: len(group.members)] = group.members
        fewest = np.array([g.fewest for g in found], np.int32)
        most = np.array([g.most for g in found], np.int32)
        limits = np.cumsum([g.probability for g in found])[:-1]
        return cls(members, sizes, fewest, most, limits)
