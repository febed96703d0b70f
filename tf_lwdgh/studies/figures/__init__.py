# SPDX-License-Identifier: Apache-2.0
"""The figures of a study, a file each; `ALL` has their makers by name."""

import sys

from tf_lwdgh import registry
from tf_lwdgh.studies.figures.base import Figure, FigureMaker

ALL = registry.methods(sys.modules[__name__], FigureMaker)
globals().update(ALL)

__all__ = ["ALL", "Figure", "FigureMaker", *ALL]
