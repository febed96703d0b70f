"""Reading an image file: whole, or a named problem; its bytes as they are where they fit."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from tf_lwdgh.converters.problems import Problems

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_PNG_END = b"IEND\xae\x42\x60\x82"
NOT_AN_IMAGE = (  # all that Pillow raises on damaged files
    OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


def check_size(image_size: int | None) -> None:
    """Raises ValueError where a height and width, None for each image's own, is below 1."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"--image_size must be at least 1. Received: {image_size}.")


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The image files in and below a folder, sorted by name; hidden ones are passed over."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return sorted(p for p in found if not p.name.startswith(".") and p.is_file())


def read_images(
    paths: Iterable[pathlib.Path], problems: Problems, *, image_size: int | None = None
) -> Iterator[bytes | np.ndarray]:
    """Image after image, each decoded once to be sure of it.

    Args:
      paths: of the image files.
      problems: is told of missing and corrupt files.
      image_size: height and width to resize to; None keeps each image's own.

    Yields:
      The file's bytes where it is a PNG or JPEG of the right size, else uint8 [H, W] or
      [H, W, 3].
    """
    for path in paths:
        image = read_image(path, path.read_bytes, problems, image_size=image_size)
        if image is not None:
            yield image


def read_image(
    where: object,
    read: Callable[[], bytes],
    problems: Problems,
    *,
    image_size: int | None = None,
    box: Box | None = None,
) -> bytes | np.ndarray | None:
    """One image as `read_images` gives it, cut to a box where there is one; None for a problem.

    Args:
      where: what the problem's text calls it.
      read: gives the file's bytes.
      problems: is told where it is missing or corrupt.
      image_size: height and width to resize to; None keeps the image's own.
      box: what is kept of the image, as far as it lies within.
    """
    try:
        return _as_stored(read(), image_size, box)
    except FileNotFoundError:
        problems.add(where, "the file is missing")
    except NOT_AN_IMAGE as error:
        problems.add(where, f"the image is corrupt ({error})", cause=error)
    return None


def _as_stored(content: bytes, image_size: int | None, box: Box | None) -> bytes | np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.format == "PNG" and _PNG_END not in content:  # Pillow reads it, TensorFlow does not
            raise OSError("the file is cut short")
        fits = box is None and (image_size is None or image.size == (image_size, image_size))
        if fits and (image.format == "PNG" or (image.format == "JPEG" and image.mode != "CMYK")):
            return content
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if box is not None:
        pixels = _cut(pixels, box)
    if image_size is None or pixels.shape[:2] == (image_size, image_size):
        return pixels
    return resize(pixels, image_size)


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), *box[2:]
    if left >= min(right, width) or top >= min(bottom, height):
        raise ValueError(f"its box {box} lies outside of its {width}×{height} pixels")
    return pixels[top:bottom, left:right]


def common_size(paths: Iterable[pathlib.Path]) -> int | None:
    """The height and width that all images share, from their headers; None where there is none."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except NOT_AN_IMAGE:
            continue  # named by `read_images`, which decides what becomes of it
        if len(sizes) > 1:
            return None
    width, height = sizes.pop() if sizes else (0, 1)
    return width if width == height else None


def grey_pixels(path: str | os.PathLike) -> np.ndarray:
    """uint8 [H, W]. Raises OSError, SyntaxError or ValueError where the file is no image."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, C] to [size, size(, C)].

    Shrinking averages each target pixel's exact area, so that thin strokes do not vanish;
    enlarging is bicubic. The aspect ratio is not kept.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    rows = np.tensordot(_areas(height, size), pixels.astype(np.float32), axes=(1, 0))
    both = np.tensordot(rows, _areas(width, size), axes=(1, 1))  # [size, (C,) size]
    return np.rint(np.moveaxis(both, -1, 1)).clip(0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _areas(old: int, new: int) -> np.ndarray:
    """[new, old]: the share that each old pixel has in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(old)[None]
    overlap = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None)
    return (overlap * (new / old)).astype(np.float32)
