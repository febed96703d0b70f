# SPDX-License-Identifier: Apache-2.0
"""Raw data sets made small: pixels, image files, and the records that came of them."""

import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_lwdgh.data import store


def pixels(seed: int, size: int = 12, channels: int = 3) -> np.ndarray:
    shape = (size, size, channels) if channels > 1 else (size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: pathlib.Path, pixels: np.ndarray, **options) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path.read_bytes()


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def records(folder: pathlib.Path) -> dict[str, dict[str, list[bytes]]]:
    spec = store.DatasetSpec.load(folder)
    return {s: {spec.class_names[i]: store.read_class(folder, spec, i) for i in spec.classes(s)} for s in store.SPLITS}


def decode(encoded: bytes) -> np.ndarray:
    return tf.io.decode_image(encoded).numpy()
