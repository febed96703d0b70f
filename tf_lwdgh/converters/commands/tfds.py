# SPDX-License-Identifier: Apache-2.0
"""Converts an image classification set of TensorFlow Datasets to records."""

from __future__ import annotations

from collections.abc import Sequence

import absl.logging

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts any image classification set of TensorFlow Datasets (TFDS) to records, by its name.

The set is read as TFDS has prepared it in --tfds_data_dir; nothing is downloaded unless --download is
given. Its splits train, validation and test, those that it has, are pooled, since a few-shot split is
one of the classes:

  --split=classes       --fractions picks the classes of train, val and test by --seed; or --lists
                        names a folder with train.txt, val.txt and test.txt, a class name a line, and
                        other classes are left out
  --split=superclasses  the same for the names of the superclasses, a second label of the set's that
                        --superclass names: no superclass is in two splits
  --split=own           the set's own splits, where they share no class

With --superclass the records have superclasses in every case. Image and label are the set's supervised
keys; --image_key and --label_key name others. JPEG and PNG are stored byte for byte, unless --image_size
is given.

--stand_in=20 makes up 20 images a class with the set's classes and shape, to try things out where the
set cannot be had; the records say so.
"""
EXAMPLE = """\
  python tools/convert_tfds.py --dataset=cifar100 --split=classes --fractions=0.64,0.16,0.2
  python tools/convert_tfds.py --dataset=cifar100 --split=superclasses --superclass=coarse_label \\
      --fractions=0.6,0.2,0.2 --name=cifar100_super
  python tools/convert_tfds.py --dataset=tf_lwdgh/glyphs --split=own --superclass=superclass"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name="that of --dataset, with _ for / and :", source=None)
    parser.set_defaults(name=None)
    parser.add_argument("--dataset", required=True, help="name, name/config, name/config:version.")
    parser.add_argument("--split", required=True, choices=("classes", "superclasses", "own"), help="See above.")
    parser.add_argument("--fractions", type=arguments.numbers, help="train,val,test.")
    parser.add_argument("--seed", type=int, default=0, help="Which ones --fractions picks (default: 0).")
    parser.add_argument("--lists", help="Folder with train.txt, val.txt and test.txt.")
    parser.add_argument("--superclass", help="The label of the superclass, such as coarse_label.")
    parser.add_argument("--image_key", help="The image, where the supervised keys do not say it.")
    parser.add_argument("--label_key", help="The class, where the supervised keys do not say it.")
    parser.add_argument("--tfds_splits", help="The set's splits to pool, such as train+test (see above).")
    parser.add_argument("--tfds_data_dir", help="Where TFDS keeps its sets (default: TFDS's own).")
    parser.add_argument("--download", action="store_true", help="Let TFDS fetch and prepare the set.")
    parser.add_argument("--stand_in", type=int, help="Images a class to make up (see above).")
    parser.add_argument("--image_size", type=int, help="Height and width (default: as they are).")
    parser.add_argument("--min_images", type=int, default=2, help="A class with fewer images is short (default: 2).")
    args = parser.parse_args(argv)
    args.name = args.name or default_name(args.dataset, args.stand_in)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import folders, tfds_features, tfds_sets  # loads TensorFlow

        absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of what it deprecates itself
        choice = folders.SplitChoice(args.fractions, args.seed, args.lists)
        return tfds_sets.convert(
            args.dataset, folder, deal=tfds_sets.Deal(args.split, choice), name=args.name,
            tfds_data_dir=args.tfds_data_dir,
            tfds_splits=tuple(args.tfds_splits.split("+")) if args.tfds_splits else None,
            keys=tfds_features.Keys(args.image_key, args.label_key, args.superclass),
            image_size=args.image_size, min_images=args.min_images, download=args.download,
            stand_in=args.stand_in, overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)


def default_name(dataset: str, stand_in: int | None) -> str:
    """'cifar100', 'omniglot_small', 'cifar100_stand_in'."""
    name = dataset.replace("/", "_").replace(":", "_")
    return name if stand_in is None else f"{name}_stand_in"
