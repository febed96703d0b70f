# SPDX-License-Identifier: Apache-2.0
"""The aggregators of the tasks' outer gradients, a file each; `ALL` has them by name."""

import sys
from typing import TYPE_CHECKING

from tf_lwdgh import registry
from tf_lwdgh.aggregators.base import Aggregator

ALL = registry.methods(sys.modules[__name__], Aggregator)
globals().update(ALL)
if TYPE_CHECKING:

    def __getattr__(name: str) -> type: ...


__all__ = ["ALL", "Aggregator", *ALL]
