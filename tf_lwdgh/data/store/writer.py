# SPDX-License-Identifier: Apache-2.0
"""The one path by which every converter writes a data set: whole, or not at all."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_lwdgh.data.store import croissant
from tf_lwdgh.data.store.example import serialise
from tf_lwdgh.data.store.records import ClassChecksum, class_path, masked_crc32c
from tf_lwdgh.data.store.scratch import scratch_folder
from tf_lwdgh.data.store.spec import SPEC_FILE, SPLITS, DatasetSpec

Image = bytes | np.ndarray
Classes = Mapping[str, Sequence[tuple[str, Iterable[Image]]]]

_AHEAD = 8  # classes in work at once: bounds the memory


def write_dataset(
    out_dir: str | os.PathLike,
    name: str,
    classes: Classes,
    *,
    image_size: int | None = None,
    source_checksum: str = "",
    converter_version: str = "1",
    split_name: str = "",
    superclasses: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> DatasetSpec:
    """Writes a data set's records, spec and Croissant description.

    Everything goes into a hidden folder beside `out_dir`, which is renamed at the very end. What
    a killed conversion left there is removed by the next one.

    Args:
      out_dir: the data set's folder, usually <data_dir>/<name>.
      name: of the data set.
      classes: for 'train', 'val' and 'test' a list of (class name, images); an image is PNG or JPEG
        bytes, kept as they are, or a uint8 array [H, W] or [H, W, C], stored as PNG. The images
        may be a generator; it is run in a thread.
      image_size: height and width of every image where they are all the same.
      source_checksum: of what is converted.
      converter_version: changes when the converter's output does.
      split_name: which split this is, such as 'vinyals'.
      superclasses: the superclass name of each class name.
      overwrite: replace what `out_dir` holds.

    Returns:
      The spec.

    Raises:
      FileExistsError: `out_dir` holds something and `overwrite` is False.
      ValueError: there is no class, a class has no image, or the splits are not the three.
    """
    out_dir = pathlib.Path(out_dir)
    if not any(classes.values()):
        raise ValueError(f"classes must hold at least one class. Received: none for {out_dir}.")
    if set(classes) != set(SPLITS):
        keys = ", ".join(SPLITS)
        raise ValueError(f"classes must have the keys {keys}. Received: {list(classes)}.")
    if out_dir.exists() and any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{out_dir} exists and is not empty; choose another folder, or say --overwrite."
        )
    with scratch_folder(out_dir, "partial") as partial:
        ordered = [c for split in SPLITS for c in classes[split]]
        written = _write_classes(partial, name, ordered)
        spec = DatasetSpec(
            name=name,
            classes_per_split={split: len(classes[split]) for split in SPLITS},
            images_per_class=tuple(w.count for w in written),
            class_names=tuple(class_name for class_name, _ in ordered),
            split_name=split_name,
            source_checksum=source_checksum,
            content_checksum=content_checksum(w.sha256 for w in written),
            class_checksums=tuple(w.checksum for w in written),
            converter_version=converter_version,
            image_size=image_size,
            encoding=_common({kind for w in written for kind in w.encodings}),
            **_superclass_fields([c for c, _ in ordered], superclasses),
        )
        spec.write(partial)
        croissant.write(partial, spec)
        os.chmod(partial, 0o755)
        _replace(partial, out_dir)
        return spec


class _Written(NamedTuple):
    """What was written of a class."""

    count: int  # type: ignore[assignment]  # not the method of tuples
    sha256: str  # of its images
    checksum: str  # of its records
    encodings: set[str]


def content_checksum(of_classes: Iterable[str]) -> str:
    """A data set's checksum from the sha256, in hexadecimal, of each class's images."""
    return hashlib.sha256("".join(of_classes).encode()).hexdigest()


def encoding(image: bytes) -> str:
    """'png' or 'jpeg', by how the image begins."""
    return "png" if image[:4] == b"\x89PNG" else "jpeg"


def is_finished(
    out_dir: str | os.PathLike, *, converter_version: str, split_name: str = ""
) -> bool:
    """Whether `out_dir` already holds what this version of a converter writes."""
    if not pathlib.Path(out_dir, SPEC_FILE).exists():
        return False
    spec = DatasetSpec.load(out_dir)
    return (spec.converter_version, spec.split_name) == (converter_version, split_name)


def _write_classes(folder: pathlib.Path, name: str, ordered: Sequence[tuple[str, Iterable[Image]]]):
    """What was written of each class, in order."""
    blank = DatasetSpec(name, dict.fromkeys(SPLITS, 0), (), ())  # for the file names alone

    def write(class_id: int):
        class_name, images = ordered[class_id]
        return _write_class(class_path(folder, blank, class_id), class_id, class_name, images)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        done = []
        for start in range(0, len(ordered), _AHEAD):
            done += pool.map(write, range(start, min(start + _AHEAD, len(ordered))))
        return done


def _write_class(path: str, class_id: int, class_name: str, images: Iterable[Image]) -> _Written:
    digest, checksum, kinds, count = hashlib.sha256(), ClassChecksum(), set(), 0
    with open(path, "wb") as file:
        with tf.io.TFRecordWriter(path) as writer:
            for image in images:
                encoded = image if isinstance(image, bytes) else encode_png(image)
                record = serialise(encoded, class_id)
                writer.write(record)
                checksum.add(masked_crc32c(record).to_bytes(4, "little"))
                digest.update(encoded)
                kinds.add(encoding(encoded))
                count += 1
        os.fsync(file.fileno())
    if not count:
        raise ValueError(f"class {class_name!r} (id {class_id}) has no image.")
    return _Written(count, digest.hexdigest(), f"{checksum.value:08x}", kinds)


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels [H, W] or [H, W, C].

    Raises:
      ValueError: they are of another dtype or rank.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(
            "an image array must be uint8 [H, W] or [H, W, C]. "
            f"Received: {pixels.dtype} {list(pixels.shape)}."
        )
    return tf.io.encode_png(pixels if pixels.ndim == 3 else pixels[..., None]).numpy()


def _common(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _superclass_fields(class_names: Sequence[str], superclasses: Mapping[str, str] | None) -> dict:
    if not superclasses:
        return {}
    names = list(dict.fromkeys(superclasses[c] for c in class_names))
    return {
        "superclasses": tuple(names.index(superclasses[c]) for c in class_names),
        "superclass_names": tuple(names),
    }


def _replace(partial: pathlib.Path, out_dir: pathlib.Path) -> None:
    """Renames; what stood there goes first, and comes back if the renaming fails."""
    if not out_dir.exists():
        os.rename(partial, out_dir)
        return
    old = pathlib.Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.old-", dir=out_dir.parent))
    os.rename(out_dir, old / "data")
    try:
        os.rename(partial, out_dir)
    except OSError:
        os.rename(old / "data", out_dir)
        raise
    shutil.rmtree(old)
