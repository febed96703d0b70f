# SPDX-License-Identifier: Apache-2.0
"""Converts CUB-200-2011 to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts CUB-200-2011 (200 kinds of birds, 11,788 photographs) to records.

--source is CUB_200_2011.tgz, from https://www.vision.caltech.edu/datasets/cub_200_2011, or the
folder in it. Images are resized to --image_size by area averaging, the aspect ratio is not kept,
and stored as PNG.

Three splits of the classes are in use, and their results do not compare, so --split has no default:

  ye            100 train / 50 val / 50 test, of Ye et al. (FEAT): the paper's, usually with images
                cut to the birds' boxes (--crop)
  sorted        100 / 50 / 50: of the classes in order, counted from 0, the even ones train, those
                that leave 1 when divided by 4 validate, those that leave 3 test; of Chen et al.
                (A Closer Look at Few-Shot Classification), mostly with whole images
  meta_dataset  140 / 30 / 30, of Triantafillou et al. (Meta-Dataset)

--crop cuts every image to its bounding box: the box is rounded outwards to whole pixels and clipped
to the image; there is no margin, and the cut is not made square before it is resized. The spec's
split_name says 'ye cropped' then.
"""
EXAMPLE = """\
  python tools/convert_cub.py --source=CUB_200_2011.tgz --split=ye --crop --data_dir=data
  python tools/convert_cub.py --source=CUB_200_2011.tgz --split=sorted --name=cub_sorted"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name="cub")
    parser.add_argument("--split", required=True, choices=("ye", "sorted", "meta_dataset"), help="See above.")
    parser.add_argument("--crop", action="store_true", help="Cut to the bounding box.")
    parser.add_argument("--image_size", type=int, default=84, help="Height and width (default: 84).")
    args = parser.parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import cub  # loads TensorFlow

        return cub.convert(
            args.source, folder, split=args.split, crop=args.crop, image_size=args.image_size,
            name=args.name, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)
