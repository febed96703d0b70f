"""The images of one split, behind row numbers: in memory encoded or decoded, or streamed from disk.

| storage   | memory                                   | work for each image               |
|-----------|------------------------------------------|-----------------------------------|
| 'encoded' | the PNG or JPEG bytes + 24 an image      | decode, resize                    |
| 'decoded' | S*S*C an image                           | a copy                            |
| 'disk'    | 16 an image (its place in its file)      | one pread, verify, decode, resize |

All three give the same pixels to the bit. Every record's checksum is verified when it is loaded or indexed,
and by 'disk' at every read too. While 'encoded' loads it needs twice its memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.images import ImageConfig, decode
from tf_lwdgh.data.mixtures import Spec

STORAGES = ("encoded", "decoded", "disk")
_STRING_BYTES = 24  # TensorFlow's own cost of one string
_Records = TypeVar("_Records", list, np.ndarray)
_LOG = logging.getLogger(__name__)


class ClassRows:
    """Row numbers of a split's images: through its classes in order, then through each class's images."""

    def __init__(self, spec: Spec, split: str) -> None:
        self._classes = spec.classes(split)
        sizes = [spec.images_per_class[c] for c in self._classes]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, class_ids: tf.Tensor, image_indices: tf.Tensor) -> tf.Tensor:
        """Row numbers [N, P] int64 of images [N, P] of the classes [N]."""
        starts = tf.gather(tf.constant(self._starts), class_ids - self._classes.start)
        return starts[:, None] + tf.cast(image_indices, tf.int64)


class ImageSource(ClassRows):
    """Random access to the images of one split, inside a graph.

    Attributes:
      spec: the data set.
      split: 'train', 'val' or 'test'.
      config: the image settings.
      storage: 'encoded', 'decoded' or 'disk'.
      memory_bytes: what the images (or their places on disk) take up in memory.
    """

    def __init__(
        self,
        records_dir: str,
        spec: store.DatasetSpec,
        split: str,
        config: ImageConfig,
        storage: str = "encoded",
    ) -> None:
        """Loads (or, for 'disk', indexes) the split.

        Raises:
          ValueError: an unknown storage, a split without classes, or records that do not match the
            spec or ('decoded') hold no image.
        """
        check_storage(storage)
        super().__init__(spec, split)
        self.spec, self.split, self.config, self.storage = spec, split, config, storage
        self._records_dir = os.fspath(records_dir)
        if not self._classes:
            raise ValueError(
                "a split must have classes. "
                f"Received: split {split!r} of data set {spec.name!r} has no classes."
            )
        load = {"encoded": self._load_encoded, "decoded": self._load_decoded}
        self.memory_bytes = load.get(storage, self._load_index)()
        _LOG.info(
            "%s/%s: %d images, storage '%s', %.1f MB in memory",
            *(spec.name, split, len(self), storage, self.memory_bytes / 1e6),
        )

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The images of rows [M]: [M, S, S, C] uint8."""
        if self.storage == "decoded":
            return tf.gather(self._pixels, rows)
        if self.storage == "encoded":
            encoded = tf.gather(self._encoded, rows)
        else:
            encoded = tf.numpy_function(self._read_rows, [rows], tf.string, stateful=False)
            encoded = tf.ensure_shape(encoded, rows.shape)
        return decode(encoded, self.config, self.spec.image_size)

    def _load_encoded(self) -> int:
        parts = [tf.constant(self._checked(c, store.read_class), tf.string) for c in self._classes]
        self._encoded = tf.concat(parts, axis=0)
        lengths = tf.cast(tf.strings.length(self._encoded), tf.int64)
        return int(tf.reduce_sum(lengths)) + _STRING_BYTES * len(self)

    def _load_decoded(self) -> int:
        pixels = _aligned((len(self), *self.config.shape))
        decoder = tf.function(
            lambda encoded: decode(encoded, self.config, self.spec.image_size),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        for i, class_id in enumerate(self._classes):
            try:
                decoded = decoder(tf.constant(self._checked(class_id, store.read_class), tf.string))
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(
                    f"class {class_id} ({self.spec.class_names[class_id]!r}) of data set "
                    f"{self.spec.name!r} in {self._records_dir!r} holds an image that cannot be "
                    f"decoded: {error.message}"
                ) from error
            pixels[self._starts[i] : self._starts[i + 1]] = decoded.numpy()
        self._pixels = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())  # no second copy
        return pixels.nbytes

    def _load_index(self) -> int:
        parts = [self._checked(c, store.index_class) for c in self._classes]
        self._places = np.concatenate(parts).astype(np.int64)
        self._files = [store.RecordFile(self._records_dir, self.spec, c) for c in self._classes]
        return self._places.nbytes

    def _checked(self, class_id: int, read: Callable[..., _Records]) -> _Records:
        """What `read` finds of a class, if that is as much as the spec says."""
        found = read(self._records_dir, self.spec, class_id)
        stated = self.spec.images_per_class[class_id]
        if len(found) != stated:
            raise ValueError(
                f"class {class_id} of data set {self.spec.name!r} must hold as many images as "
                f"{store.SPEC_FILE} in {self._records_dir!r} says ({stated}). "
                f"Received: {len(found)}."
            )
        return found

    def _read_rows(self, rows: np.ndarray) -> np.ndarray:
        """The encoded images of rows [M], each class's file opened once."""
        encoded = np.empty(len(rows), dtype=object)
        classes = np.searchsorted(self._starts, rows, side="right") - 1
        for position in np.unique(classes):
            file = self._files[position]
            descriptor = os.open(file.path, os.O_RDONLY)
            try:
                for i in np.flatnonzero(classes == position):
                    place = (int(v) for v in self._places[rows[i]])
                    record = int(rows[i] - self._starts[position])
                    encoded[i] = file.read(descriptor, *place, record)
            finally:
                os.close(descriptor)
        return encoded


def check_storage(storage: str) -> None:
    """Raises ValueError where the storage is not one of STORAGES."""
    if storage not in STORAGES:
        known = ", ".join(repr(name) for name in STORAGES)
        raise ValueError(
            f"PipelineConfig.storage must be one of {known}. "
            f"Received: PipelineConfig.storage = {storage!r}."
        )


def _aligned(shape: tuple[int, ...], alignment: int = 64) -> np.ndarray:
    """An uninitialised uint8 array that TensorFlow can take over without a copy."""
    count = int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(count + alignment, np.uint8)
    start = -buffer.ctypes.data % alignment
    return buffer[start : start + count].reshape(shape)
