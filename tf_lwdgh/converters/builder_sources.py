# SPDX-License-Identifier: Apache-2.0
"""What the builder for TensorFlow Datasets reads: records, a folder tree of images, or the drawn glyphs.

A source can be pickled and gives the images of one class at a time, so that workers elsewhere may read it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence

from tf_lwdgh.converters import archives, folders, glyphs, pictures
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store


@dataclasses.dataclass(frozen=True)
class Records:
    """A folder of records.

    Attributes:
      folder: that holds dataset_spec.json.
    """

    folder: str

    @functools.cached_property
    def spec(self) -> store.DatasetSpec:
        """What the folder holds."""
        return store.DatasetSpec.load(self.folder)

    @property
    def superclasses(self) -> Sequence[str]:
        """The superclass of each class, or nothing."""
        return [self.spec.superclass_names[i] for i in self.spec.superclasses]

    def images(self, class_id: int) -> Iterator[bytes]:
        """The encoded images of a class; every record's checksum is verified."""
        yield from store.read_class(self.folder, self.spec, class_id)


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder tree split/class/images, not converted before.

    Attributes:
      folder: that holds train, val (or valid, validation) and test.
    """

    folder: str

    @functools.cached_property
    def _classes(self) -> list[tuple[str, str, list[pathlib.Path]]]:
        """(split, name, files) of each class."""
        splits = folders.split_folders(pathlib.Path(self.folder))
        classes = {s: folders.subfolders(folder) for s, folder in splits.items()}
        folders.refuse_repeats(classes)
        return [(s, c, pictures.image_files(p)) for s in store.SPLITS for c, p in classes[s].items()]

    @functools.cached_property
    def spec(self) -> store.DatasetSpec:
        """What a conversion of the tree would say, but for the checksum of its images.

        Raises:
          ValueError: there is no such tree, or a class stands in two splits or has no image.
        """
        splits = [split for split, _, _ in self._classes]
        return store.DatasetSpec(
            name=pathlib.Path(self.folder).name,
            classes_per_split={s: splits.count(s) for s in store.SPLITS},
            images_per_class=tuple(len(files) for _, _, files in self._classes),
            class_names=tuple(name for _, name, _ in self._classes),
            split_name="folders",
            source_checksum=archives.checksum(self.folder),
            converter_version=folders.VERSION,
        )

    @property
    def superclasses(self) -> Sequence[str]:
        """None."""
        return ()

    def images(self, class_id: int) -> Iterator[bytes]:
        """The images of a class, decoded once to be sure of them; PNG and JPEG files as they are.

        Raises:
          ValueError: a file is corrupt.
        """
        files = self._classes[class_id][2]
        for image in pictures.read_images(files, Problems()):
            yield image if isinstance(image, bytes) else store.encode_png(image)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The built-in glyphs, drawn when they are asked for."""

    @functools.cached_property
    def _classes(self) -> list[tuple[str, str]]:
        return [pair for pairs in glyphs.characters().values() for pair in pairs]

    @functools.cached_property
    def spec(self) -> store.DatasetSpec:
        """What `tools/make_glyphs.py` would say, but for the checksum of the images."""
        return store.DatasetSpec(
            name=glyphs.NAME,
            classes_per_split={s: len(pairs) for s, pairs in glyphs.characters().items()},
            images_per_class=(glyphs.IMAGES_PER_CLASS,) * len(self._classes),
            class_names=tuple(glyphs.class_name(*pair) for pair in self._classes),
            converter_version=glyphs.VERSION,
        )

    @property
    def superclasses(self) -> Sequence[str]:
        """The script of each class."""
        return [script for script, _ in self._classes]

    def images(self, class_id: int) -> Iterator[bytes]:
        """The images of a class."""
        return map(store.encode_png, glyphs.images(self._classes[class_id][1]))


Source = Records | Tree | Drawn


def find(manual_dir: str | os.PathLike, name: str) -> Records | Tree:
    """The records, or else the folder tree, in <manual_dir>/<name>.

    Raises:
      FileNotFoundError: there is neither.
    """
    folder = pathlib.Path(manual_dir, name)
    if (folder / store.SPEC_FILE).exists():
        return Records(os.fspath(folder))
    if folder.is_dir():
        return Tree(os.fspath(folder))
    raise FileNotFoundError(
        f"tf_lwdgh/{name} needs the folder {folder}, of a converter's records or of a tree "
        "split/class/images: --manual_dir must hold it. Converters: python -m tf_lwdgh.converters --help."
    )
