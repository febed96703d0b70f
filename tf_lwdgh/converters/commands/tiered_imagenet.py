# SPDX-License-Identifier: Apache-2.0
"""Converts tiered-ImageNet, in any of its forms, to records."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lwdgh.converters import arguments

DESCRIPTION = """\
Converts tiered-ImageNet (351 train / 97 val / 160 test classes; 448,695 / 124,261 / 206,209
images) to records. Its 20 / 6 / 8 categories become superclasses.

--source is a folder, or an archive of one, that holds one of these forms; it is recognised by its
files:

  png     {train,val,test}_images_png.pkl, lists of PNG files, with {train,val,test}_labels.pkl:
          what the authors give (github.com/renmengye/few-shot-ssl-public). The PNG files are kept
          byte for byte; they have the right colours
  npz     {train,val,test}_images.npz with the array 'images', and {train,val,test}_labels.pkl.
          OpenCV read these images, so their channels are blue, green, red: --channels=rgb where
          yours are not. They are stored as PNG
  ilsvrc  ILSVRC's training folders (n01440764/*.JPEG), in the source or its folder train; or each
          class's archive (n01440764.tar), which is read where it lies. Images are resized to
          --image_size by area averaging, the aspect ratio is not kept, and stored as PNG; the
          authors' resizing was bicubic, so that pixels differ a little

Classes are named by their synset in the form ilsvrc, by their words where the labels' file has
them, else by split and label. Without 'label_general' in the labels' file, as is usual beside an
.npz, there are no superclasses.

Pickles are read without running them: what asks for more than arrays and containers is refused.
The form png holds one split's pickle in memory at a time, for a moment two: about 10 GB. The others
need less than 2 GB; a compressed .npz is unpacked into an unnamed file beside the records, one
split at a time, up to 9.5 GB. The records take about 12 GB.
"""
EXAMPLE = """\
  python tools/convert_tiered_imagenet.py --source=downloads/tiered-imagenet --data_dir=data
  python tools/convert_tiered_imagenet.py --source=ILSVRC2012 --form=ilsvrc --data_dir=data"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, by default the process's, and converts."""
    parser = arguments.parser(DESCRIPTION, EXAMPLE, name="tiered_imagenet")
    parser.add_argument("--form", help="One of the above, where --source holds several.")
    parser.add_argument("--image_size", type=int, default=84, help="Height and width (default: 84).")
    parser.add_argument("--channels", choices=("bgr", "rgb"), default="bgr", help="Of the .npz (default: bgr).")
    args = parser.parse_args(argv)

    def convert():
        folder = arguments.output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        from tf_lwdgh.converters import tiered_imagenet  # loads TensorFlow

        return tiered_imagenet.convert(
            args.source, folder, form=args.form, image_size=args.image_size,
            channels=args.channels, name=args.name, overwrite=args.overwrite,
            skip_bad=args.skip_bad,
        )  # fmt: skip

    arguments.run(convert, args)
