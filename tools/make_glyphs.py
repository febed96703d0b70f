# SPDX-License-Identifier: Apache-2.0
"""Makes the built-in data set `glyphs`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import glyphs

if __name__ == "__main__":
    glyphs.main()
