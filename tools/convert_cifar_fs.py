# SPDX-License-Identifier: Apache-2.0
"""Converts CIFAR-FS, in any of its forms, to records."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

from tf_lwdgh.converters.commands import cifar_fs

if __name__ == "__main__":
    cifar_fs.main()
