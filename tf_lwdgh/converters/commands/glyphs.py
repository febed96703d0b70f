# SPDX-License-Identifier: Apache-2.0
"""Makes the built-in data set `glyphs`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tf_lwdgh import command_line
from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Makes the built-in data set `glyphs`, which needs no download: 84×84 colour pictures of characters,
drawn from the fonts that come with matplotlib. A class is a character; train, val and test have
different scripts (Latin, Cyrillic and Canadian syllabics; Armenian; Georgian, Hebrew and Tifinagh).
The same versions of Pillow and matplotlib give the same bytes. What is there already is kept.
"""
EXAMPLE = """\
Example:

  python tools/make_glyphs.py --data_dir=data

Where the package is installed and there is no clone, the same command is

  python -m tf_lwdgh.converters glyphs
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and makes the data set."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_dir", default="data", help="Written to <data_dir>/glyphs (default: data).")
    parser.add_argument("--overwrite", action="store_true", help="Make it anew where it is there.")
    args = parser.parse_args(argv)
    with command_line.clean_errors(f"{os.path.basename(sys.argv[0])}: error"):
        arguments.load_tensorflow()
        from tf_lwdgh.converters import glyphs

        start = time.monotonic()
        spec = glyphs.make(args.data_dir, overwrite=args.overwrite)
        counts = (f"{split} {len(spec.classes(split))}" for split in ("train", "val", "test"))
        print(
            f"{args.data_dir}/glyphs: {sum(spec.images_per_class):,} images; classes: "
            f"{', '.join(counts)}; {time.monotonic() - start:.0f} s"
        )
