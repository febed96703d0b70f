# SPDX-License-Identifier: Apache-2.0
"""A small image classification set for TensorFlow Datasets, made of noise: its pictures are known here."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tests.converters import raw

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
ORDERS = ("insect", "mammal", "fish")
ORDER_OF = {"ant": 0, "bee": 0, "cat": 1, "dog": 1, "eel": 2, "fox": 1}
COUNTS = {"train": 5, "test": 2}  # images a class


def encoded(split: str, class_id: int, number: int) -> bytes:
    """A picture of class 0 is a PNG of 9×9, any other a JPEG of 12×12."""
    seed = 1000 * (split == "test") + 10 * class_id + number
    file = io.BytesIO()
    kind, size = ("PNG", 9) if class_id == 0 else ("JPEG", 12)
    Image.fromarray(raw.pixels(seed, size)).save(file, kind)
    return file.getvalue()


def pictures(splits=tuple(COUNTS)) -> dict[str, set[bytes]]:
    """The pictures of each class."""
    return {name: {encoded(s, i, n) for s in splits for n in range(COUNTS[s])} for i, name in enumerate(CLASSES)}


class TinyZoo(tfds.core.GeneratorBasedBuilder):
    """Pooled it has 6 classes of 7 images, in 3 orders."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "kind": tfds.features.ClassLabel(names=CLASSES),
            "order": tfds.features.ClassLabel(names=ORDERS),
            "stripe": tfds.features.ClassLabel(names=["no", "yes"]),  # differs within a class
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features),
            supervised_keys=("picture", "kind"),
        )  # fmt: skip

    def _split_generators(self, dl_manager):
        del dl_manager
        known = {s: self._generate_examples(s) for s in COUNTS}
        return {**known, "unlabelled": self._generate_examples("unlabelled")}

    def _generate_examples(self, split):
        for i, name in enumerate(CLASSES):
            for n in range(COUNTS.get(split, 1)):
                yield (
                    f"{i}/{n}",
                    {
                        "picture": encoded(split, i, n),
                        "kind": -1 if split == "unlabelled" else i,
                        "order": ORDER_OF[name],
                        "stripe": n % 2,
                        "mask": np.zeros((4, 4, 1), np.uint8),
                        "name": name,
                    },
                )
