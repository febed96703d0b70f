"""Reading an image file: whole, or a named problem; its bytes as they are where they fit."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from tf_lwdgh.converters.problems import Problems

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
NOT_AN_IMAGE = (  # all that Pillow raises on damaged files
    OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


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
        try:
            content = path.read_bytes()
            image = _as_stored(content, image_size)
        except FileNotFoundError:
            problems.add(path, "the file is missing")
            continue
        except NOT_AN_IMAGE as error:
            problems.add(path, f"the image is corrupt ({error})", cause=error)
            continue
        yield image


def _as_stored(content: bytes, image_size: int | None) -> bytes | np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        fits = image_size is None or image.size == (image_size, image_size)
        if fits and (image.format == "PNG" or (image.format == "JPEG" and image.mode != "CMYK")):
            return content
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return pixels if fits else resize(pixels, image_size)


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
