# SPDX-License-Identifier: Apache-2.0
"""Converts FC100, in any of its forms, to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import fc100

if __name__ == "__main__":
    fc100.main()
