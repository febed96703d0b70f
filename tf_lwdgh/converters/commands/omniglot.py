# SPDX-License-Identifier: Apache-2.0
"""Converts Omniglot's official archives to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts Omniglot (1,623 characters of 50 alphabets, 20 drawings each) to records.

--source is a folder that holds images_background.zip and images_evaluation.zip (or both unpacked),
from https://github.com/brendenlake/omniglot, folder python. Each character becomes a class and
each alphabet a superclass; the drawings are shrunk with area averaging, inverted to white on black
and stored as grey PNG.

Three splits of the characters are in use, and their results do not compare, so --split has no
default:

  vinyals  1,028 train / 172 val / 423 test, of Matching Networks; what most papers report, with
           the 90-degree rotations as further classes (EpisodeConfig.rotations = True)
  lake     the authors' own: 30 background alphabets, of which the last 5 by name validate, and
           20 evaluation alphabets to test: 813 / 151 / 659. The authors name no alphabets for
           validation; this choice is ours
  meta_dataset
           as lake, but the 5 background alphabets with the fewest characters validate, as in
           Meta-Dataset: 883 / 81 / 659
"""
EXAMPLE = "  python tools/convert_omniglot.py --source=downloads --split=vinyals --data_dir=data"


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name="omniglot")
    parser.add_argument("--split", required=True, choices=("vinyals", "lake", "meta_dataset"), help="See above.")
    parser.add_argument("--image_size", type=int, default=28, help="Height and width (default: 28).")
    args = parser.parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import omniglot  # loads TensorFlow

        return omniglot.convert(
            args.source, folder, split=args.split, image_size=args.image_size,
            name=args.name, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)
