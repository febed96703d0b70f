# SPDX-License-Identifier: Apache-2.0
"""tiered-ImageNet (Ren et al., ICLR 2018): 608 ImageNet classes, split by category.

Reads the forms in which it goes round; `FORMS` says which. The categories become superclasses, so
that no class of a test has a near relative in training.
"""

from __future__ import annotations

import os
import pathlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_lwdgh.converters import (
    archives,
    forms,
    listed_splits,
    pictures,
    tiered_arrays,
    tiered_labels,
)
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.converters.tiered_split import SYNSETS
from tf_lwdgh.data import store

VERSION = "tiered_imagenet-2"
TITLE = "tiered-ImageNet"
CLASSES = {"train": 351, "val": 97, "test": 160}
CATEGORIES = {"train": 20, "val": 6, "test": 8}
IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}

FORMS = {
    "png": "{train,val,test}_images_png.pkl with {train,val,test}_labels.pkl",
    "npz": "{train,val,test}_images.npz with {train,val,test}_labels.pkl",
    "ilsvrc": "ILSVRC's training folders n*/*.JPEG, or their archives n*.tar",
}


class Source(NamedTuple):
    """What a form gives: the classes' images, how many there are, and the classes' categories."""

    images: Mapping[str, Sequence[tuple[str, Iterator[bytes | np.ndarray]]]]
    counts: Mapping[str, int]
    categories: Mapping[str, str]


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    form: str | None = None,
    image_size: int = 84,
    channels: str = "bgr",
    name: str = "tiered_imagenet",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes tiered-ImageNet's records.

    Args:
      source: the folder that holds one of `FORMS`, or an archive of it.
      out_dir: of the records.
      form: which of `FORMS`; needed only where the source holds several.
      image_size: height and width of the records' images.
      channels: 'bgr' or 'rgb': the order in the .npz.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt or missing.

    Raises:
      FileNotFoundError: the source, or a split's file, is missing.
      ValueError: none or several of the forms are there, the counts differ, an image is corrupt or
        missing.
    """
    problems, out_dir = Problems(skip_bad=skip_bad), pathlib.Path(out_dir)
    pictures.check_size(image_size)
    if channels not in tiered_arrays.CHANNELS:
        known = ", ".join(tiered_arrays.CHANNELS)
        raise ValueError(f"--channels must be one of {known}. Received: {channels!r}.")
    with archives.as_folder(source, beside=out_dir) as unpacked:
        root, found = forms.locate(unpacked, FORMS, _forms_at, form=form, title=TITLE)
        if found == "ilsvrc":
            read = _from_ilsvrc(root, image_size, problems)
        else:
            read = _from_arrays(root, found, image_size, channels, out_dir, problems)
        _check(read, problems)
        spec = store.write_dataset(
            out_dir,
            name,
            read.images,
            image_size=image_size,
            source_checksum=archives.checksum(source),
            converter_version=VERSION,
            split_name="ren",
            superclasses=read.categories,
            overwrite=overwrite,
        )
    return spec, problems


def _forms_at(root: pathlib.Path) -> list[str]:
    found = [form for form in tiered_arrays.IMAGES if tiered_arrays.find(root, form)]
    return [*found, "ilsvrc"] if listed_splits.ilsvrc_home(root, archived=True) else found


def _from_arrays(
    root: pathlib.Path,
    form: str,
    image_size: int,
    channels: str,
    out_dir: pathlib.Path,
    problems: Problems,
) -> Source:
    labels = tiered_labels.read(root)
    images = tiered_arrays.read_images(
        root, form, labels, problems, image_size=image_size, channels=channels, beside=out_dir
    )
    counts = {s: sum(len(group.rows) for group in labels[s]) for s in store.SPLITS}
    groups = [group for split in store.SPLITS for group in labels[split]]
    known = all(group.category is not None for group in groups)
    return Source(images, counts, {g.name: g.category for g in groups} if known else {})


def _check(read: Source, problems: Problems) -> None:
    """Compares the numbers of classes, categories and images with the published ones."""
    for split in store.SPLITS:
        names = [class_name for class_name, _ in read.images[split]]
        found = [
            (len(names), CLASSES[split], "classes"),
            (read.counts[split], IMAGES[split], "images"),
        ]
        if read.categories:
            categories = {read.categories[class_name] for class_name in names}
            found.append((len(categories), CATEGORIES[split], "categories"))
        for count, expected, what in found:
            if count != expected:
                rule = f"{TITLE} has {expected:,} {split} {what}, found {count:,}"
                problems.add(f"split {split}", rule)


def _from_ilsvrc(root: pathlib.Path, image_size: int, problems: Problems) -> Source:
    """Every image of each synset; a synset is a folder or an archive."""
    home = listed_splits.ilsvrc_home(root, archived=True)
    images, counts = {}, {}
    for split, synsets in SYNSETS.items():
        images[split], counts[split] = [], 0
        for synset in synsets:
            count, pictured = _synset(home, synset.wnid, image_size, problems)
            if count:
                images[split].append((synset.wnid, pictured))
                counts[split] += count
            else:
                what = f"the folder of this {split} class, or its .tar, is missing or empty"
                problems.add(home / synset.wnid, what)
    categories = {s.wnid: s.category for synsets in SYNSETS.values() for s in synsets}
    return Source(images, counts, categories)


def _synset(
    home: pathlib.Path, wnid: str, image_size: int, problems: Problems
) -> tuple[int, Iterator[bytes | np.ndarray]]:
    """How many images a synset has, and the images."""
    archive = home / f"{wnid}.tar"
    if archive.is_file() and not (home / wnid).is_dir():
        members = archives.tar_members(archive, pictures.SUFFIXES)
        return len(members), _archived(archive, members, image_size, problems)
    paths = pictures.image_files(home / wnid)
    return len(paths), pictures.read_images(paths, problems, image_size=image_size)


def _archived(
    archive: pathlib.Path,
    members: Sequence[tarfile.TarInfo],
    image_size: int,
    problems: Problems,
) -> Iterator[bytes | np.ndarray]:
    with archives.damage_named(archive), tarfile.open(archive, "r:") as file:
        for member in members:
            where = f"{archive}, {member.name}"
            image = pictures.read_image(
                where, lambda m=member: file.extractfile(m).read(), problems, image_size=image_size
            )
            if image is not None:
                yield image
