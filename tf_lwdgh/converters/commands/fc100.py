# SPDX-License-Identifier: Apache-2.0
"""Converts FC100, in any of its forms, to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts FC100 (60 train / 20 val / 20 test classes of CIFAR-100, 600 images each) to records. The
12 / 4 / 4 superclasses of CIFAR-100 are the split's, so that a test has no near relative in
training.

--source is a folder, or an archive of one, that holds one of these forms; it is recognised by its
files:

  pickles   FC100_{train,val,test}.pickle with 'data' and 'labels'
  cifar100  the original: cifar-100-python.tar.gz, from https://www.cs.toronto.edu/~kriz/cifar.html

Classes have CIFAR-100's names and superclasses; not so in pickles whose labels are not CIFAR-100's
own numbers: there a class is called by its split and label. Pixels are stored as PNG.
"""
EXAMPLE = """\
  python tools/convert_fc100.py --source=cifar-100-python.tar.gz --data_dir=data
  python tools/convert_fc100.py --source=FC100.zip --data_dir=data"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    arguments.convert_a_form(argv, DESCRIPTION, EXAMPLE, name="fc100", image_size=32)
