"""The aggregators of the tasks' outer gradients, a file each; `ALL` has them by name."""

import sys

from tf_lwdgh import registry
from tf_lwdgh.aggregators.base import Aggregator

ALL = registry.methods(sys.modules[__name__], Aggregator)
globals().update(ALL)

__all__ = ["ALL", "Aggregator", *ALL]
