# SPDX-License-Identifier: Apache-2.0
"""Finds the methods of a room by its files: a new method is a new file, and no list names it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType


def methods(package: ModuleType, base: type) -> dict[str, type]:
    """The classes that the modules of a package define as methods.

    A method is a subclass of `base` that states its `reference`, registered with gin.

    Args:
      package: every module right in it is imported.
      base: the room's base class.

    Returns:
      The classes by name, in alphabetical order.

    Raises:
      TypeError: two modules define one name.
    """
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if not (inspect.isclass(value) and issubclass(value, base)):
                continue
            if value.__module__ != module.__name__ or "reference" not in vars(value):
                continue
            if name in found:
                raise TypeError(f"{name} is defined by {found[name].__module__} and {module.__name__}.")
            found[name] = value
    return dict(sorted(found.items()))


def known(base: type) -> list[type]:
    """The methods that are there, those of a user's own modules among them, by name."""
    found, todo = set(), [base]
    while todo:
        for child in todo.pop().__subclasses__():
            todo.append(child)
            if "reference" in vars(child):
                found.add(child)
    return sorted(found, key=lambda c: c.__name__)
