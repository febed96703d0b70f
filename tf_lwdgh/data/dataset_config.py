# SPDX-License-Identifier: Apache-2.0
"""Which data set, or which several."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.data import store
from tf_lwdgh.data.mixtures import Mixture, Spec


@config.configurable
@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Which data set, or which several: then every task is of one of them.

    Attributes:
      name: of the folder under --data_dir that holds its records; or a tuple of names.
      shares: how often a task is of each set: as many positive numbers as names, of which only the
        ratios count. None: equally often.

    Raises:
      ValueError: a value breaks its rule; the message names the gin binding.
    """

    name: str | tuple[str, ...] = config.REQUIRED
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        names = checked_names(self.name, "DatasetConfig.name")
        object.__setattr__(self, "name", names[0] if len(names) == 1 else names)
        if self.shares is None:
            return
        if not _are_shares(self.shares, len(names)):
            raise ValueError(
                "DatasetConfig.shares must be None or as many positive, finite numbers as "
                f"DatasetConfig.name has names ({len(names)}). "
                f"Received: DatasetConfig.shares = {self.shares!r}."
            )
        object.__setattr__(self, "shares", tuple(float(share) for share in self.shares))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, one or more."""
        return (self.name,) if isinstance(self.name, str) else self.name

    @property
    def label(self) -> str:
        """The name, or all names joined by '+'."""
        return "+".join(self.names)

    def mix(self, specs: tuple[store.DatasetSpec, ...]) -> Spec:
        """The description of what the data sets, given in the order of the names, hold together."""
        if len(self.names) == 1:
            return specs[0]
        return Mixture(self.names, specs, self.shares or (1.0,) * len(specs))

    def open(self, data_dir: str | os.PathLike[str]) -> Spec:
        """Reads the description of all sets.

        Raises:
          FileNotFoundError: one is not there.
        """
        return self.mix(tuple(store.open_dataset(data_dir, name)[1] for name in self.names))


def checked_names(value: object, binding: str) -> tuple[str, ...]:
    """The names of one or several data sets.

    Raises:
      ValueError: it is no such thing; the message names the binding.
    """
    names: Any = (value,) if isinstance(value, str) else value
    named = isinstance(names, (tuple, list)) and all(isinstance(n, str) and n for n in names)
    if not named or not names:
        raise ValueError(
            f"{binding} must be the name of a data set, such as 'glyphs', or a tuple of names. "
            f"Received: {'nothing' if value is config.REQUIRED else repr(value)}."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{binding} must hold no name twice. Received: {binding} = {value!r}.")
    return tuple(names)


def _are_shares(shares: Any, count: int) -> bool:
    fits = isinstance(shares, (tuple, list)) and len(shares) == count
    fits = fits and all(isinstance(s, numbers.Real) and not isinstance(s, bool) for s in shares)
    return fits and min(shares) > 0 and math.isfinite(sum(shares))
