# SPDX-License-Identifier: Apache-2.0
"""Reading an image file: whole, or a named problem; its bytes as they are where they fit."""

from __future__ import annotations

import collections
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tf_lwdgh.converters import pixels
from tf_lwdgh.converters.pixels import Box
from tf_lwdgh.converters.problems import Problems

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".avif", ".heic", ".heif",
)  # fmt: skip


class Sizing(NamedTuple):
    """What becomes of an image's height and width.

    Attributes:
      image_size: both, without keeping the aspect ratio; None: the image's own.
      longest_side: that an image may have; larger ones are shrunk to it and keep their aspect ratio. None: any.
      crop: whether first the largest square in the middle is cut out.
    """

    image_size: int | None = None
    longest_side: int | None = None
    crop: bool = False

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The width and height of what becomes of an image of these."""
        if self.crop:
            width = height = min(width, height)
        if self.image_size is not None:
            return self.image_size, self.image_size
        longest = max(width, height)
        if self.longest_side is None or longest <= self.longest_side:
            return width, height
        return tuple(max(1, round(side * self.longest_side / longest)) for side in (width, height))


def check_size(image_size: int | None) -> None:
    """Raises ValueError where a height and width, None for each image's own, is below 1."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"--image_size must be at least 1. Received: {image_size}.")


def image_files(folder: pathlib.Path, others: collections.Counter[str] | None = None) -> list[pathlib.Path]:
    """The image files in and below a folder, sorted by name; hidden ones are passed over.

    Args:
      folder: the folder.
      others: the files with other suffixes are counted in it.
    """
    found = []
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif others is not None and path.is_file():
            others[kind(path)] += 1
    return sorted(p for p in found if p.is_file())


def kind(path: pathlib.Path) -> str:
    """What a file is called where files are counted: '.txt file'."""
    return f"{path.suffix.lower()} file" if path.suffix else "file without a suffix"


def read_images(
    paths: Iterable[pathlib.Path],
    problems: Problems,
    *,
    image_size: int | None = None,
    longest_side: int | None = None,
    crop: bool = False,
) -> Iterator[bytes | np.ndarray]:
    """Image after image, each decoded once to be sure of it.

    Args:
      paths: of the image files.
      problems: is told of missing and corrupt files.
      image_size: see Sizing, as the next two.
      longest_side: see there.
      crop: see there.

    Yields:
      The file's bytes where it is a PNG or JPEG of the right size, else uint8 [H, W] or
      [H, W, 3].
    """
    for path in paths:
        image = read_image(path, path.read_bytes, problems, image_size=image_size, longest_side=longest_side, crop=crop)
        if image is not None:
            yield image


def read_image(
    where: object,
    read: Callable[[], bytes],
    problems: Problems,
    *,
    image_size: int | None = None,
    longest_side: int | None = None,
    crop: bool = False,
    box: Box | None = None,
) -> bytes | np.ndarray | None:
    """One image as `read_images` gives it, cut to a box where there is one; None for a problem.

    Args:
      where: what the problem's text calls it.
      read: gives the file's bytes.
      problems: is told where it is missing or corrupt.
      image_size: see Sizing, as the next two.
      longest_side: see there.
      crop: see there.
      box: what is kept of the image, as far as it lies within, before all else.
    """
    sizing = Sizing(image_size, longest_side, crop)
    return _or_problem(where, lambda: _as_stored(read(), sizing, box), problems)


def read_grey(path: pathlib.Path, problems: Problems) -> np.ndarray | None:
    """The pixels of an image file, uint8 [H, W]; None for a problem."""
    return _or_problem(path, lambda: _grey(path.read_bytes()), problems)


def _or_problem(where: object, read: Callable[[], bytes | np.ndarray], problems: Problems):
    try:
        return read()
    except FileNotFoundError:
        problems.add(where, "the file is missing")
    except pixels.DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the image
        fault = "cannot be read" if isinstance(error, pixels.NoReader) else "is corrupt"
        problems.add(where, f"the image {fault} ({_words(error)})", cause=error)
    return None


def _words(error: Exception) -> str:
    """What an error says; of TensorFlow's, without the names of its operations."""
    return str(error).split("}} ", 1)[-1].split(" [Op:", 1)[0]


def _as_stored(content: bytes, sizing: Sizing, box: Box | None) -> bytes | np.ndarray:
    with pixels.opened(content) as image:
        fits = box is None and image.size == sizing.of(*image.size)
        if fits and pixels.can_be_kept(image, content):
            return content
        shown = pixels.shown(image, content, box)
    if sizing.crop:
        shown = _middle(shown)
    height, width = shown.shape[:2]
    return _resize(shown, *sizing.of(width, height))


def _middle(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle of [H, W] or [H, W, C]; of an odd rest the larger part is below or right."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _grey(content: bytes) -> np.ndarray:
    with pixels.opened(content) as image:
        return np.asarray(Image.fromarray(pixels.shown(image, content)).convert("L"))


def common_size(paths: Iterable[pathlib.Path], sizing: Sizing = Sizing()) -> int | None:
    """The height and width that all images come to share, from their headers; None where there is none."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(sizing.of(*image.size))
        except pixels.DAMAGE:
            continue  # named by `read_images`, which decides what becomes of it
        if len(sizes) > 1:
            return None
    width, height = sizes.pop() if sizes else (0, 1)
    return width if width == height else None


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, C] to [size, size(, C)].

    Shrinking averages each target pixel's exact area, so that thin strokes do not vanish;
    enlarging is bicubic. The aspect ratio is not kept.
    """
    return _resize(image, size, size)


def shrink(image: np.ndarray, longest_side: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, C] as `resize` does it, if it is larger than that, with its aspect ratio."""
    height, width = image.shape[:2]
    return _resize(image, *Sizing(longest_side=longest_side).of(width, height))


def _resize(image: np.ndarray, new_width: int, new_height: int) -> np.ndarray:
    height, width = image.shape[:2]
    if (height, width) == (new_height, new_width):
        return image
    if height < new_height or width < new_width:
        new = (new_width, new_height)
        return np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BICUBIC))
    rows = np.tensordot(_areas(height, new_height), image.astype(np.float32), axes=(1, 0))
    both = np.tensordot(rows, _areas(width, new_width), axes=(1, 1))  # [new_height, (C,) new_width]
    return np.rint(np.moveaxis(both, -1, 1)).clip(0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _areas(old: int, new: int) -> np.ndarray:
    """[new, old]: the share that each old pixel has in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(old)[None]
    overlap = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None)
    return (overlap * (new / old)).astype(np.float32)
