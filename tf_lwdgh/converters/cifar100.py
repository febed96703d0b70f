# SPDX-License-Identifier: Apache-2.0
"""What CIFAR-FS and FC100 share: CIFAR-100's classes and superclasses, forms, counts, the conversion.

CIFAR-100 (Krizhevsky, 2009) has 100 classes of 600 images, five in each of 20 superclasses.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tf_lwdgh.converters import archives, folders, forms, pickled_splits, pictures, texts
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

IMAGES = 600
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {c: s for s, classes in SUPERCLASSES.items() for c in classes.split()}
FINE = tuple(sorted(SUPERCLASS_OF))  # by CIFAR-100's own number


class DataSet(NamedTuple):
    """One few-shot data set made of CIFAR-100.

    Attributes:
      name: of the records, and of its pickles among `pickled_splits`' forms.
      title: for messages.
      forms: in which it goes round: 'folders', 'pickles' and 'cifar100', those that there are.
      split_of: the split of each class.
      split_name: for the spec, and the folder of its lists in splits/ beside the form 'folders'.
      authors: of the split.
      version: of the converter.
    """

    name: str
    title: str
    forms: Mapping[str, str]
    split_of: Mapping[str, str]
    split_name: str
    authors: str
    version: str

    def classes(self, split: str) -> list[str]:
        """The classes of a split, in order of superclass and name."""
        names = (c for c, s in self.split_of.items() if s == split)
        return sorted(names, key=lambda c: (SUPERCLASS_OF[c], c))


def convert(
    data_set: DataSet,
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    form: str | None = None,
    image_size: int = 32,
    name: str | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes the records, with superclasses where the classes' names are known.

    Args:
      data_set: which.
      source: the folder that holds one of the data set's forms, or an archive of it.
      out_dir: of the records.
      form: which of the forms; needed only where the source holds several.
      image_size: height and width of the records' images.
      name: of the records; by default the data set's.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: the source, or a split's file, is missing.
      ValueError: none or several of the forms are there, a file has not the keys, types and shapes, a
        list or a count differs, an image is corrupt.
    """
    problems = Problems(skip_bad=skip_bad)
    pictures.check_size(image_size)
    with archives.as_folder(source, beside=out_dir) as unpacked:
        root, found = forms.locate(
            unpacked, data_set.forms, lambda folder: _forms_at(folder, data_set), form=form,
            title=data_set.title,
        )  # fmt: skip
        if found == "pickles":
            classes = from_pickles(root, data_set, image_size)
        elif found == "cifar100":
            classes = from_official(root, data_set, image_size)
        else:
            classes = from_folder(root, data_set, image_size, problems)
        spec = write(
            classes, out_dir, data_set, problems, name=name or data_set.name,
            image_size=image_size, source=source, overwrite=overwrite,
        )  # fmt: skip
    return spec, problems


def _forms_at(root: pathlib.Path, data_set: DataSet) -> list[str]:
    data = root / "data"
    there = set(folders.subfolders(data)) if data.is_dir() else set()
    holds = {
        "folders": bool(there & set(FINE)),
        "pickles": bool(pickled_splits.find(root, data_set.name)),
        "cifar100": all((root / part).is_file() for part in ("train", "test", "meta")),
    }
    return [form for form in data_set.forms if holds[form]]


def from_pickles(root: pathlib.Path, data_set: DataSet, image_size: int) -> dict[str, pickled_splits.Images]:
    """The classes of the pickled splits, by name where their labels are CIFAR-100's own numbers.

    They are where each split's labels are the very numbers of its classes; labels that count from
    0 to 59, say, are not, and nothing tells which class is which.
    """
    read = pickled_splits.read_by_label(root, data_set.name, image_size)
    fine = {s: {FINE.index(c): c for c in data_set.classes(s)} for s in store.SPLITS}
    if all(set(read[s]) == set(fine[s]) for s in store.SPLITS):
        return {s: {c: read[s][FINE.index(c)] for c in data_set.classes(s)} for s in store.SPLITS}
    return {s: {f"{s}-{n:02d}": read[s][n] for n in sorted(read[s])} for s in store.SPLITS}


