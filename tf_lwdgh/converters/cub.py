# SPDX-License-Identifier: Apache-2.0
"""CUB-200-2011 (Wah et al., 2011): 200 kinds of birds, 11,788 photographs with bounding boxes.

Reads the official archive or its folder. Three splits of the classes are in use, which do not
compare, and so do pictures cut to the birds' boxes and whole ones: all of it must be said.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_lwdgh.converters import archives, pictures, texts
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

VERSION = "cub-2"
CLASSES = 200
IMAGES = 11_788

# Classes by their numbers in the data set, 1 to 200; the others train.
_YE_VAL = (
    1, 2, 4, 7, 12, 14, 16, 21, 24, 36, 42, 43, 49, 50, 51, 53, 58, 65, 66, 69, 70, 77, 79, 85,
    86, 92, 95, 96, 101, 103, 105, 106, 111, 117, 120, 121, 122, 136, 156, 157, 159, 162, 163,
    165, 168, 172, 187, 192, 199, 200,
)  # fmt: skip
_YE_TEST = (
    10, 18, 22, 26, 29, 30, 32, 33, 35, 37, 39, 40, 48, 54, 59, 68, 71, 73, 78, 80, 82, 83, 88,
    89, 100, 104, 115, 116, 118, 128, 129, 133, 134, 141, 143, 148, 149, 152, 158, 166, 167, 170,
    173, 174, 175, 177, 189, 191, 193, 194,
)  # fmt: skip
_META_DATASET_VAL = (
    44, 51, 52, 55, 57, 61, 64, 66, 68, 72, 76, 80, 84, 96, 113, 121, 127, 136, 140, 145, 150,
    155, 159, 162, 172, 176, 178, 198, 199, 200,
)  # fmt: skip
_META_DATASET_TEST = (
    8, 9, 15, 20, 28, 30, 35, 39, 45, 46, 82, 85, 94, 101, 103, 112, 118, 122, 128, 133, 134, 137,
    147, 148, 163, 168, 169, 170, 193, 194,
)  # fmt: skip

# Validation and test of each split: Ye et al. (FEAT), Chen et al. (A Closer Look at Few-Shot
# Classification; of the classes from 0 in order, every second trains), Triantafillou et al.
SPLITS = {
    "ye": (_YE_VAL, _YE_TEST),
    "sorted": (tuple(range(2, 201, 4)), tuple(range(4, 201, 4))),
    "meta_dataset": (_META_DATASET_VAL, _META_DATASET_TEST),
}


def classes(split: str) -> dict[str, list[int]]:
    """The numbers of the classes in 'train', 'val' and 'test', in order.

    Raises:
      ValueError: the split is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"--split must be one of {', '.join(SPLITS)}. Received: {split!r}.")
    val, test = SPLITS[split]
    train = sorted({*range(1, CLASSES + 1)} - {*val, *test})
    return {"train": train, "val": list(val), "test": list(test)}


class Photograph(NamedTuple):
    """One image file, and what is kept of it."""

    path: pathlib.Path
    box: pictures.Box | None


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    split: str,
    crop: bool = False,
    image_size: int = 84,
    name: str = "cub",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes CUB's records; the spec's split_name says the split, and 'cropped' where it is so.

    Args:
      source: CUB_200_2011.tgz, or the folder in it.
      out_dir: of the records.
      split: one of `SPLITS`.
      crop: cut every image to its bounding box: the box rounded outwards to whole pixels and
        clipped to the image, without a margin.
      image_size: height and width; the aspect ratio is not kept.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt or missing.

    Raises:
      FileNotFoundError: the source, or one of its tables, is missing.
      ValueError: a setting or a table is wrong, the counts differ, an image is corrupt or missing.
    """
    wanted, problems = classes(split), Problems(skip_bad=skip_bad)
    pictures.check_size(image_size)
    with archives.as_folder(source, beside=out_dir) as unpacked:
        photographs = _photographs(_home(unpacked), crop, problems)
        by_number = {int(class_name[:3]): class_name for class_name in photographs}
        spec = store.write_dataset(
            out_dir,
            name,
            {
                s: [
                    (by_number[n], _read(photographs[by_number[n]], image_size, problems))
                    for n in wanted[s]
                    if n in by_number
                ]
                for s in store.SPLITS
            },
            image_size=image_size,
            source_checksum=archives.checksum(source),
            converter_version=VERSION,
            split_name=f"{split} cropped" if crop else split,
            overwrite=overwrite,
        )
    return spec, problems


def _home(root: pathlib.Path) -> pathlib.Path:
    for folder in (root, root / "CUB_200_2011"):
        if (folder / "images.txt").is_file():
            return folder
    raise FileNotFoundError(f"--source must be CUB_200_2011.tgz or its folder, with images.txt. Received: {root}.")


def _photographs(home: pathlib.Path, crop: bool, problems: Problems) -> dict[str, list[Photograph]]:
    """The photographs of each class, in the data set's order; counted."""
    names = _table(home / "images.txt", 1)
    numbers = _table(home / "image_class_labels.txt", 1)
    boxes = _table(home / "bounding_boxes.txt", 4) if crop else {}
    found: dict[str, list[Photograph]] = {}
    for image, (name,) in names.items():
        parts = pathlib.PurePosixPath(name).parts
        number = _looked_up(numbers, image, home / "image_class_labels.txt")[0]
        if len(parts) != 2 or ".." in parts or parts[0][:4] != f"{int(number):03d}.":
            raise ValueError(
                f"{home / 'images.txt'}: image {image} must be class/file, the class beginning "
                f"with its number {number} in 3 digits and a dot. Received: {name!r}."
            )
        box = _box(_looked_up(boxes, image, home / "bounding_boxes.txt")) if crop else None
        found.setdefault(parts[0], []).append(Photograph(home / "images" / name, box))
    for count, expected, what in (
        (len(found), CLASSES, "classes"),
        (len(names), IMAGES, "images"),
    ):
        if count != expected:
            problems.add(home / "images.txt", f"CUB-200-2011 has {expected:,} {what}, found {count:,}")
    return found


def _table(path: pathlib.Path, columns: int) -> dict[int, list[str]]:
    """The columns behind the image's number, by that number."""
    if not path.is_file():
        raise FileNotFoundError(f"The file {path} is missing.")
    out = {}
    for i, line in enumerate(texts.read(path).splitlines(), 1):
        cells = line.split()
        if len(cells) != columns + 1 or not cells[0].isdigit() or not _fit(cells[1:]):
            raise ValueError(
                f"{path}, line {i}: it must be an image's number and {columns} "
                f"{'numbers' if columns > 1 else 'value'}. Received: {line[:100]!r}."
            )
        out[int(cells[0])] = cells[1:]
    return out


def _fit(cells: Sequence[str]) -> bool:
    """Whether several cells are all numbers."""
    if len(cells) == 1:
        return True
    try:
        return all(math.isfinite(float(cell)) for cell in cells)
    except ValueError:
        return False


def _looked_up(table: Mapping[int, list[str]], image: int, path: pathlib.Path) -> list[str]:
    if image not in table:
        raise ValueError(f"{path} has no line for image {image} of images.txt.")
    return table[image]


def _box(cells: Sequence[str]) -> pictures.Box:
    """x, y, width and height as whole pixels: outwards, so that nothing in the box is lost."""
    x, y, width, height = map(float, cells)
    return math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)


def _read(photographs: Sequence[Photograph], image_size: int, problems: Problems) -> Iterator[bytes | np.ndarray]:
    for path, box in photographs:
        image = pictures.read_image(path, path.read_bytes, problems, image_size=image_size, box=box)
        if image is not None:
            yield image
