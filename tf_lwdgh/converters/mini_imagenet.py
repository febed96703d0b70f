# SPDX-License-Identifier: Apache-2.0
"""mini-ImageNet (Ravi and Larochelle, ICLR 2017): 64 / 16 / 20 ImageNet classes of 600 images.

Reads every form in which it goes round; `FORMS` says which. Pixels from pickles are stored as PNG,
so that nothing is lost; image files of the right size keep their bytes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from tf_lwdgh.converters import (
    archives,
    folders,
    forms,
    listed_splits,
    pickled_splits,
    pictures,
    ravi_split,
)
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

VERSION = "mini_imagenet-2"
CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES = 600

FORMS = {
    "cache": "mini-imagenet-cache-{train,val,test}.pkl",
    "category": "miniImageNet_category_split_{train_phase_train,val,test}.pickle",
    "csv": "images/ with {train,val,test}.csv",
    "ilsvrc": "ILSVRC's training folders n*/*.JPEG with {train,val,test}.csv (--splits)",
    "folders": "train/, val/ and test/ with a folder of images for each class",
}


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    form: str | None = None,
    splits: str | os.PathLike | None = None,
    image_size: int = 84,
    subset: bool = False,
    name: str = "mini_imagenet",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes mini-ImageNet's records.

    Args:
      source: the folder that holds one of `FORMS`, or an archive of it.
      out_dir: of the records.
      form: which of `FORMS`; needed only where the source holds several.
      splits: the folder of train.csv, val.csv and test.csv where they are not in the source.
      image_size: height and width of the records' images.
      subset: accept other classes and numbers of images than the data set's.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: the source, or a split's file, is missing.
      ValueError: none or several of the forms are there, the counts differ, an image is corrupt or
        missing.
    """
    problems = Problems(skip_bad=skip_bad)
    pictures.check_size(image_size)
    with archives.as_folder(source, beside=out_dir) as unpacked:
        root, found = forms.locate(unpacked, FORMS, lambda f: _forms_at(f, splits), form=form, title="mini-ImageNet")
        lists = pathlib.Path(splits) if splits is not None else root
        if found in ("cache", "category"):
            classes = pickled_splits.read(root, found, image_size)
        else:
            classes = _from_files(root, found, lists, image_size, problems)
        folders.refuse_repeats(classes)
        if not subset:
            ravi_split.check_classes(classes)
            check_counts({s: {c: n for c, (n, _) in classes[s].items()} for s in classes}, problems)
        spec = store.write_dataset(
            out_dir,
            name,
            {s: [(c, images) for c, (_, images) in classes[s].items()] for s in store.SPLITS},
            image_size=image_size,
            source_checksum=archives.checksum(source),
            converter_version=VERSION,
            split_name="ravi (subset)" if subset else "ravi",
            overwrite=overwrite,
        )
    return spec, problems


def check_counts(counts: Mapping[str, Mapping[str, int]], problems: Problems) -> None:
    """Compares the images of each class of each split with what the data set has.

    Raises:
      ValueError: the number of classes differs; or, unless problems are skipped, that of a class's
        images.
    """
    for split, expected in CLASSES.items():
        if len(counts[split]) != expected:
            raise ValueError(
                f"mini-ImageNet has {expected} {split} classes, found {len(counts[split])}. Say "
                "--subset where that is on purpose."
            )
        for class_name, count in counts[split].items():
            if count != IMAGES:
                what = f"mini-ImageNet's classes have {IMAGES} images, found {count} (see --subset)"
                problems.add(f"{split} class {class_name!r}", what)


def _forms_at(root: pathlib.Path, splits: str | os.PathLike | None) -> list[str]:
    found = [] if splits else [f for f in ("cache", "category") if pickled_splits.find(root, f)]
    inside = folders.subfolders(root)
    if splits or listed_splits.has_lists(root):
        if "images" in inside:
            found.append("csv")
        if listed_splits.ilsvrc_home(root) is not None:
            found.append("ilsvrc")
    if (
        not splits
        and {"train", "test"} <= set(inside)
        and all(folders.subfolders(inside[s]) for s in ("train", "test"))
    ):
        found.append("folders")
    return found


def _from_files(
    root: pathlib.Path, form: str, lists: pathlib.Path, image_size: int, problems: Problems
) -> dict[str, pickled_splits.Images]:
    if form == "folders":
        by_split = {s: folders.subfolders(f) for s, f in folders.split_folders(root).items()}
        paths = {s: {c: pictures.image_files(f) for c, f in by_split[s].items()} for s in by_split}
    elif form == "csv":
        paths = listed_splits.from_images(root / "images", listed_splits.read_lists(lists), problems)
    else:
        home = listed_splits.ilsvrc_home(root)
        paths = listed_splits.from_ilsvrc(home, listed_splits.read_lists(lists), problems)
    return {
        split: {
            c: (len(files), pictures.read_images(files, problems, image_size=image_size))
            for c, files in by_class.items()
        }
        for split, by_class in paths.items()
    }
