# SPDX-License-Identifier: Apache-2.0
"""Converts CIFAR-FS, in any of its forms, to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts CIFAR-FS (64 train / 16 val / 20 test classes of CIFAR-100, 600 images each) to records.

--source is a folder, or an archive of one, that holds one of these forms; it is recognised by its
files:

  folders   cifar100/data/<class>/*.png, as the authors give them (github.com/bertinetto/r2d2); the
            lists in cifar100/splits/bertinetto are compared with the published split
  pickles   CIFAR_FS_{train,val,test}.pickle with 'data' and 'labels'
  cifar100  the original: cifar-100-python.tar.gz, from https://www.cs.toronto.edu/~kriz/cifar.html

Classes have CIFAR-100's names, and its 20 superclasses are kept; not so in pickles whose labels are
not CIFAR-100's own numbers: there a class is called by its split and label. Pixels are stored as
PNG; PNG files are kept byte for byte.
"""
EXAMPLE = """\
  python tools/convert_cifar_fs.py --source=cifar-100-python.tar.gz --data_dir=data
  python tools/convert_cifar_fs.py --source=downloads/CIFAR_FS --data_dir=data"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    arguments.convert_a_form(argv, DESCRIPTION, EXAMPLE, name="cifar_fs", image_size=32)
