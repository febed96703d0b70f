# SPDX-License-Identifier: Apache-2.0
"""Converts CUB-200-2011 to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import cub

if __name__ == "__main__":
    cub.main()
