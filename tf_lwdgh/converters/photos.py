# SPDX-License-Identifier: Apache-2.0
"""Photographs as people have them, for a model that takes encoded images: found, and read as the converters read."""

from __future__ import annotations

import collections
import glob
import io
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tf_lwdgh.converters import folders, pictures
from tf_lwdgh.converters.problems import Problems

_LONGEST = 1024  # pixels of a bitmap: some times what a model looks at


class Photo(NamedTuple):
    """One photograph, upright.

    Attributes:
      path: its file.
      encoded: PNG, JPEG or BMP: the file's bytes where training decodes them to what the file shows, else
        what it shows as a bitmap of at most 1,024 pixels a side.
    """

    path: pathlib.Path
    encoded: bytes


def find(patterns: Sequence[str], problems: Problems, *, flag: str) -> list[pathlib.Path]:
    """The image files that files, folders and patterns name, each once, in this order.

    A file that is named counts whatever its suffix; of a folder or a pattern the files with other suffixes
    are counted in problems.left_out.

    Args:
      patterns: paths, or patterns such as 'photos/*.jpg' or 'photos/**/new*'.
      problems: see there.
      flag: where they were given, for the message.

    Raises:
      FileNotFoundError: one of them names nothing.
    """
    found: dict[pathlib.Path, None] = {}
    for pattern in patterns:
        path = pathlib.Path(pattern)
        if path.is_file():
            found[path] = None
            continue
        matches = [path] if path.is_dir() else map(pathlib.Path, sorted(glob.glob(pattern, recursive=True)))
        files = list(_of_matches(matches, problems.left_out))
        if not files:
            raise FileNotFoundError(
                f"{flag} must name image files, folders with some, or a pattern that matches some. "
                f"Received: {pattern!r}, where there is none."
            )
        found.update(dict.fromkeys(files))
    return list(found)


def _of_matches(matches: Iterable[pathlib.Path], others: collections.Counter[str]) -> Iterator[pathlib.Path]:
    for path in matches:
        if path.is_dir():
            yield from pictures.image_files(path, others)
        elif path.suffix.lower() in pictures.SUFFIXES:
            yield path
        else:
            others[pictures.kind(path)] += 1


def find_classes(folder: pathlib.Path, problems: Problems, *, flag: str) -> dict[str, list[pathlib.Path]]:
    """The image files in and below each folder in a folder, by the folders' names, sorted.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has fewer than two folders, a name is no text, or a folder has no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{flag} must be a folder that holds a folder of images for each class. Received: {str(folder)!r}."
        )
    classes = folders.subfolders(folder)
    if len(classes) < 2:
        names = ", ".join(map(repr, classes)) or "none"
        raise ValueError(
            f"{flag} must hold a folder of images for each class, two or more. Received: {names} in {str(folder)!r}."
        )
    folders.count_beside(folder, classes.values(), problems)
    files = {name: pictures.image_files(path, problems.left_out) for name, path in classes.items()}
    refuse_empty(files, flag=flag)
    return files


def refuse_empty(by_class: Mapping[str, Sequence], *, flag: str) -> None:
    """Raises ValueError where a class has no image."""
    empty = [name for name, images in by_class.items() if not images]
    if empty:
        raise ValueError(
            f"{flag}: every class must have an image that can be read. "
            f"Received: none for {', '.join(map(repr, empty))}."
        )


def read(paths: Iterable[pathlib.Path], problems: Problems, *, crop: bool = False) -> Iterator[Photo]:
    """Photo after photo; `problems` is told of those that can't be read.

    Args:
      paths: of the files.
      problems: see there.
      crop: whether only the largest square in the middle is kept.
    """
    for path in paths:
        image = pictures.read_image(path, path.read_bytes, problems, crop=crop)
        if image is not None:
            yield Photo(path, image if isinstance(image, bytes) else _bitmap(image))


def _bitmap(pixels: np.ndarray) -> bytes:
    """A BMP file, which unlike a PNG takes no time to write and read."""
    buffer = io.BytesIO()
    Image.fromarray(pictures.shrink(pixels, _LONGEST)).convert("RGB").save(buffer, "BMP")
    return buffer.getvalue()
