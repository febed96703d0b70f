# SPDX-License-Identifier: Apache-2.0
"""Tiny record data sets for tests, written through the store's own write path."""

from __future__ import annotations

import pathlib

import numpy as np

from tf_lwdgh.data import store

SIZES = {"train": (7, 9, 8, 12, 10, 7), "val": (6, 6, 7), "test": (9, 8, 6, 7)}  # images a class


def class_pixels(class_id: int, count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """[count, H, W, C] uint8 noise, whose first pixel's first channel is 20*class_id + image."""
    pixels = np.random.default_rng(class_id).integers(0, 256, (count, *shape), dtype=np.uint8)
    pixels[:, 0, 0, 0] = 20 * class_id + np.arange(count)
    return pixels


def all_pixels(split: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """The images of each class of a split, as `write_records` writes them."""
    first = sum(len(SIZES[name]) for name in list(SIZES)[: list(SIZES).index(split)])
    return [class_pixels(first + i, count, shape) for i, count in enumerate(SIZES[split])]


def write_records(
    folder: pathlib.Path, shape: tuple[int, int, int] = (8, 8, 3), name: str = "tiny"
) -> store.DatasetSpec:
    """Writes classes of unequal size as PNG into `folder` and gives the spec."""
    classes = {split: [(f"{split}-{i}", list(p)) for i, p in enumerate(all_pixels(split, shape))] for split in SIZES}
    store.write_dataset(folder, name, classes, image_size=shape[0])
    return store.DatasetSpec.load(folder)
