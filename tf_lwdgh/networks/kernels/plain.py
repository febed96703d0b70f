# SPDX-License-Identifier: Apache-2.0
"""Whether graphs are traced in plain TensorFlow operations, which any machine runs alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_plain_only = False


def plain_only() -> bool:
    """Whether `plain_operations` is in force."""
    return _plain_only


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Within it every layer traces plain TensorFlow operations: no XLA, no custom gradients.

    Nothing then hangs on the devices of this process either. For graphs that leave it, such as
    SavedModels. Not thread-safe.
    """
    global _plain_only
    before, _plain_only = _plain_only, True
    try:
        yield
    finally:
        _plain_only = before
