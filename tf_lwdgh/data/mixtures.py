# SPDX-License-Identifier: Apache-2.0
"""Several data sets as one: every task's classes are of one set, which is drawn by the sets' shares.

A mixture numbers the classes of all sets anew: those of each split follow one another set by set, and
the splits follow one another as in a single data set.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from typing import Any

import numpy as np

from tf_lwdgh.data.store import SPLITS, DatasetSpec


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What two or more data sets hold together; stands where a DatasetSpec does.

    Attributes:
      names: of the sets, each different.
      specs: of the sets.
      weights: how often a task is of each set, on any scale; `shares` sum to 1.
    """

    names: tuple[str, ...]
    specs: tuple[DatasetSpec, ...]
    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        """All names, joined by '+'."""
        return "+".join(self.names)

    @property
    def shares(self) -> tuple[float, ...]:
        """The probability that a task is of each set."""
        return tuple(weight / sum(self.weights) for weight in self.weights)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the sets' fingerprints and shares, in order."""
        content = [[s.fingerprint, share] for s, share in zip(self.specs, self.shares)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @functools.cached_property
    def images_per_class(self) -> tuple[int, ...]:
        """By class id of the mixture."""
        return tuple(
            spec.images_per_class[c]
            for split in SPLITS
            for spec in self.specs
            for c in spec.classes(split)
        )

    def classes(self, split: str) -> range:
        """The class ids of 'train', 'val' or 'test'."""
        parts = self.parts(split)
        return range(parts[0].start, parts[-1].stop)

    def parts(self, split: str) -> list[range]:
        """The class ids of a split that are of each set."""
        start = sum(spec.classes(split).start for spec in self.specs)
        ends = itertools.accumulate(
            (len(spec.classes(split)) for spec in self.specs), initial=start
        )
        return [range(a, b) for a, b in itertools.pairwise(ends)]

    def dataset_of_tasks(self, class_ids: np.ndarray, split: str) -> np.ndarray:
        """The set, as its position in `names`, of each of tasks [n, N]; -1 where there are several."""
        ends = [part.stop for part in self.parts(split)]
        of_class = np.searchsorted(ends, class_ids, side="right")
        return np.where((of_class == of_class[:, :1]).all(axis=1), of_class[:, 0], -1)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Each set's fingerprint and share by its name, as JSON values."""
        parts = zip(self.names, self.specs, self.shares, strict=True)
        return {n: {"fingerprint": s.fingerprint, "share": share} for n, s, share in parts}


Spec = DatasetSpec | Mixture
