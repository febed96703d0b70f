# SPDX-License-Identifier: Apache-2.0
"""Kept classifiers: each learned once, asked often, and let go when there are too many, or it is too old."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused


@dataclasses.dataclass(frozen=True)
class Kept:
    """A learned classifier.

    Attributes:
      name: by which it is asked.
      classes: their names, in the order of the model's labels.
      n_images: support images of each class.
      tensors: what the model's `adapt` gave.
      version: of the model that learned it, and answers for it.
      learned_at: seconds since 1970.
    """

    name: str
    classes: tuple[str, ...]
    n_images: tuple[int, ...]
    tensors: dict[str, np.ndarray]
    version: int
    learned_at: float

    @property
    def n_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(array.nbytes for array in self.tensors.values())


class Store:
    """Classifiers by name; of too many, that which was used longest ago goes. For one thread.

    Args:
      limits: max_classifiers, max_classifier_bytes and classifier_ttl count here.
      clock: seconds, which only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._kept: collections.OrderedDict[str, tuple[float, Kept]] = collections.OrderedDict()

    def put(self, kept: Kept) -> list[str]:
        """Keeps a classifier, in place of an earlier one of its name.

        Returns:
          The names of others that went for it.

        Raises:
          Refused: it is larger than all may be together (413).
        """
        most = self._limits.max_classifier_bytes
        if kept.n_bytes > most:
            raise Refused(413, f"kept classifiers may have {most} bytes. Received: {kept.n_bytes}.")
        self.expire()
        self._kept.pop(kept.name, None)
        self._kept[kept.name] = self._clock(), kept
        gone = []
        while len(self._kept) > self._limits.max_classifiers or self.n_bytes > most:
            gone.append(self._kept.popitem(last=False)[0])
        return gone

    def get(self, name: str) -> Kept:
        """A classifier, which counts as used now.

        Raises:
          Refused: none has this name, or not any more (404).
        """
        self.expire()
        if name not in self._kept:
            raise Refused(404, f"no classifier is kept by the name {name!r}.")
        self._kept.move_to_end(name)
        return self._kept[name][1]

    def remove(self, name: str) -> None:
        """Lets a classifier go; raises as `get` does."""
        self.get(name)
        del self._kept[name]

    def all(self) -> list[Kept]:
        """Every classifier, that which was used longest ago first; none counts as used."""
        self.expire()
        return [kept for _, kept in self._kept.values()]

    def expire(self) -> None:
        """Lets go what is too old."""
        oldest = self._clock() - self._limits.classifier_ttl
        for name in [n for n, (since, _) in self._kept.items() if since <= oldest]:
            del self._kept[name]

    @property
    def n_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(kept.n_bytes for _, kept in self._kept.values())
