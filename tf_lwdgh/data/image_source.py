# SPDX-License-Identifier: Apache-2.0
"""The images of one split, behind row numbers: in memory encoded or decoded, or streamed from disk.

| storage   | memory                                   | work for each image               |
|-----------|------------------------------------------|-----------------------------------|
| 'encoded' | the PNG or JPEG bytes + 24 an image      | decode, resize                    |
| 'decoded' | S*S*C an image                           | a copy                            |
| 'disk'    | 16 an image (its place in its file)      | one pread, verify, decode, resize |

All three give the same pixels to the bit. Every record's checksum is verified when it is loaded or indexed,
and by 'disk' at every read too; and that of every class at every opening, where the spec states it. 'disk'
keeps an index beside the records. While 'encoded' loads it needs twice its memory.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import tensorflow as tf

from tf_lwdgh.data import store
from tf_lwdgh.data.images import ImageConfig, decode
from tf_lwdgh.data.mixtures import Spec

STORAGES = ("encoded", "decoded", "disk")
_STRING_BYTES = 24  # TensorFlow's own cost of one string
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
          FileNotFoundError: a class has no file.
          ValueError: an unknown storage, a split without classes, or records that are damaged, do not
            match the spec or ('decoded') hold no image; the message names file, class and record.
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
        store.check_files(self._records_dir, spec, split)
        self._files = [store.RecordFile(self._records_dir, spec, c) for c in self._classes]
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

    def check(self, rows: np.ndarray) -> None:
        """Reads and decodes images one by one, to find the one that a task stumbled over.

        Args:
          rows: [M] their row numbers.

        Raises:
          OSError: one can't be read.
          ValueError: one is damaged or can't be decoded; the message names file, class and record.
        """
        if self.storage != "decoded":
            for row in rows:
                position = self._position(row)
                encoded = self._read_rows(np.array([row])) if self.storage == "disk" else self._encoded[row]
                self._check_image(int(position), int(row - self._starts[position]), tf.reshape(encoded, [1]))

    def _check_image(self, position: int, record: int, encoded: tf.Tensor) -> None:
        """Decodes one image [1], of a record of the class at a position among the split's."""
        try:
            decode(encoded, self.config, self.spec.image_size)
        except tf.errors.InvalidArgumentError as error:
            self._files[position].undecodable(record, error.message.strip().splitlines()[0])

    def _position(self, rows: np.ndarray) -> np.ndarray:
        """Which of the split's classes each row is of."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def _load_encoded(self) -> int:
        parts = [tf.constant(self._read(i), tf.string) for i in range(len(self._classes))]
        self._encoded = tf.concat(parts, axis=0)
        lengths = tf.cast(tf.strings.length(self._encoded), tf.int64)
        return int(tf.reduce_sum(lengths)) + _STRING_BYTES * len(self)

    def _load_decoded(self) -> int:
        pixels = _aligned((len(self), *self.config.shape))
        decoder = tf.function(
            lambda encoded: decode(encoded, self.config, self.spec.image_size),
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )
        for i in range(len(self._classes)):
            encoded = tf.constant(self._read(i), tf.string)
            try:
                decoded = decoder(encoded)
            except tf.errors.InvalidArgumentError:
                for record in range(len(encoded)):
                    self._check_image(i, record, encoded[record : record + 1])
                raise
            pixels[self._starts[i] : self._starts[i + 1]] = decoded.numpy()
        self._pixels = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())  # no second copy
        return pixels.nbytes

    def _load_index(self) -> int:
        parts = store.index_split(self._records_dir, self.spec, self.split)
        for i, places in enumerate(parts):
            self._check_count(i, len(places))
        self._places = np.concatenate(parts)
        return self._places.nbytes

    def _read(self, position: int) -> list[bytes]:
        """The encoded images of a class, as many as the spec says."""
        found = store.read_class(self._records_dir, self.spec, self._classes[position])
        self._check_count(position, len(found))
        return found

    def _check_count(self, position: int, found: int) -> None:
        class_id = self._classes[position]
        stated = self.spec.images_per_class[class_id]
        if found != stated:
            raise ValueError(
                f"class {self.spec.class_names[class_id]!r} of data set {self.spec.name!r} must hold as many images as "
                f"{store.SPEC_FILE} in {self._records_dir!r} says ({stated}). "
                f"Received: {found}."
            )

    def _read_rows(self, rows: np.ndarray) -> np.ndarray:
        """The encoded images of rows [M], each class's file opened once."""
        encoded = np.empty(len(rows), dtype=object)
        classes = self._position(rows)
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
