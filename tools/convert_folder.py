# SPDX-License-Identifier: Apache-2.0
"""Converts a folder tree of images to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import folder

if __name__ == "__main__":
    folder.main()
