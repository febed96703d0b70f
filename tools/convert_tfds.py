# SPDX-License-Identifier: Apache-2.0
"""Converts a set of TensorFlow Datasets to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import tfds

if __name__ == "__main__":
    tfds.main()
