# SPDX-License-Identifier: Apache-2.0
"""Pickled splits, of mini-ImageNet or CIFAR: arrays of pixels with the classes of their rows."""

from __future__ import annotations

import pathlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lwdgh.converters import pictures, safe_pickle
from tf_lwdgh.data import store

Images = Mapping[str, tuple[int, Iterator[np.ndarray]]]  # class name -> count, images
_CACHE = {
    "train": ("mini-imagenet-cache-train.pkl",),
    "val": ("mini-imagenet-cache-val.pkl", "mini-imagenet-cache-validation.pkl"),
    "test": ("mini-imagenet-cache-test.pkl",),
}
_PHASES = {"train": ("train_phase_train", "train"), "val": ("val",), "test": ("test",)}
_CATEGORY = {
    split: tuple(f"{p}{s}.pickle" for p in ("miniImageNet_category_split_", "") for s in stems)
    for split, stems in _PHASES.items()
}
_FILES: dict[str, Mapping[str, Sequence[str]]] = {
    "cache": _CACHE,
    "category": _CATEGORY,
    "cifar_fs": {s: (f"CIFAR_FS_{s}.pickle",) for s in store.SPLITS},
    "fc100": {s: (f"FC100_{s}.pickle",) for s in store.SPLITS},
}


def find(root: pathlib.Path, form: str) -> dict[str, pathlib.Path]:
    """The files of a form in a folder, by split; the first known name counts."""
    names = _FILES[form]
    found = {s: [root / n for n in names[s] if (root / n).is_file()] for s in store.SPLITS}
    return {s: paths[0] for s, paths in found.items() if paths}


def read(root: pathlib.Path, form: str, image_size: int) -> dict[str, Images]:
    """Every class of every split: how many images it has, and the images, uint8 [size, size, 3].

    Where the file does not name its classes, they are called by the split and the label.

    Raises:
      FileNotFoundError: a split's file is missing.
      UnsafePickle: a file asks for more than arrays and containers.
      ValueError: a file has not the form's keys, types and shapes.
    """
    return {s: _read_split(p, s, form, image_size) for s, p in _paths(root, form).items()}


def read_by_label(
    root: pathlib.Path, form: str, image_size: int
) -> dict[str, dict[int, tuple[int, Iterator[np.ndarray]]]]:
    """As `read`, of files with 'data' and 'labels'; the classes go by their labels."""
    return {s: _read_labelled(p, image_size)[0] for s, p in _paths(root, form).items()}


def _paths(root: pathlib.Path, form: str) -> dict[str, pathlib.Path]:
    paths = find(root, form)
    for split in store.SPLITS:
        if split not in paths:
            names = " or ".join(_FILES[form][split])
            raise FileNotFoundError(f"{root}: the file of split {split} is missing: {names}.")
    return paths


def load(path: pathlib.Path) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as text.

    Raises:
      UnsafePickle: the file asks for more than arrays and containers.
      ValueError: it holds no dictionary.
    """
    content = safe_pickle.load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary. Received: {type(content).__name__}.")
    return {text(key): value for key, value in content.items()}


def _read_split(path: pathlib.Path, split: str, form: str, image_size: int) -> Images:
    if form == "cache":
        content = load(path)
        pixels = _pixels(_get(content, "image_data", path), path, "image_data")
        rows = _cache_rows(_get(content, "class_dict", path), len(pixels), path)
        return {name: (len(r), take(pixels, r, image_size)) for name, r in rows.items()}
    by_label, names = _read_labelled(path, image_size)
    return {names.get(v, f"{split}-{v:02d}"): images for v, images in by_label.items()}


def _read_labelled(path: pathlib.Path, image_size: int):
    """The images of each label, and the names that 'catname2label' gives to labels."""
    content = load(path)
    pixels = _pixels(_get(content, "data", path), path, "data")
    labels = integers(path, "labels", _get(content, "labels", path))
    if len(labels) != len(pixels):
        raise ValueError(
            f"{path}: 'labels' must be {len(pixels)} integers, one for each image. Received: {len(labels)}."
        )
    named = content.get("catname2label")
    named = {} if named is None else _dictionary(path, "catname2label", named)
    names = {v: text(k) for k, v in named.items() if isinstance(v, int)}
    rows = {v: np.flatnonzero(labels == v).tolist() for v in np.unique(labels).tolist()}
    return {v: (len(r), take(pixels, r, image_size)) for v, r in rows.items()}, names


def take(pixels: Sequence[np.ndarray], rows: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """Some rows' images, resized where they have another size."""
    for row in rows:
        image = pixels[row]
        yield image if image.shape[:2] == (size, size) else pictures.resize(image, size)


