# SPDX-License-Identifier: Apache-2.0
"""`python -m tf_lwdgh.converters <data set> …`: the converters where there is no clone."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = {
    "build_tfds": "the other way: ours for TensorFlow Datasets",
    "cifar_fs": "CIFAR-FS, in all of its forms or from CIFAR-100",
    "cub": "CUB-200-2011's official archive, in three splits",
    "fc100": "FC100, pickled or from CIFAR-100",
    "folder": "a folder tree of images, split/class/images or class/images",
    "glyphs": "the built-in characters; needs no download",
    "mini_imagenet": "mini-ImageNet, in all of its forms",
    "omniglot": "Omniglot's official archives, in three splits",
    "tfds": "any image classification set of TensorFlow Datasets",
    "tiered_imagenet": "tiered-ImageNet, in all of its forms",
}


def main() -> None:
    """Hands the flags to a converter's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_lwdgh.converters",
        description="Makes data sets: writes records to <data_dir>/<name>.",
        epilog="\n".join(f"  {name:16} {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=COMMANDS, help="See below; then its flags, or --help.")
    args = parser.parse_args(sys.argv[1:2])
    sys.argv[0] = f"{parser.prog} {args.dataset}"  # the name in the command's own help
    importlib.import_module(f"tf_lwdgh.converters.commands.{args.dataset}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
