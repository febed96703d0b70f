# SPDX-License-Identifier: Apache-2.0
"""Converts mini-ImageNet, in any of its forms, to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts mini-ImageNet (64 train / 16 val / 20 test classes of 600 images) to records.

--source is a folder, or an archive of one, that holds one of these forms; it is recognised by its
files:

  cache     mini-imagenet-cache-{train,val,test}.pkl (or -validation)
  category  miniImageNet_category_split_{train_phase_train,val,test}.pickle, also without the
            prefix
  csv       images/ with Ravi and Larochelle's train.csv, val.csv and test.csv, there or in
            --splits
  ilsvrc    ILSVRC's training folders (n01440764/*.JPEG), with the same lists; every file of a
            class must be there, since the lists count them
  folders   train/, val/ and test/ with a folder of images for each class

Pickles are read without running them: what asks for more than arrays and containers is refused.
Images of another size than --image_size are resized (area averaging) and stored as PNG, as are the
pickles' pixels; image files of that size are stored byte for byte. The classes and images are
counted, and the synsets compared with the published split: --subset accepts others.
The pickled forms need about 3 GB of memory; 5.4 GB where Python 3 wrote them in protocol 0 to 2.
"""
EXAMPLE = """\
  python tools/convert_mini_imagenet.py --source=downloads/mini-imagenet --data_dir=data
  python tools/convert_mini_imagenet.py --source=ILSVRC2012/train --splits=ravi_csv"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name="mini_imagenet")
    parser.add_argument("--form", help="One of the above, where --source holds several.")
    parser.add_argument("--splits", help="Folder of train.csv, val.csv and test.csv (filename,label).")
    parser.add_argument("--image_size", type=int, default=84, help="Height and width (default: 84).")
    parser.add_argument("--subset", action="store_true", help="Accept other classes and numbers of images.")
    args = parser.parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import mini_imagenet  # loads TensorFlow

        return mini_imagenet.convert(
            args.source, folder, form=args.form, splits=args.splits, image_size=args.image_size,
            subset=args.subset, name=args.name, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)
