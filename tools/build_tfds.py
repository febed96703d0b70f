# SPDX-License-Identifier: Apache-2.0
"""Prepares data sets of ours for TensorFlow Datasets."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import build_tfds

if __name__ == "__main__":
    build_tfds.main()
