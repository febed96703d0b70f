# SPDX-License-Identifier: Apache-2.0
"""The images of one split of several data sets, behind one numbering of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_lwdgh.data.image_source import ClassRows, ImageSource
from tf_lwdgh.data.images import ImageConfig
from tf_lwdgh.data.mixtures import Mixture, Spec


class MixedSource(ClassRows):
    """The ImageSource of each set; every task's rows are of one of them.

    Rows run through the sets in order, in each as its ImageSource has them. Sets may differ in the
    size and channels of their images: each source brings its own to the configured ones.

    Attributes:
      spec: the mixture.
      parts: each set's source.
      split: 'train', 'val' or 'test'.
      config: the image settings.
      storage: 'encoded', 'decoded' or 'disk'.
      memory_bytes: what the images (or their places on disk) take up in memory.
    """

    def __init__(
        self,
        records_dirs: Sequence[str],
        spec: Mixture,
        split: str,
        config: ImageConfig,
        storage: str = "encoded",
    ) -> None:
        """Loads (or, for 'disk', indexes) the split of every set, as ImageSource does."""
        super().__init__(spec, split)
        self.spec, self.split, self.config, self.storage = spec, split, config, storage
        self.parts = [
            ImageSource(folder, part, split, config, storage)
            for folder, part in zip(records_dirs, spec.specs, strict=True)
        ]
        self._ends = np.cumsum([len(source) for source in self.parts]).astype(np.int64)
        self.memory_bytes = sum(source.memory_bytes for source in self.parts)

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """The images of rows [M], all of one set: [M, S, S, C] uint8."""

        def of(number: int) -> Callable[[], tf.Tensor]:
            source = self.parts[number]
            return lambda: source.gather(rows - (int(self._ends[number]) - len(source)))

        which = tf.searchsorted(tf.constant(self._ends), rows[:1], side="right")[0]
        return tf.switch_case(which, [of(number) for number in range(len(self.parts))])

    def check(self, rows: np.ndarray) -> None:
        """Raises an error where one of the images of rows [M], all of one set, has a fault; it names it."""
        number = int(np.searchsorted(self._ends, rows[0], side="right"))
        source = self.parts[number]
        source.check(rows - (int(self._ends[number]) - len(source)))


Source = ImageSource | MixedSource


def open_source(
    data_dir: str | os.PathLike[str],
    names: Sequence[str],
    spec: Spec,
    split: str,
    config: ImageConfig,
    storage: str,
) -> Source:
    """Loads the images of one split of the data sets `names` in data_dir, which `spec` describes."""
    folders = [os.path.join(data_dir, name) for name in names]
    if isinstance(spec, Mixture):
        return MixedSource(folders, spec, split, config, storage)
    return ImageSource(folders[0], spec, split, config, storage)
