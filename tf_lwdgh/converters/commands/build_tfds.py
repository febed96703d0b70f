# SPDX-License-Identifier: Apache-2.0
"""`tfds build` for our data sets, also where Apache Beam is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Prepares data sets of ours for TensorFlow Datasets: `tfds build` with the builder `tf_lwdgh` at hand.
Where Apache Beam is installed, `tfds build --imports=tf_lwdgh.converters.tfds_builder` is the same; TFDS's
own command does not start without it. Example: python tools/build_tfds.py tf_lwdgh/omniglot --manual_dir=data
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags of `tfds build`, by default the process's, and prepares the data sets."""
    arguments.load_tensorflow()
    from tensorflow_datasets.scripts.cli import build, cli_utils

    flags = list(sys.argv[1:] if argv is None else argv)
    parse = cli_utils.make_flags_parser(build.Args, DESCRIPTION)
    args = parse(["", "--imports=tf_lwdgh.converters.tfds_builder", *flags])
    try:
        args.execute()
    except (AssertionError, ImportError, OSError, ValueError) as error:  # what TFDS raises for users
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
