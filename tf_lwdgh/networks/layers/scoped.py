# SPDX-License-Identifier: Apache-2.0
"""What a layer is told from outside the call that traces it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def told(variable: contextvars.ContextVar[T], value: T) -> Iterator[None]:
    """Within it the variable has this value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
