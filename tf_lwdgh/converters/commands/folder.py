"""Converts a folder tree of images to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts a folder tree of images, or an archive of one (.zip, .tar, .tar.gz, .tar.xz, ...), to
records.

Two layouts are known:

  split/class/images   with the folders train, val (or valid, validation) and test: the split is
                       the tree's own
  class/images         --fractions picks the classes of each split by --seed; or --lists names a
                       folder with train.txt, val.txt and test.txt, a class name a line, and
                       other classes are left out

PNG and JPEG files are stored byte for byte, unless --image_size is given: then images of another
size are resized (area averaging, the aspect ratio is not kept) and stored as PNG. Images of any
size can be stored: training resizes them to DatasetConfig.image_size.
"""
EXAMPLE = """\
  python tools/convert_folder.py --source=tiny_imagenet_fewshot.tar.xz --name=tiny_imagenet
  python tools/convert_folder.py --source=photos --name=photos --fractions=0.64,0.16,0.2 --seed=1"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name=None)
    parser.add_argument(
        "--fractions", type=arguments.numbers, help="Of the classes: train,val,test."
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="Which classes --fractions picks (default: 0)."
    )
    parser.add_argument("--lists", help="Folder with train.txt, val.txt and test.txt.")
    parser.add_argument("--image_size", type=int, help="Height and width (default: as they are).")
    parser.add_argument(
        "--min_images", type=int, default=2, help="A class with fewer images is short (default: 2)."
    )
    args = parser.parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import folders  # loads TensorFlow

        choice = folders.SplitChoice(args.fractions, args.seed, args.lists)
        return folders.convert(
            args.source, folder, name=args.name, split=choice, image_size=args.image_size,
            min_images=args.min_images, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)
