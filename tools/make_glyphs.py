"""Makes the built-in data set `glyphs`."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs without installation

DESCRIPTION = """\
Makes the built-in data set `glyphs`, which needs no download: 84×84 colour pictures of characters, drawn from
the fonts that come with matplotlib. A class is a character; train, val and test have different scripts (Latin,
Cyrillic and Canadian syllabics; Armenian; Georgian, Hebrew and Tifinagh). The same versions of Pillow and
matplotlib give the same bytes. What is there already is kept.
"""
EXAMPLE = """\
Example:

  python tools/make_glyphs.py --data_dir=data
"""


def main() -> None:
    """Reads the flags and makes the data set."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="Written to <data_dir>/glyphs (default: data).")
    parser.add_argument("--overwrite", action="store_true", help="Make it anew where it is there.")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no start-up chatter; must precede the import
    from tf_lwdgh.converters import glyphs

    start = time.monotonic()
    try:
        spec = glyphs.make(args.data_dir, overwrite=args.overwrite)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    counts = ", ".join(f"{split} {len(spec.classes(split))}" for split in ("train", "val", "test"))
    print(
        f"{args.data_dir}/glyphs: {sum(spec.images_per_class):,} images; classes: {counts}; "
        f"{time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
