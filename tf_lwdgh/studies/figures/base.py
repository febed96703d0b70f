# SPDX-License-Identifier: Apache-2.0
"""What every figure is: run folders in, a picture with its caption and the numbers behind it out."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

Path = str | os.PathLike[str]
Runs = Mapping[str, Sequence[Path]]  # a method's name -> its run folders, one a seed
Row = dict[str, Any]  # JSON values


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture, what it shows, and its numbers.

    Attributes:
      name: a file's name without its ending.
      png: the picture.
      caption: plain text: what is drawn, of how many runs and tasks, and what any band or interval is.
      table: the numbers behind the picture, a row each.
    """

    name: str
    png: bytes
    caption: str
    table: list[Row]


@dataclasses.dataclass(frozen=True)
class FigureMaker:
    """Draws one figure. Subclasses are frozen dataclasses.

    A subclass in a file of this folder, or in a module that a gin file imports, is found by itself if it
    states its `reference`.

    Attributes:
      name: of the figure: a file's name without its ending.
      methods: the names of those that are drawn, in this order; empty: all, in the runs' order.
      least_methods: how many the figure needs.
      reference: which published figure it repeats, or why it is there.
    """

    name: str = "figure"
    methods: Sequence[str] = ()

    least_methods: ClassVar[int] = 1
    reference: ClassVar[str]

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name)
        self.require("name", bool(named), "must be a file's name without folder and ending")
        listed = not isinstance(self.methods, str) and len(set(self.methods)) == len(self.methods)
        self.require("methods", listed, "must be a list of names, none twice")

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raises ValueError, naming the gin binding, where a setting breaks its rule."""
        if not holds:
            binding = f"{type(self).__name__}.{name}"
            raise ValueError(f"{binding} {rule}. Received: {binding} = {getattr(self, name)!r}.")

    def require_whole(self, name: str, least: int) -> None:
        """Raises ValueError where a setting is no integer of at least `least`."""
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        self.require(name, whole, f"must be an integer of at least {least}")

    def draw(self, runs: Runs, *, data_dir: Path) -> Figure:
        """Draws the figure; writes nothing. gin's bindings are those of one of the runs afterwards.

        Args:
          runs: the run folders of each method, one a seed; the methods in their order.
          data_dir: the folder of data sets.

        Raises:
          FileNotFoundError: no such run, checkpoint or data set.
          ValueError: the runs don't make this figure.
        """
        raise NotImplementedError

    def chosen(self, runs: Runs) -> dict[str, list[Path]]:
        """The runs of the methods that are drawn, in their order.

        Raises:
          ValueError: an unknown method, too few of them, or one without a run.
        """
        unknown = [m for m in self.methods if m not in runs]
        known = ", ".join(map(repr, runs))
        self.require("methods", not unknown, f"must be of the methods that have runs: {known}")
        found = {m: list(runs[m]) for m in self.methods or runs}
        who = type(self).__name__
        if len(found) < self.least_methods:
            raise ValueError(
                f"{who} needs the runs of at least {self.least_methods} methods. "
                f"Received: {len(found)} ({', '.join(map(repr, found)) or 'none'})."
            )
        idle = [m for m, folders in found.items() if not folders]
        if idle:
            raise ValueError(f"{who} needs a run of every method. Received: none of {idle[0]!r}.")
        return found