def text(key: Any) -> str:
    """A key or name; Python 2 wrote bytes.

    Raises:
      ValueError: it is no plain value; the text of nested ones can be endless.
    """
    if not isinstance(key, (str, bytes, int, float, np.generic)):
        raise ValueError(f"a name must be text or a number. Received: a {type(key).__name__}.")
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def integers(path: pathlib.Path, key: str, value: Any) -> np.ndarray:
    """[N] whole numbers from 0: of an array or a list.

    Raises:
      ValueError: it is no such thing.
    """
    flat = value
    if isinstance(value, (list, tuple)):  # NumPy would unfold nested ones, however large
        whole = all(isinstance(v, (int, np.integer)) and 0 <= v < 1 << 63 for v in value)
        flat = np.array(value, np.int64) if whole else None
    if not isinstance(flat, np.ndarray) or flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise ValueError(f"{path}: {key!r} must be a list of whole numbers from 0. Received: {_kind(value)}.")
    if len(flat) and flat.min() < 0:
        raise ValueError(f"{path}: {key!r} must be a list of whole numbers from 0. Received: {flat.min()}.")
    return flat


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return reprlib.repr(value)[:100]


def _dictionary(path: pathlib.Path, key: str, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {key!r} must be a dictionary. Received: {type(value).__name__}.")
    return value


def _get(content: Mapping[str, Any], key: str, path: pathlib.Path) -> Any:
    if key not in content:
        raise ValueError(f"{path} has no key {key!r}. Received the keys: {', '.join(content)}.")
    return content[key]


def _pixels(value: Any, path: pathlib.Path, key: str) -> Sequence[np.ndarray]:
    """uint8 [N, H, W, 3], or a list of [H, W, 3]."""
    images = [value] if isinstance(value, np.ndarray) and value.ndim == 4 else value
    if not isinstance(images, (list, tuple, np.ndarray)):
        raise ValueError(f"{path}: {key!r} must be an array. Received: {type(value).__name__}.")
    for i, image in enumerate(images):
        rank = 4 if images is not value else 3
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == rank
        if not fits or image.shape[-1] != 3 or 0 in image.shape[-3:]:
            raise ValueError(
                f"{path}: {key!r} must be uint8 [N, H, W, 3] or a list of [H, W, 3]. Received at {i}: {_kind(image)}."
            )
    return value


def _cache_rows(class_dict: Any, n: int, path: pathlib.Path) -> dict[str, list[int]]:
    """The rows of each class; no row twice, none out of range."""
    rows = {
        text(c): integers(path, f"class_dict[{text(c)!r}]", ids).tolist()
        for c, ids in _dictionary(path, "class_dict", class_dict).items()
    }
    every = [i for ids in rows.values() for i in ids]
    if len(set(every)) != len(every) or not set(every) <= set(range(n)):
        raise ValueError(
            f"{path}: 'class_dict' must name each of the {n} rows of 'image_data' at most once. "
            f"Received: {len(every)} rows, {len(set(every))} different, from {min(every)} to "
            f"{max(every)}."
        )
    return dict(sorted(rows.items()))
