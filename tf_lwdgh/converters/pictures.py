"""Reading an image file: whole, or a named problem; its bytes as they are where they fit."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from tf_lwdgh.converters import pixels
from tf_lwdgh.converters.pixels import Box
from tf_lwdgh.converters.problems import Problems

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


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
    return _or_problem(where, lambda: _as_stored(read(), image_size, box), problems)


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
        problems.add(where, f"the image is corrupt ({_words(error)})", cause=error)
    return None


def _words(error: Exception) -> str:
    """What an error says; of TensorFlow's, without the names of its operations."""
    return str(error).split("}} ", 1)[-1].split(" [Op:", 1)[0]


def _as_stored(content: bytes, image_size: int | None, box: Box | None) -> bytes | np.ndarray:
    with pixels.opened(content) as image:
        fits = box is None and (image_size is None or image.size == (image_size, image_size))
        if fits and pixels.can_be_kept(image, content):
            return content
        shown = pixels.shown(image, content, box)
    if image_size is None or shown.shape[:2] == (image_size, image_size):
        return shown
    return resize(shown, image_size)


def _grey(content: bytes) -> np.ndarray:
    with pixels.opened(content) as image:
        return np.asarray(Image.fromarray(pixels.shown(image, content)).convert("L"))


def common_size(paths: Iterable[pathlib.Path]) -> int | None:
    """The height and width that all images share, from their headers; None where there is none."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
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
    height, width = image.shape[:2]
    if min(height, width) < size:
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    rows = np.tensordot(_areas(height, size), image.astype(np.float32), axes=(1, 0))
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
