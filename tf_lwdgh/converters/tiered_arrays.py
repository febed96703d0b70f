# SPDX-License-Identifier: Apache-2.0
"""tiered-ImageNet's two forms of one file a split: PNG files in a pickle, or pixels in an .npz.

OpenCV wrote both. Its arrays are BGR, and so are those of the .npz; its PNG encoder takes BGR and
writes RGB, so that the PNG files have the right colours for every other reader and are kept.
A split's images are opened when its first class is written, and let go after its last.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lwdgh.converters import npz, pictures, safe_pickle
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.converters.tiered_labels import Group
from tf_lwdgh.data import store

IMAGES = {"png": "{}_images_png.pkl", "npz": "{}_images.npz"}
CHANNELS = ("bgr", "rgb")


def find(root: pathlib.Path, form: str) -> list[pathlib.Path]:
    """The files of 'png' or 'npz' that lie in a folder."""
    paths = [root / IMAGES[form].format(split) for split in store.SPLITS]
    return [path for path in paths if path.is_file()]


Image = bytes | np.ndarray
Images = Mapping[str, list[tuple[str, Iterator[Image]]]]


def read_images(
    root: pathlib.Path,
    form: str,
    labels: Mapping[str, Sequence[Group]],
    problems: Problems,
    *,
    image_size: int,
    channels: str,
    beside: pathlib.Path,
) -> Images:
    """The images of each class of each split, read as they are asked for.

    Args:
      root: the folder of the files.
      form: 'png' or 'npz'.
      labels: what `tiered_labels.read` gave.
      problems: is told of corrupt PNG files.
      image_size: height and width to resize to.
      channels: 'bgr' or 'rgb': those of the .npz.
      beside: the output, next to which a compressed .npz is unpacked into a file without a name.

    Raises:
      FileNotFoundError: a split's file is missing.
    """
    out = {}
    for split, groups in labels.items():
        path = root / IMAGES[form].format(split)
        if not path.is_file():
            raise FileNotFoundError(f"The file {path} is missing.")
        count = sum(len(group.rows) for group in groups)
        if form == "png":
            opened = functools.partial(_pickled, path, count)
            one = functools.partial(_png, path=path, problems=problems, image_size=image_size)
        else:
            opened = functools.partial(_mapped, path, count, beside.parent)
            one = functools.partial(_pixels, image_size=image_size, channels=channels)
        held = _Held(opened, len(groups))
        out[split] = [(group.name, _each(held, group.rows, one)) for group in groups]
    return out


class _Held:
    """What is opened for its first user and let go after its last; threads may share it."""

    def __init__(self, opened: Callable[[], Sequence[Any]], users: int) -> None:
        self._opened, self._users = opened, users
        self._content: Sequence[Any] | None = None
        self._lock = threading.Lock()

    def enter(self) -> Sequence[Any]:
        with self._lock:
            if self._content is None:
                self._content = self._opened()
            return self._content

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._content = None


def _each(held: _Held, rows: Iterable[int], one: Callable[[Any, int], Image | None]) -> Iterator[Image]:
    content = held.enter()
    try:
        for row in rows:
            image = one(content[row], int(row))
            if image is not None:
                yield image
    finally:
        del content
        held.leave()


def _pickled(path: pathlib.Path, count: int) -> Sequence[Any]:
    content = safe_pickle.load(path)
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{path} must hold a list. Received: {type(content).__name__}.")
    return _counted(path, content, count)


def _mapped(path: pathlib.Path, count: int, folder: pathlib.Path) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as spare:  # has no name, and is gone with the process
        images = npz.member(path, "images", spare, beside=folder)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{path}: 'images' must be uint8 [N, H, W, 3]. Received: {images.dtype} {list(images.shape)}.")
    return _counted(path, images, count)


def _counted(path: pathlib.Path, images: Sequence[Any], count: int) -> Sequence[Any]:
    if len(images) != count:
        raise ValueError(f"{path} must hold an image for each of the {count} labels. Received: {len(images)}.")
    return images


def _png(item: Any, row: int, *, path: pathlib.Path, problems: Problems, image_size: int) -> Image | None:
    where = f"{path}, image {row}"
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        item = item.tobytes()
    if not isinstance(item, (bytes, bytearray)):
        problems.add(where, f"it must be the bytes of a PNG file. Received: {type(item).__name__}")
        return None
    return pictures.read_image(where, lambda: bytes(item), problems, image_size=image_size)


def _pixels(item: np.ndarray, row: int, *, image_size: int, channels: str) -> np.ndarray:
    del row
    image = np.ascontiguousarray(item[..., ::-1] if channels == "bgr" else item)
    fits = image.shape[:2] == (image_size, image_size)
    return image if fits else pictures.resize(image, image_size)