def from_official(root: pathlib.Path, data_set: DataSet, image_size: int) -> dict[str, pickled_splits.Images]:
    """The classes in CIFAR-100's own two files; their split into train and test means nothing here.

    Raises:
      UnsafePickle: a file asks for more than arrays and containers.
      ValueError: a file has not the keys, types and shapes.
    """
    pixels, labels = zip(*(_official(root / part) for part in ("train", "test")), strict=True)
    all_pixels, all_labels = np.concatenate(pixels), np.concatenate(labels)
    rows = {c: np.flatnonzero(all_labels == i).tolist() for i, c in enumerate(FINE)}
    return {
        s: {c: (len(rows[c]), pickled_splits.take(all_pixels, rows[c], image_size)) for c in data_set.classes(s)}
        for s in store.SPLITS
    }


def _official(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 32, 32, 3] and labels [N]; the file has the colours one after the other."""
    content = pickled_splits.load(path)
    pixels = content.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        what = getattr(pixels, "shape", type(pixels).__name__)
        raise ValueError(f"{path} must have 'data', uint8 [N, 3072]. Received: {what}.")
    labels = pickled_splits.integers(path, "fine_labels", content.get("fine_labels"))
    if len(labels) != len(pixels):
        raise ValueError(f"{path} must have a label for each of its {len(pixels)} images. Received: {len(labels)}.")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def from_folder(
    root: pathlib.Path, data_set: DataSet, image_size: int, problems: Problems
) -> dict[str, pickled_splits.Images]:
    """The classes in data/<class>; a missing one is a problem.

    Raises:
      ValueError: a list in splits/ differs from the published split.
    """
    _check_lists(root / "splits" / data_set.split_name, data_set)
    data = root / "data"
    there = folders.subfolders(data)
    out: dict[str, dict[str, tuple[int, Iterator[bytes | np.ndarray]]]] = {}
    for split in store.SPLITS:
        out[split] = {}
        for class_name in data_set.classes(split):
            if class_name not in there:
                problems.add(data / class_name, f"the folder of this {split} class is missing")
                continue
            paths = pictures.image_files(there[class_name])
            images = pictures.read_images(paths, problems, image_size=image_size)
            out[split][class_name] = len(paths), images
    return out


def _check_lists(folder: pathlib.Path, data_set: DataSet) -> None:
    """Compares the lists, where they are there, with the published ones."""
    for split in store.SPLITS:
        path = folder / f"{split}.txt"
        if path.is_file():
            listed = set(texts.read(path).split())
            differ = sorted(listed ^ set(data_set.classes(split)))
            if differ:
                raise ValueError(
                    f"{path} must name the {split} classes of {data_set.authors}. It differs in: "
                    f"{', '.join(differ[:10])}."
                )


def write(
    classes: Mapping[str, pickled_splits.Images],
    out_dir: str | os.PathLike,
    data_set: DataSet,
    problems: Problems,
    *,
    name: str,
    image_size: int,
    source: str | os.PathLike,
    overwrite: bool,
) -> store.DatasetSpec:
    """Checks the numbers of classes and images, and writes the records."""
    for split in store.SPLITS:
        expected = len(data_set.classes(split))
        if len(classes[split]) != expected:
            rule = f"{data_set.title} has {expected} {split} classes, found {len(classes[split])}"
            problems.add(f"split {split}", rule)
        for class_name, (count, _) in classes[split].items():
            if count != IMAGES:
                rule = f"{data_set.title}'s classes have {IMAGES} images, found {count}"
                problems.add(f"{split} class {class_name!r}", rule)
    names = [c for split in store.SPLITS for c in classes[split]]
    return store.write_dataset(
        out_dir,
        name,
        {s: [(c, images) for c, (n, images) in classes[s].items() if n] for s in store.SPLITS},
        image_size=image_size,
        source_checksum=archives.checksum(source),
        converter_version=data_set.version,
        split_name=data_set.split_name,
        superclasses=superclasses(names),
        overwrite=overwrite,
    )


def superclasses(names: Iterable[str]) -> dict[str, str]:
    """The superclass of each class; none where the classes' names are not known."""
    found = {c: SUPERCLASS_OF.get(c, "") for c in names}
    return found if all(found.values()) else {}
