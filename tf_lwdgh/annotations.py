# SPDX-License-Identifier: Apache-2.0
"""Holds settings to their annotations: a value of another kind is refused by name, before it does harm.

Checked are plain annotations as settings have them: bool, int, float, str, None, unions, literals,
callables, classes, sequences and mappings. As everywhere in gin, a list stands for a tuple; an integer is a
number, and True is not.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import numbers
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

_SCALARS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "True or False"),
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    str: (str, "a text"),
    type(None): (type(None), "None"),
}
_SEQUENCES = (tuple, list, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)
_SHOWN = 200  # characters of a refused value


def checked(made: Callable[..., Any]) -> Callable[..., Any]:
    """A class or function that refuses arguments which don't fit their annotations.

    A ValueError of its own that names the argument comes first, since it says more.

    Args:
      made: a class, which is changed and returned, or a function.

    Raises:
      ValueError: at a call: an argument doesn't fit; the message names it.
    """
    if not inspect.isclass(made):
        return _guarded(made, made, made.__name__, method=False)
    made.__init__ = _guarded(made.__init__, made, made.__name__, method=True)
    return made


def _guarded(call: Callable[..., Any], owner: Any, name: str, *, method: bool) -> Callable[..., Any]:
    signature = inspect.signature(call)

    @functools.cache
    def hints() -> dict[str, Any]:
        return typing.get_type_hints(owner)

    def given(args: tuple, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python says it better
            return []
        return list(bound.items())[int(method) :]

    def refuse(argument: str, rule: str, value: Any) -> None:
        raise ValueError(f"{name}.{argument} must be {rule}. Received: {name}.{argument} = {repr(value)[:_SHOWN]}.")

    def check(args: tuple, kwargs: dict[str, Any], said: str = "") -> None:
        for argument, value in given(args, kwargs):
            hint = hints().get(argument)
            named = re.search(rf"\b{re.escape(argument)}\b", said) is not None
            if hint is not None and not named and not fits(value, hint):
                refuse(argument, describe(hint), value)

    @functools.wraps(call)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        for argument, value in given(args, kwargs):
            if isinstance(value, numbers.Integral) and not -(2**63) <= value < 2**63:
                refuse(argument, "of at most 64 bits", value)  # what TensorFlow can hold
        try:
            result = call(*args, **kwargs)
        except Exception as error:
            check(args, kwargs, said=str(error) if isinstance(error, ValueError) else "")
            raise
        check(args, kwargs)
        return result

    guarded.__signature__ = signature  # gin reads the defaults off it
    return guarded


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation says."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    hint = type(None) if hint is None else hint
    if hint in _SCALARS:
        as_bool = isinstance(value, (bool, np.bool_)) and hint is not bool
        return isinstance(value, _SCALARS[hint][0]) and not as_bool
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is typing.Literal:
        return value in inner
    if (origin or hint) in _SEQUENCES:
        return _fits_sequence(value, inner)
    if (origin or hint) in _MAPPINGS:
        key, kept = inner or (Any, Any)
        return isinstance(value, collections.abc.Mapping) and all(
            fits(k, key) and fits(v, kept) for k, v in value.items()
        )
    if (origin or hint) is collections.abc.Callable:
        return callable(value)
    return not inspect.isclass(origin or hint) or isinstance(value, origin or hint)


def _fits_sequence(value: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    if len(inner) == 1 or Ellipsis in inner:
        return all(fits(v, inner[0]) for v in value)
    return not inner or (len(value) == len(inner) and all(map(fits, value, inner)))


def describe(hint: Any) -> str:
    """An annotation in words, after 'must be'."""
    hint = type(None) if hint is None else hint
    if hint in _SCALARS:
        return _SCALARS[hint][1]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, inner))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if (origin or hint) in _SEQUENCES:
        return _describe_sequence(inner)
    if (origin or hint) in _MAPPINGS:
        return "a mapping" + (f" to {_plural(inner[1])}" if inner else "")
    if (origin or hint) is collections.abc.Callable:
        return "a maker, such as @name (without brackets)"
    return f"a ready object, such as @{getattr(origin or hint, '__name__', hint)}() (with brackets)"


def _describe_sequence(inner: tuple[Any, ...]) -> str:
    if not inner:
        return "a list"
    if len(inner) == 1 or Ellipsis in inner:
        return f"a list of {_plural(inner[0])}"
    return "a list of " + " and ".join(map(describe, inner))


def _plural(hint: Any) -> str:
    words = {bool: "True and False", int: "integers", float: "numbers", str: "texts"}
    return words.get(hint, f"items, each {describe(hint)}")
