# SPDX-License-Identifier: Apache-2.0
"""Converts a folder tree of images to records."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tf_lwdgh.converters import arguments

if TYPE_CHECKING:  # at run time TensorFlow is loaded only after the flags are read
    from tf_lwdgh.data.store import DatasetSpec

DESCRIPTION = """\
Converts a folder tree of images, or an archive of one (.zip, .tar, .tar.gz, .tar.xz, ...), to
records.

Two layouts are known:

  split/class/images   with the folders train, val (or valid, validation) and test: the split is
                       the tree's own
  class/images         --fractions picks the classes of each split by --seed; or --lists names a
                       folder with train.txt, val.txt and test.txt, a class name a line, and
                       other classes are left out

Read are PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF (of an animation the first picture), and HEIC where
the package pillow-heif is installed. Photos are turned as their camera says (EXIF).

Images of more than 256 pixels a side are shrunk to that (area averaging) and stored as PNG, since
decoding photographs of full size makes a training some ten times as slow: --longest_side.
Smaller PNG and JPEG files are stored byte for byte, unless --image_size or --resize=crop changes
them. Images of any size can be stored: training brings them to ImageConfig.image_size.
"""
EXAMPLE = """\
  python tools/convert_folder.py --source=tiny_imagenet_fewshot.tar.xz --name=tiny_imagenet
  python tools/convert_folder.py --source=photos --name=photos --fractions=0.64,0.16,0.2 --seed=1
  python tools/convert_folder.py --source=photos --name=photos --fractions=0.6,0.2,0.2 --resize=crop"""
LONGEST_SIDE = 256  # pixels; more than a training of few-shot tasks usually looks at


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    args = _parser().parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        if args.longest_side < 0:
            raise ValueError(f"--longest_side must be at least 0. Received: {args.longest_side}.")
        from tf_lwdgh.converters import folders, pictures  # loads TensorFlow

        choice = folders.SplitChoice(args.fractions, args.seed, args.lists)
        sizing = pictures.Sizing(args.image_size, args.longest_side or None, args.resize == "crop")
        return folders.convert(
            args.source, folder, name=args.name, split=choice, sizing=sizing,
            min_images=args.min_images, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    def then(spec: DatasetSpec) -> Iterator[str]:
        from tf_lwdgh.converters import ways

        yield from ways.lines(spec)
        yield (
            "train: python -m tf_lwdgh.train --gin_file=gin/folder.gin "
            f"--gin_param=\"DatasetConfig.name = '{args.name}'\" --data_dir={args.data_dir}"
        )
        if args.resize == "crop":
            yield "predict with --resize=crop too, so that photos are cut as these were"

    arguments.run(convert, args, then=then)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name=None)
    parser.add_argument("--fractions", type=arguments.numbers, help="Of the classes: train,val,test.")
    parser.add_argument("--seed", type=int, default=0, help="Which classes --fractions picks (default: 0).")
    parser.add_argument("--lists", help="Folder with train.txt, val.txt and test.txt.")
    parser.add_argument(
        "--resize", choices=("stretch", "crop"), default="stretch",
        help="How an image that is no square becomes one: 'stretch' keeps all of it, here or in training, "
        "without its aspect ratio; 'crop' keeps the largest square in its middle (default: stretch).",
    )  # fmt: skip
    parser.add_argument(
        "--image_size", type=int, help="Height and width to bring all images to (default: as they are)."
    )
    parser.add_argument(
        "--longest_side", type=int, default=LONGEST_SIDE,
        help="Larger images are shrunk to so many pixels, aspect ratio kept; 0: they stay as they are "
        f"(default: {LONGEST_SIDE}; --image_size goes before).",
    )  # fmt: skip
    parser.add_argument("--min_images", type=int, default=2, help="A class with fewer images is short (default: 2).")
    return parser
