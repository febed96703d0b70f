"""The learners, a file each; `ALL` has them by name."""

import sys

from tf_lwdgh import registry
from tf_lwdgh.learners.base import Learner

ALL = registry.methods(sys.modules[__name__], Learner)
globals().update(ALL)

__all__ = ["ALL", "Learner", *ALL]
