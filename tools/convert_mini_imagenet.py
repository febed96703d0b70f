# SPDX-License-Identifier: Apache-2.0
"""Converts mini-ImageNet, in any of its forms, to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import mini_imagenet

if __name__ == "__main__":
    mini_imagenet.main()
