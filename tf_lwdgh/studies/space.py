# SPDX-License-Identifier: Apache-2.0
"""What a search tunes: bindings and the values they may take, as a gin file says it."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lwdgh import config

Value = float | int | str | bool | None
_FORMS = "('uniform', low, high), ('log', low, high), ('int', low, high) or ('choice', [value, …])"
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """The values of one binding.

    Attributes:
      kind: 'uniform', 'log', 'int' or 'choice'.
      low: least, where not a choice.
      high: greatest, where not a choice.
      values: of a choice.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Value, ...] = ()

    @property
    def ends(self) -> tuple[Value, Value]:
        """The first and the last value."""
        return (self.values[0], self.values[-1]) if self.values else (self.low, self.high)


@config.configurable
@dataclasses.dataclass(frozen=True)
class Search:
    """Tunes bindings of methods of a study, each in each setting apart, on validation tasks alone.

    Attributes:
      method: name of a method of the study, or several: ['LWDGH', 'PCGrad'].
      space: what a binding may be: {'LWDGH.temperature': ('log', 0.1, 10.0), 'INNER_STEPS':
        ('int', 1, 5), 'LWDGH.unit': ('choice', ['variable', 'layer'])}; 'uniform' too. Ends count.
      trials: runs of a method in a setting, failed ones among them.
      seed: of the values tried; the runs themselves have the study's first seed.
      gin_params: bindings of the trials alone, such as 'EPOCHS = 10'.
      n_tasks: validation tasks by which a trial is judged.
    """

    method: str | Sequence[str] = config.REQUIRED
    space: Mapping[str, Sequence[Any]] = config.REQUIRED
    trials: int = 20
    seed: int = 0
    gin_params: tuple[str, ...] = ()
    n_tasks: int = 1000

    def __post_init__(self) -> None:
        methods = (self.method,) if isinstance(self.method, str) else self.method
        named = isinstance(methods, (list, tuple)) and all(isinstance(m, str) for m in methods)
        _require(named and methods, "method", "the name of a method, or a list of names", self.method)
        object.__setattr__(self, "method", tuple(methods))
        if not isinstance(self.space, Mapping) or not self.space:
            _require(False, "space", f"a dict from bindings to {_FORMS}", self.space)
        self.dimensions()
        for name, least in (("trials", 1), ("n_tasks", 2), ("seed", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            _require(whole, name, f"an integer of at least {least}", value)
        texts = isinstance(self.gin_params, (list, tuple))
        texts = texts and all(isinstance(p, str) for p in self.gin_params)
        _require(texts, "gin_params", "a list of texts, such as ['EPOCHS = 10']", self.gin_params)
        object.__setattr__(self, "gin_params", tuple(self.gin_params))

    def dimensions(self) -> dict[str, Dimension]:
        """The space, checked.

        Raises:
          ValueError: a value of it is wrong.
        """
        return {name: _dimension(name, given) for name, given in self.space.items()}


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a search found for a method in a setting.

    Attributes:
      bindings: on top of the cell's.
      note: a sentence for the report.
    """

    bindings: tuple[str, ...]
    note: str


def bindings(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Values as gin bindings."""
    return tuple(f"{name} = {value!r}" for name, value in values.items())


def in_words(values: Mapping[str, Value]) -> str:
    """Values for people, such as 'LWDGH.temperature = 0.31'."""
    return ", ".join(
        f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value!r}" for name, value in values.items()
    )


def _dimension(name: str, given: Any) -> Dimension:
    where = f"space[{name!r}]"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "have names of settings as its keys, such as 'LWDGH.temperature' or 'OUTER_LR'"
        raise ValueError(f"Search.space must {rule}. Received: Search.space = {{{name!r}: …}}.")
    right: Any
    sequence = isinstance(given, (list, tuple)) and given
    if sequence and given[0] == "choice":
        right = len(given) == 2 and isinstance(given[1], (list, tuple)) and given[1]
        right = right and all(v is None or isinstance(v, (str, numbers.Real)) for v in given[1])
        right = right and len(set(map(repr, given[1]))) == len(given[1])
        rule = "('choice', [value, …]) with different numbers, texts, True, False or None"
        _require(right, where, rule, given)
        return Dimension("choice", values=tuple(given[1]))
    right = sequence and given[0] in ("uniform", "log", "int")
    _require(right, where, _FORMS, given)
    kind, *ends = given
    number = int if kind == "int" else numbers.Real
    right = len(ends) == 2 and not any(isinstance(e, bool) for e in ends)
    right = right and all(isinstance(e, number) and math.isfinite(e) for e in ends)
    least = "0 < low" if kind == "log" else "low"
    rule = f"({kind!r}, low, high) of {'integers' if kind == 'int' else 'numbers'} with {least} < high"
    _require(right and ends[0] < ends[1] and (kind != "log" or ends[0] > 0), where, rule, given)
    low, high = ends if kind == "int" else map(float, ends)
    return Dimension(kind, low, high)


def _require(right: Any, where: str, rule: str, value: Any) -> None:
    if not right:
        shown = "nothing" if value is config.REQUIRED else f"Search.{where} = {value!r}"
        raise ValueError(f"Search.{where} must be {rule}. Received: {shown}.")
