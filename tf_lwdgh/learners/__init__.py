# SPDX-License-Identifier: Apache-2.0
"""The learners, a file each; `ALL` has them by name."""

import sys
from typing import TYPE_CHECKING

from tf_lwdgh import registry
from tf_lwdgh.learners.base import Learner

ALL = registry.methods(sys.modules[__name__], Learner)
globals().update(ALL)
if TYPE_CHECKING:

    def __getattr__(name: str) -> type: ...


__all__ = ["ALL", "Learner", *ALL]
